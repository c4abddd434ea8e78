"""Names and texts from users: names have one form, and neither has characters that nobody can see."""

import unicodedata
from collections.abc import Callable

from app.core.errors import bad_field
from app.core.i18n import _

# Letters, marks and a symbol that are displayed as nothing. isprintable() knows those of the category Format.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def checked_name(text: str, *, max_length: int, field: str = "name") -> str:
    """A name as it is stored: trimmed, in Unicode's composed form (NFC), with plain spaces.

    Raises PanelError if it is empty, has more than `max_length` characters, or contains one that is invisible,
    changes the direction of writing or cannot be displayed.
    """
    _check_characters(field, text, _is_visible)
    name = unicodedata.normalize("NFC", _with_plain_spaces(text)).strip()
    if not name:
        raise bad_field(field, "name_missing", _("Enter a name."))
    if len(name) > max_length:
        message = _("{field} can have at most {max} characters.", field=_label(field), max=max_length)
        raise bad_field(field, "name_too_long", message)
    return name


def comparison_key(name: str) -> str:
    """What two names share that people would take for the same: composed or not, in upper or lower case."""
    composed = unicodedata.normalize("NFC", _with_plain_spaces(name)).strip()
    return unicodedata.normalize("NFC", composed.casefold())


def check_text(field: str, text: str) -> None:
    """Raise PanelError if a text has control characters other than tabs and line breaks, or unpaired surrogates."""
    _check_characters(field, text, _is_text)


def printable_text(text: str) -> str:
    """A text that a program wrote, with a mark in place of each character that `check_text` refuses."""
    return "".join(character if _is_text(character) else "\ufffd" for character in text)


def _check_characters(field: str, text: str, is_allowed: Callable[[str], bool]) -> None:
    trimmed = text.rstrip()
    start = len(trimmed) - len(trimmed.lstrip())
    for position, character in enumerate(trimmed[start:], start + 1):
        if not is_allowed(character):
            message = _(
                "{field} contains an invisible or control character ({character}) at position {position}. Remove it.",
                field=_label(field),
                character=f"U+{ord(character):04X}",
                position=position,
            )
            raise bad_field(field, "character_invalid", message)


def _is_visible(character: str) -> bool:
    is_space = unicodedata.category(character) == "Zs"
    return (character.isprintable() or is_space) and character not in _BLANK


def _is_text(character: str) -> bool:
    return character in "\t\n\r" or unicodedata.category(character) not in ("Cc", "Cs")


def _with_plain_spaces(text: str) -> str:
    return "".join(" " if unicodedata.category(character) == "Zs" else character for character in text)


def _label(field: str) -> str:
    """The field as the subject of a sentence."""
    return {"name": _("The name"), "title": _("The title"), "filename": _("The file name")}.get(field, field)
