"""The SQL statements that this process sends, so that tests can count them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from app.core import db


@contextmanager
def record() -> Iterator[list[str]]:
    """Lists the statements that are sent inside the block, without those about API tokens, whose time of use is stored
    now and then."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_details: Any) -> None:
        if "api_token" not in statement:
            statements.append(statement)

    event.listen(db.engine(), "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(db.engine(), "before_cursor_execute", note)
