"""Lists, the same everywhere: newest first, {"data": [...], "next": cursor or null}, ?limit=&after=."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

Item = TypeVar("Item")


class Listing(BaseModel, Generic[Item]):
    """One page of a list, and the cursor of the next one (null: there is none)."""

    data: list[Item]
    next: str | None


def newest(
    session: Session, query: Select[Any], key: InstrumentedAttribute[str], limit: int, after: str | None
) -> tuple[list[Any], str | None]:
    """The rows after the cursor, newest first (ids sort by creation time), and the next cursor."""
    if after is not None:
        query = query.where(key < after)
    rows: Sequence[Any] = session.scalars(query.order_by(key.desc()).limit(limit + 1)).all()
    return list(rows[:limit]), str(getattr(rows[limit - 1], key.key)) if len(rows) > limit else None


def listed(
    session: Session,
    query: Select[Any],
    value: ColumnElement[Any] | None,
    key: InstrumentedAttribute[str],
    limit: int,
    after: str | None,
) -> tuple[list[Any], str | None]:
    """`ordered` by a value, or `newest` without one."""
    if value is None:
        return newest(session, query, key, limit, after)
    return ordered(session, query, value, key, limit, after)


def ordered(
    session: Session,
    query: Select[Any],
    value: ColumnElement[Any],
    key: InstrumentedAttribute[str],
    limit: int,
    after: str | None,
) -> tuple[list[Any], str | None]:
    """The rows after the cursor by ascending values, rows of one value by their ids, and the next cursor.

    The cursor is the id of a row, whose value is looked up: after a deleted one there is nothing.
    """
    if after is not None:
        query = query.where(tuple_(value, key) > select(value, key).where(key == after).scalar_subquery())
    rows: Sequence[Any] = session.scalars(query.order_by(value, key).limit(limit + 1)).all()
    return list(rows[:limit]), str(getattr(rows[limit - 1], key.key)) if len(rows) > limit else None
