"""Passwords: the rules for new ones, and argon2id behind a gate: each hash takes 64 MiB for a tenth of a second."""

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pwdlib import PasswordHash

from app.core.errors import PanelError, bad_field
from app.core.i18n import _

MIN_LENGTH = 10
MAX_LENGTH = 200
_PARALLEL_HASHES = 4
_GATE_SECONDS = 10

_hasher = PasswordHash.recommended()
_gate = threading.BoundedSemaphore(_PARALLEL_HASHES)


def check(password: str, name: str) -> None:
    """Refuse a password that is too short, too long or the user's own name."""
    if len(password) < MIN_LENGTH:
        message = _("The password needs at least {min} characters; this one has {n}.", min=MIN_LENGTH, n=len(password))
        raise bad_field("password", "password_too_short", message)
    if len(password) > MAX_LENGTH:
        raise bad_field(
            "password", "password_too_long", _("The password can have at most {max} characters.", max=MAX_LENGTH)
        )
    if password.casefold() == name.strip().casefold():
        raise bad_field("password", "password_is_name", _("The password must not be the same as the name."))


def hash_password(password: str) -> str:
    """The argon2id hash to store. Takes a tenth of a second: call it outside a transaction."""
    with _admitted():
        return _hasher.hash(_normal(password))


def verify_password(password: str, password_hash: str | None) -> bool:
    """Whether the password is right. Without a hash (an unknown name) it does the same work and says no."""
    with _admitted():
        right = _hasher.verify(_normal(password[: MAX_LENGTH + 1]), password_hash or _nobodys_hash())
    return right and password_hash is not None


@contextmanager
def _admitted() -> Iterator[None]:
    if not _gate.acquire(timeout=_GATE_SECONDS):
        message = _("Too many people are logging in at once. Try again in a moment.")
        raise PanelError(503, "login_busy", message, headers={"Retry-After": "5"})
    try:
        yield
    finally:
        _gate.release()


@cache
def _nobodys_hash() -> str:
    return _hasher.hash("nobody has this password")


def _normal(password: str) -> str:
    # The same characters typed on another system may arrive composed differently.
    return unicodedata.normalize("NFC", password)
