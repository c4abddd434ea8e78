"""A supervisor's way to the database: an outage is waited out, a lost fence ends everything."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, TimeoutError
from sqlalchemy.orm import Session

from app.core import db
from app.core.settings import settings

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
# A supervisor that is cut off or asleep in the middle of a transaction keeps its job's row locked: the server must end
# that itself, or nobody could ever give the job to another node. Servers before 17 have only the idle timeout (see
# app/core/db.py), which does not count behind a pipeline of statements.
BOUNDED = text(
    "SELECT set_config('transaction_timeout', :limit, true) WHERE current_setting('server_version_num')::int >= 170000"
)
T = TypeVar("T")


class DatabaseUnavailable(Exception):
    """The database cannot be reached now. What was to be written is kept and tried again."""


class DatabaseLink:
    """Runs a verb in a transaction. While the database is away it tries ever less often, at least once a renewal."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._not_before = 0.0

    def call(self, verb: Callable[[Session], T]) -> T:
        """What the verb returns. Raises DatabaseUnavailable, and what the verb raises: LeaseLost above all."""
        if time.monotonic() < self._not_before:
            raise DatabaseUnavailable
        try:
            with db.transaction() as session:
                session.execute(BOUNDED, {"limit": f"{settings().lease_seconds * 1000:.0f}"})
                answer = verb(session)
        except (DBAPIError, TimeoutError) as error:
            if isinstance(error, DBAPIError) and not db.is_outage(error):
                raise
            self._go_away(error)
            raise DatabaseUnavailable from error
        if self._pause:
            log.info("the database is back")
            self._pause = 0.0
        return answer

    def _go_away(self, error: Exception) -> None:
        if not self._pause:
            log.warning("the database cannot be reached; training goes on: %s", error)
        self._pause = min(settings().renew_seconds, max(FIRST_PAUSE, 2 * self._pause))
        self._not_before = time.monotonic() + self._pause
