"""The database: one engine per process, one transaction per operation."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import Session

from app.core.settings import settings

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_CONNECTIONS = 20
LOCK_SECONDS = 1
STATEMENT_SECONDS = 30
# SQLSTATEs of what lost against others: deadlock, lock_timeout, statement_timeout, serialization failure.
BUSY_STATES = {"40P01", "55P03", "57014", "40001"}

_skew = timedelta()  # of the database's clock against this machine's, as of the last connection


@cache
def engine() -> Engine:
    """The pool of connections, opened at first use. Waits at most 5 s for a free one."""
    pool = create_engine(
        normalized(settings().database_url),
        pool_size=5,
        max_overflow=MAX_CONNECTIONS - 5,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "application_name": "athanor", **_against_silence()},
    )
    event.listen(pool, "connect", _compare_clocks)
    return pool


def limit_waits() -> None:
    """Let statements of this process fail instead of waiting long, as the web process needs: BUSY_STATES.

    A request that waits keeps a thread and a connection from the others.
    """
    engine().dispose()  # connections without these limits
    event.listen(engine(), "connect", _limit_waits)


def _limit_waits(connection: Any, _record: object) -> None:
    connection.execute(
        f"SET lock_timeout = {1000 * LOCK_SECONDS:.0f}; SET statement_timeout = {1000 * STATEMENT_SECONDS:.0f}"
    )
    connection.commit()


def _compare_clocks(connection: Any, _record: object) -> None:
    """Measure the difference between this machine's clock and the database's."""
    global _skew
    now: datetime = connection.execute("SELECT clock_timestamp()").fetchone()[0]
    connection.rollback()
    _skew = now - datetime.now(UTC)


def now() -> datetime:
    """The time of the database's clock, which all stored times use, without a query. This machine's may differ."""
    return datetime.now(UTC) + _skew


def _against_silence() -> dict[str, object]:
    """Options that end a connection on both sides when the other side is silent, as after a network failure.

    Without them a supervisor disconnected within a transaction would keep its job locked, so that it could not be
    placed on another node, and would itself wait for a response forever.
    """
    lease = settings().lease_seconds
    return {
        "options": f"-c idle_in_transaction_session_timeout={int(lease * 1000)}",
        "keepalives_idle": max(1, int(lease / 3)),
        "keepalives_interval": max(1, int(lease / 6)),
        "keepalives_count": 3,
        "tcp_user_timeout": int(lease * 1000),
    }


def normalized(url: str) -> str:
    """The database URL with psycopg 3 as its driver, whatever driver the user's URL names."""
    assert url, "DATABASE_URL is not set: start through `athanor up`, or set it"
    scheme, rest = url.split("://", 1)
    return f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else url


def libpq_url() -> str:
    """The database URL without a driver, for psycopg itself."""
    scheme, rest = normalized(settings().database_url).split("://", 1)
    return f"{scheme.partition('+')[0]}://{rest}"


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits at the end of the block and rolls back on an exception.

    Answer a request only after the block: what was promised must be committed.
    """
    with Session(engine(), expire_on_commit=False) as session, session.begin():
        yield session


def plan_each_time(session: Session) -> None:
    """Have PostgreSQL plan each statement of the transaction for its values. One plan for any values would have to
    serve words that every row has and words that none has, short runs and long ones.
    """
    if session.info.get("planned_each_time") is not session.get_transaction():
        session.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        session.info["planned_each_time"] = session.get_transaction()


def store_result(store: Callable[[Session], T], refuse: Callable[[Session, str], T]) -> T:
    """Store what a child process reported; if it cannot be stored, have `refuse` store the reason it is given.

    Raises only errors that a retry may solve, so that no message about a result is repeated forever.
    """
    try:
        with transaction() as session:
            return store(session)
    except (StatementError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, DBAPIError) and is_outage(error):
            raise
        log.exception("a result cannot be stored")
        reason = type(getattr(error, "orig", None) or error).__name__
    with transaction() as session:
        return refuse(session, reason)


def is_outage(error: DBAPIError) -> bool:
    """Whether a retry may help: the connection failed, or the server is stopping or starting.

    Such an error has no SQLSTATE, or one of the classes 08 (connection), 40 (conflict), 53 (resources) and
    57 (operator intervention).
    """
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or state is None or state[:2] in ("08", "40", "53", "57")
