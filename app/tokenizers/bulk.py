"""Tokenizers that are deleted together: what depends on each."""

from sqlalchemy.orm import Session

from app.core import storage
from app.core.i18n import _, gettext_noop
from app.core.labels import LabelChanges
from app.core.models import Tokenizer
from app.core.principal import Principal
from app.tokenizers import service
from app.web.bulk import BulkRows, listed
from app.web.labels import LabelForm


def _uses(session: Session, principal: Principal, tokenizer: Tokenizer) -> list[str]:
    """The jobs that use a tokenizer."""
    names = [name for _id, name in service.jobs_of_tokenizers(session, principal=principal).get(tokenizer.id, [])]
    return [_("Jobs: {names}", names=listed(names))] if names else []


def change_labels(session: Session, principal: Principal, row_id: str, changes: LabelChanges) -> Tokenizer:
    """Rename, tag or describe the row of an ID."""
    return service.change_labels(session, principal=principal, tokenizer_id=row_id, changes=changes)


ROWS = BulkRows(
    table=Tokenizer,
    box="tokenizers",
    directory=lambda tokenizer: storage.tokenizer(tokenizer.id),
    delete=lambda session, principal, tokenizer_id: service.delete_tokenizer(
        session, principal=principal, tokenizer_id=tokenizer_id
    ),
    uses=_uses,
    change_labels=change_labels,
)
LABELS = LabelForm("/tokenizers", gettext_noop("Tokenizer"), change_labels)
