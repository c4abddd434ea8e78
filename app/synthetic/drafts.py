"""The review of records that a model wrote: people accept, edit and reject them."""

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core.errors import bad_field
from app.core.i18n import _
from app.core.names import check_text
from app.core.principal import Principal, not_found
from app.core.synthetic_models import DraftRecord, PromptedDocument, RecordGeneration
from app.synthetic import service
from app.synthetic.schemas import DraftCounts, DraftState


def counts(session: Session, generation_id: str) -> DraftCounts:
    """How many records of a generation are in each state, and how many are near duplicates."""
    own = DraftRecord.generation_id == generation_id
    by_state = select(DraftRecord.state, func.count(), func.count(DraftRecord.duplicate_of)).where(own)
    rows = session.execute(by_state.group_by(DraftRecord.state)).all()
    numbers = {state: count for state, count, _duplicates in rows}
    return DraftCounts(
        **{state: numbers.get(state, 0) for state in ("draft", "accepted", "rejected")},
        duplicates=sum(duplicates for _state, _count, duplicates in rows),
    )


def list_drafts(
    session: Session,
    generation: RecordGeneration,
    *,
    state: DraftState | None = None,
    only_duplicates: bool = False,
    limit: int,
    after: str | None = None,
) -> tuple[list[DraftRecord], str | None]:
    """Records in the order in which they were written, and the cursor of the next page."""
    query = select(DraftRecord).where(DraftRecord.generation_id == generation.id)
    if state is not None:
        query = query.where(DraftRecord.state == state)
    if only_duplicates:
        query = query.where(DraftRecord.duplicate_of.is_not(None))
    if after is not None:
        query = query.where(DraftRecord.id > after)
    rows = list(session.scalars(query.order_by(DraftRecord.id).limit(limit + 1)))
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def excerpts(session: Session, generation: RecordGeneration, drafts: Sequence[DraftRecord]) -> dict[int, str]:
    """The beginnings of the documents of records, by their numbers."""
    numbers = {draft.document for draft in drafts}
    query = select(PromptedDocument.number, PromptedDocument.excerpt).where(
        PromptedDocument.generation_id == generation.id, PromptedDocument.number.in_(numbers)
    )
    return {row.number: row.excerpt for row in session.execute(query)}


def change(
    session: Session,
    *,
    principal: Principal,
    generation_id: str,
    draft_id: str,
    cells: list[str] | None,
    state: DraftState | None,
) -> DraftRecord:
    """Change the texts or the state of a record. Raises PanelError: 404, or 422 for texts that it cannot have."""
    generation = service.get(session, principal=principal, generation_id=generation_id)
    own = (DraftRecord.id == draft_id, DraftRecord.generation_id == generation.id)
    draft = session.scalar(select(DraftRecord).where(*own).with_for_update())
    if draft is None:
        raise not_found()
    if cells is not None:
        texts = [cell.replace("\r\n", "\n").strip() for cell in cells]
        for text in texts:
            check_text("cells", text)
        if len(texts) != len(draft.cells) or not all(texts):
            message = _("A record has {n} texts, and none of them is empty.", n=len(draft.cells))
            raise bad_field("cells", "cells_invalid", message)
        if texts != draft.cells:
            draft.cells, draft.is_edited = texts, True
    if state is not None:
        draft.state = state
    session.flush()
    return draft


def review(
    session: Session,
    *,
    principal: Principal,
    generation_id: str,
    state: DraftState,
    ids: Sequence[str] | None,
    duplicates: bool = False,
) -> None:
    """Give records a state: these, or all that nobody has decided about, near duplicates only if `duplicates`."""
    generation = service.get(session, principal=principal, generation_id=generation_id)
    chosen = [DraftRecord.generation_id == generation.id]
    if ids is not None:
        chosen.append(DraftRecord.id.in_(ids))
    else:
        chosen.append(DraftRecord.state == "draft")
        if not duplicates:
            chosen.append(DraftRecord.duplicate_of.is_(None))
    session.execute(update(DraftRecord).where(*chosen).values(state=state))
