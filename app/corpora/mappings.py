"""Mappings of columns that users save under a name: the only writer of their table."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import named_rows, paging
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.json_shapes import CorpusMapping
from app.core.preset_models import NamedMapping
from app.core.principal import Principal, visible
from app.corpora import record_kinds

MAX_MAPPINGS = 500  # of a user


def save(session: Session, *, principal: Principal, mapping: CorpusMapping) -> None:
    """Save a mapping under its name, in place of an earlier one. Raises PanelError if the user has too many."""
    values = {"mapping": mapping}
    if named_rows.save(session, NamedMapping, principal.user_id, mapping.name, values, MAX_MAPPINGS) is None:
        message = _(
            "You have as many saved mappings of columns as a user may have ({limit}). Delete one.", limit=MAX_MAPPINGS
        )
        raise bad_field("mapping", "mappings_many", message)


def resolve(session: Session, *, principal: Principal, name: str, columns: dict[str, str]) -> CorpusMapping:
    """The mapping of these columns, or without columns the one that the user saved under this name.

    Raises PanelError if the columns are those of no kind of records, and if there is no mapping of this name.
    """
    if columns or not name.strip():
        return record_kinds.checked_mapping(columns, name)
    own = (NamedMapping.owner_id == principal.user_id, NamedMapping.name == name.strip())
    row = session.scalar(select(NamedMapping).where(*own))
    if row is None:
        message = _("You have no saved mapping of columns with the name “{name}”.", name=name.strip()[:200])
        raise bad_field("mapping", "mapping_unknown", message)
    return row.mapping


def list_mappings(
    session: Session, *, principal: Principal, limit: int, after: str | None = None
) -> tuple[list[NamedMapping], str | None]:
    """The saved mappings of the user, newest first, and the cursor of the next page."""
    query = select(NamedMapping).where(NamedMapping.owner_id == principal.user_id)
    return paging.newest(session, query, NamedMapping.id, limit, after)


def delete(session: Session, *, principal: Principal, mapping_id: str) -> None:
    """Delete a saved mapping. Corpora that were read with it stay as they are. Raises 404."""
    session.delete(visible(session, NamedMapping, mapping_id, principal=principal, for_update=True))
