"""Limits on guessing passwords, codes and tokens: wrong guesses are counted, and from some number on they have to wait.

What is counted is a hash of what is guessed at, whether that exists or not: nothing tells a known name from an unknown
one. Keys have 20 bits, so a flood of invented names leaves at most a million rows, and those only for a day.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from fastapi import Request
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core import db
from app.core.account_models import GuessCount
from app.core.errors import PanelError
from app.core.i18n import ngettext
from app.web.client_address import client_network

MAX_LOCK_SECONDS = 900
MEMORY = timedelta(days=1)  # after which a count without new guesses is forgotten
KEY_DIGITS = 5  # hexadecimal


@dataclass(frozen=True)
class Guess:
    """What is guessed: the kind, whose secret it is (a name, an id or an address), and how many tries are free."""

    kind: Literal["login", "password", "token", "code"]
    subject: str
    free: int = 5

    @property
    def key(self) -> str:
        """The key of its row."""
        return f"{self.kind}:{hashlib.sha256(self.subject.encode()).hexdigest()[:KEY_DIGITS]}"


def from_address(request: Request, kind: Literal["token", "code"]) -> Guess:
    """A guess that is counted by the address it comes from. Behind a proxy many people may share one: more are free."""
    return Guess(kind, client_network(request), free=20)


def count(session: Session, guess: Guess) -> None:
    """Count a guess as wrong. Call it before a password is checked, so that parallel guesses count too.

    Raises PanelError (429) while guesses must wait; those are not counted.
    """
    _forget_old(session)
    row = _locked_row(session, guess)
    now = db.now()
    if row.locked_until is not None and row.locked_until > now:
        raise _too_many(guess, round((row.locked_until - now).total_seconds()) or 1)
    row.failures += 1
    row.last_at = now
    if row.failures >= guess.free:
        row.locked_until = now + _lock_time(row.failures - guess.free)


@contextmanager
def count_wrong_code(guess: Guess) -> Iterator[Session]:
    """A transaction that checks a one-time code or token: a wrong one, which raises PanelError, is counted."""
    try:
        with db.transaction() as session:
            yield session
    except PanelError:
        with db.transaction() as session:  # of its own: that of the wrong guess was rolled back
            count(session, guess)
        raise


def forget(session: Session, guess: Guess) -> None:
    """Start counting anew: the right one was given."""
    session.execute(delete(GuessCount).where(GuessCount.key == guess.key))


def _forget_old(session: Session) -> None:
    old = select(GuessCount.key).where(GuessCount.last_at < db.now() - MEMORY).with_for_update(skip_locked=True)
    session.execute(delete(GuessCount).where(GuessCount.key.in_(old)))


def _locked_row(session: Session, guess: Guess) -> GuessCount:
    new = insert(GuessCount).values(key=guess.key)
    row = new.on_conflict_do_update(index_elements=["key"], set_={"key": guess.key}).returning(GuessCount)
    return session.scalars(row, execution_options={"populate_existing": True}).one()


def _lock_time(failures: int) -> timedelta:
    return timedelta(seconds=min(MAX_LOCK_SECONDS, 2 ** min(failures + 2, 10)))


def _too_many(guess: Guess, seconds: int) -> PanelError:
    headers = {"Retry-After": str(seconds)}
    if guess.kind in ("login", "password"):
        message = ngettext(
            "Too many wrong passwords. Try again in {n} second.",
            "Too many wrong passwords. Try again in {n} seconds.",
            seconds,
        )
        return PanelError(429, "login_locked", message, headers=headers)
    message = ngettext(
        "Too many wrong codes or tokens from your address. Try again in {n} second.",
        "Too many wrong codes or tokens from your address. Try again in {n} seconds.",
        seconds,
    )
    return PanelError(429, "guesses_limited", message, headers=headers)
