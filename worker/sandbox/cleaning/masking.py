"""Steps that replace personal data and secrets in texts by names of what they were."""

import importlib
import pkgutil
import re
from collections.abc import Callable
from ipaddress import ip_address

from detect_secrets import plugins
from detect_secrets.plugins.base import RegexBasedDetector

from app.corpora.cleaning.recipe import MaskPersonalData, MaskSecrets, PersonalDataKind
from worker.sandbox.cleaning.steps import Context, Edit

IBAN_LENGTHS = range(15, 35)
CARD_LENGTHS = range(13, 20)
SECRET = "<SECRET>"  # noqa: S105 - what stands in place of one
MIN_SECRET_CHARACTERS = 16  # of a group of a pattern that is the secret, and not a prefix of it
# Its groups are passwords however short. IP addresses are personal data, and private keys have a pattern of their own.
_PASSWORDS = "BasicAuthDetector"
_LEFT_OUT = ("IPPublicDetector", "PrivateKeyDetector")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<label>[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:(?!-----BEGIN )[\s\S]){1,20000}?-----END (?P=label)-----"
)


# ---- personal data --------------------------------------------------------------------------------------------------


def is_card(digits: str) -> bool:
    """Whether a number is one of a payment card: its length, issuer and check digit (ISO/IEC 7812, Luhn)."""
    if len(digits) not in CARD_LENGTHS or digits[0] not in "23456" or len(set(digits)) == 1:
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether the check digits of an IBAN are right (ISO 13616, mod 97)."""
    if len(text) not in IBAN_LENGTHS:
        return False
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def is_address(text: str) -> bool:
    """Whether this is an IP address that may be somebody's: loopback and unspecified ones are nobody's."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def is_phone(text: str) -> bool:
    """Whether the number of digits is that of a phone number (E.164)."""
    return 8 <= sum(map(str.isdigit, text)) <= 15


_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
# The pattern of each kind, in the order in which they are masked, and what else must hold of a match without spaces.
# Letters and digits are those of ASCII: ideographs stand beside numbers without a space.
PATTERNS: dict[PersonalDataKind, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (
        re.compile(
            r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}\b",
            re.ASCII,
        ),
        lambda text: True,
    ),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.ASCII), is_iban),
    "credit_card": (re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])", re.ASCII), is_card),
    "ip_address": (
        re.compile(
            rf"(?<![\w.])(?:{_BYTE}\.){{3}}{_BYTE}(?![\w]|\.\d)|(?<![\w:.])(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}[0-9A-Fa-f]{{1,4}}(?![\w:])",
            re.ASCII,
        ),
        is_address,
    ),
    "phone": (
        re.compile(
            r"(?<![\w+.])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,5}(?!\d)"  # +49 30 1234567
            r"|(?<![\w.])\(\d{3}\) ?\d{3}[ .-]\d{4}(?!\d)"  # (212) 555-0134
            r"|(?<![\w.-])\d{3}-\d{3}-\d{4}(?![\w-])"  # 212-555-0134
            r"|(?<![\w.])1[3-9]\d-?\d{4}-?\d{4}(?![\w.])",  # 138 0013 8000 of China, without spaces
            re.ASCII,
        ),
        is_phone,
    ),
}


class MaskPersonalDataStep(Edit):
    """Replaces personal data."""

    code = "personal_data_masked"

    def __init__(self, settings: MaskPersonalData, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._kinds = [kind for kind in PATTERNS if kind in settings.kinds]

    def edit(self, text: str) -> tuple[str, int]:
        """The text with names such as <EMAIL>."""
        num_places = 0
        for kind in self._kinds:
            pattern, is_valid = PATTERNS[kind]

            def masked(match: re.Match[str], kind: str = kind, is_valid: Callable[[str], bool] = is_valid) -> str:
                nonlocal num_places
                if not is_valid(re.sub(r"[ -]", "", match[0])):
                    return match[0]
                num_places += 1
                return f"<{kind.upper()}>"

            text = pattern.sub(masked, text)
        return text, num_places


# ---- secrets --------------------------------------------------------------------------------------------------------


def secret_patterns() -> list[tuple[re.Pattern[str], bool]]:
    """The patterns of all detectors of detect-secrets that know a secret by its form, and whether any group is one.

    Detectors of random strings and of words such as `password` are left out: in running text they are mostly wrong.
    Nothing is verified by the network.
    """
    for module in pkgutil.iter_modules(plugins.__path__):
        importlib.import_module(f"{plugins.__name__}.{module.name}")
    return [
        (pattern, detector.__name__ == _PASSWORDS)
        for detector in RegexBasedDetector.__subclasses__()
        if detector.__name__ not in _LEFT_OUT
        for pattern in detector().denylist
    ]


class MaskSecretsStep(Edit):
    """Replaces secrets."""

    code = "secrets_masked"

    def __init__(self, settings: MaskSecrets, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._patterns = [(_PRIVATE_KEY, False), *secret_patterns()]

    def edit(self, text: str) -> tuple[str, int]:
        """The text with <SECRET> in place of each."""
        num_places = 0
        for pattern, is_password in self._patterns:
            spans = [secret_span(match, is_password) for match in pattern.finditer(text)]
            for start, end in reversed(spans):
                text = text[:start] + SECRET + text[end:]
            num_places += len(spans)
        return text, num_places


def secret_span(match: re.Match[str], is_password: bool) -> tuple[int, int]:
    """Where the secret of a match is: a group that is long enough to be one, or all of it."""
    least = 1 if is_password else MIN_SECRET_CHARACTERS
    groups = [number for number in range(1, len(match.groups()) + 1) if len(match[number] or "") >= least]
    return match.span(groups[-1] if groups and match.re is not _PRIVATE_KEY else 0)
