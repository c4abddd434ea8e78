"""The SQL statements that this process sends, so that tests can count them."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event

from app.core import db

CREDENTIALS = ("api_token", "login_session")  # the tables


@contextmanager
def record() -> Iterator[list[str]]:
    """Lists the statements that are sent inside the block, without those about API tokens and login sessions: now and
    then their time of use is stored, and those of open requests are looked up again.
    """
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_details: object) -> None:
        if not any(table in statement for table in CREDENTIALS):
            statements.append(statement)

    event.listen(db.engine(), "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(db.engine(), "before_cursor_execute", note)
