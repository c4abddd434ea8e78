"""Password rules and argon2id hashing. A hash takes 64 MiB and up to 4 cores for 0.1 s, so few run at once.

Routes that hash are decorated with HASHING, so that they wait in a queue of their own.
"""

import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pwdlib import PasswordHash

from app.accounts import password_strength
from app.core.errors import bad_field
from app.core.i18n import _
from app.web.pools import Pool, too_many_requests

MIN_LENGTH = 10
MAX_LENGTH = 200
PARALLEL_HASHES = max(1, min(4, (os.cpu_count() or 1) // 2))
HASHING = Pool(PARALLEL_HASHES, max_waiting=32, max_per_client=8)

_hasher = PasswordHash.recommended()
_hash_slots = threading.BoundedSemaphore(PARALLEL_HASHES)


def check(password: str, name: str) -> None:
    """Check a new password. Raises PanelError if it is too short, too long, the user's name or easy to guess."""
    if len(password) < MIN_LENGTH:
        message = _("The password needs at least {min} characters; this one has {n}.", min=MIN_LENGTH, n=len(password))
        raise bad_field("password", "password_too_short", message)
    if len(password) > MAX_LENGTH:
        raise bad_field(
            "password", "password_too_long", _("The password can have at most {max} characters.", max=MAX_LENGTH)
        )
    if password.casefold() == name.strip().casefold():
        raise bad_field("password", "password_is_name", _("The password must not be the same as the name."))
    password_strength.check(password, name)


def hash_password(password: str) -> str:
    """The argon2id hash to store. Takes 0.1 s: call it outside a transaction. Raises PanelError (429) under load."""
    with _hash_slot():
        return _hasher.hash(_normalize(password))


def verify_password(password: str, password_hash: str | None) -> bool:
    """Whether the password matches the hash. Raises PanelError (429) under load.

    Without a hash, for an unknown name, it takes the same time and returns False.
    """
    with _hash_slot():
        is_match = _hasher.verify(_normalize(password[: MAX_LENGTH + 1]), password_hash or _dummy_hash())
    return is_match and password_hash is not None


@contextmanager
def _hash_slot() -> Iterator[None]:
    # Threads of HASHING always get a slot. Others must not wait: they serve all requests.
    if not _hash_slots.acquire(blocking=False):
        raise too_many_requests()
    try:
        yield
    finally:
        _hash_slots.release()


@cache
def _dummy_hash() -> str:
    return _hasher.hash("nobody has this password")


def _normalize(password: str) -> str:
    # Other systems may send the same characters in another composition.
    return unicodedata.normalize("NFC", password)
