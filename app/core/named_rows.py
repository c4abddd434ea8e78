"""Rows that a user saves under a name: each name once, and a limited number of them."""

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core.preset_models import JobPreset, NamedMapping

Named = TypeVar("Named", JobPreset, NamedMapping)


def save(
    session: Session, table: type[Named], owner_id: str, name: str, values: Mapping[str, Any], limit: int
) -> Named | None:
    """The row of a user with this name, written with these values in place of earlier ones; None, and nothing is
    written, if the user has `limit` rows with other names.
    """
    others = select(func.count()).select_from(table).where(table.owner_id == owner_id, table.name != name)
    if (session.scalar(others) or 0) >= limit:
        return None
    row = insert(table).values(owner_id=owner_id, name=name, **values)
    upsert = row.on_conflict_do_update(index_elements=["owner_id", "name"], set_={**values}).returning(table)
    return session.scalars(upsert, execution_options={"populate_existing": True}).one()
