"""Lists, the same everywhere: newest first, {"data": [...], "next": cursor or null}, ?limit=&after=."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import Select
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
