"""Tokenizers that are deleted together: what depends on each."""

from sqlalchemy.orm import Session

from app.core import storage
from app.core.i18n import _
from app.core.models import Tokenizer
from app.core.principal import Principal
from app.tokenizers import service
from app.web.bulk import BulkRows, listed


def _uses(session: Session, principal: Principal, tokenizer: Tokenizer) -> list[str]:
    """The jobs that use a tokenizer."""
    names = [name for _id, name in service.jobs_of_tokenizers(session, principal=principal).get(tokenizer.id, [])]
    return [_("Jobs: {names}", names=listed(names))] if names else []


ROWS = BulkRows(
    table=Tokenizer,
    box="tokenizers",
    directory=lambda tokenizer: storage.tokenizer(tokenizer.id),
    delete=lambda session, principal, tokenizer_id: service.delete_tokenizer(
        session, principal=principal, tokenizer_id=tokenizer_id
    ),
    uses=_uses,
)
