"""Waiting until a connection of the database waits for a lock that another one has."""

from sqlalchemy import text

from app.core import db
from tests.waiting import until

WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")


def until_one_waits() -> None:
    """Look in a transaction for each try: within one, PostgreSQL shows the same activity again."""

    def is_one_waiting() -> bool:
        with db.transaction() as session:
            return session.scalar(WAITING) == 1

    until(is_one_waiting, 20, "a connection that waits for a lock")
