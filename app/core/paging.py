"""Lists, the same everywhere: newest first, {"data": [...], "next": cursor or null}, ?limit=&after=."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, false, select, tuple_, union_all
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
    table: Any,
    parts: Sequence[Select[Any]],
    value: ColumnElement[Any] | None,
    limit: int,
    after: str | None,
) -> tuple[list[Any], str | None]:
    """The rows of queries that share none, after the cursor, and the next cursor: newest first, or by ascending values
    and rows of one value by their ids. Of each query no more rows are read than the page may have.

    The cursor is the id of a row, whose value is looked up: after a deleted one there is nothing.
    """
    order = (table.id.desc(),) if value is None else (value, table.id)
    pages = [part.with_only_columns(table.id).order_by(*order).limit(limit + 1) for part in parts]
    if after is not None:
        is_after = table.id < after
        if value is not None:  # found first: an index begins only at values that are known
            last = session.execute(select(*order).where(table.id == after)).first()
            is_after = false() if last is None else tuple_(*order) > tuple_(*last)
        pages = [page.where(is_after) for page in pages]
    query = select(table).where(table.id.in_(union_all(*pages) if pages else [])).order_by(*order).limit(limit + 1)
    rows: Sequence[Any] = session.scalars(query).all()
    return list(rows[:limit]), str(rows[limit - 1].id) if len(rows) > limit else None
