"""A supervisor's connection to the database: outages are retried with back-off."""

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
# A supervisor that is disconnected or suspended inside a transaction keeps its job's row locked: the server must end
# the transaction, or the job could never move to another node. Servers before version 17 have only the idle timeout
# (see app/core/db.py), which does not apply within a pipeline of statements.
BOUNDED = text(
    "SELECT set_config('transaction_timeout', :limit, true) WHERE current_setting('server_version_num')::int >= 170000"
)
T = TypeVar("T")


class DatabaseUnavailable(Exception):
    """The database is unreachable. The caller keeps its data and tries again later."""


class DatabaseLink:
    """Runs a verb in a transaction. During an outage it backs off, up to one try per lease renewal."""

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
            log.info("the database is reachable again")
            self._pause = 0.0
        return answer

    def _go_away(self, error: Exception) -> None:
        if not self._pause:
            log.warning("the database is unreachable; training continues: %s", error)
        self._pause = min(settings().renew_seconds, max(FIRST_PAUSE, 2 * self._pause))
        self._not_before = time.monotonic() + self._pause
