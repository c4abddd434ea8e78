"""The SQL statements that this process sends, so that tests can count and explain them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from app.core import db

CREDENTIALS = ("api_token", "login_session")  # the tables


@contextmanager
def record() -> Iterator[list[tuple[str, Any]]]:
    """Lists the statements that are sent inside the block with their parameters, without those about API tokens and
    login sessions: now and then their time of use is stored, and those of open requests are looked up again.
    """
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_more: object) -> None:
        if not any(table in statement for table in CREDENTIALS):
            statements.append((statement, parameters))

    event.listen(db.engine(), "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(db.engine(), "before_cursor_execute", note)
