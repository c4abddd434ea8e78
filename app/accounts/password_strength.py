"""Refuses passwords that are easy to guess, as zxcvbn estimates it: by common words, names, keyboard rows, dates."""

import math

from zxcvbn import zxcvbn
from zxcvbn.matching import L33T_TABLE

from app.core.errors import bad_field
from app.core.i18n import _

# Of 0 to 4. From 3 on a guesser needs more than 100 million tries, which argon2 and the limits on logins make slow.
MIN_SCORE = 3
MAX_CHARACTERS = 40  # that are looked at: the time grows with the square of the length
MAX_SPELLINGS = 8  # of the same word with digits and signs for letters: the time grows with their number
_SPELL_ALIKE = str.maketrans({sign: signs[0] for signs in L33T_TABLE.values() for sign in signs[1:]})


def check(password: str, name: str) -> None:
    """Raise PanelError if a password of this user is easy to guess, with the reason. Takes 0.2 s at most."""
    result = zxcvbn(_with_few_spellings(password[:MAX_CHARACTERS]), user_inputs=[name, "Athanor"])
    if result["score"] < MIN_SCORE:
        weakest = min(result["sequence"], key=lambda match: float(match["guesses_log10"]) / len(match["token"]))
        raise bad_field("password", "password_weak", _sentence(weakest["pattern"]))


def _with_few_spellings(password: str) -> str:
    """The password, with one sign for each letter where it has so many signs that trying all letters takes seconds."""
    num_spellings = math.prod(max(1, sum(sign in password for sign in signs)) for signs in L33T_TABLE.values())
    return password if num_spellings <= MAX_SPELLINGS else password.translate(_SPELL_ALIKE)


def _sentence(pattern: str) -> str:
    reasons = {
        "dictionary": _("This password is easy to guess: it is a common word, name or password, or close to one."),
        "spatial": _("This password is easy to guess: its keys lie side by side on the keyboard."),
        "repeat": _("This password is easy to guess: it repeats the same characters."),
        "sequence": _("This password is easy to guess: it is a sequence such as abc or 123."),
        "date": _("This password is easy to guess: it is a date or a year."),
        "regex": _("This password is easy to guess: it is a date or a year."),
    }
    reason = reasons.get(pattern, _("This password is easy to guess."))
    return reason + " " + _("Several unrelated words make a good one.")
