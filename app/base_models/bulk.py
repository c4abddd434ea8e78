"""Base models that are deleted together: what depends on each."""

from sqlalchemy.orm import Session

from app.base_models import service
from app.core import storage
from app.core.i18n import _
from app.core.models import ImportedModel
from app.core.principal import Principal
from app.web.bulk import BulkRows, listed


def _uses(session: Session, principal: Principal, model: ImportedModel) -> list[str]:
    """The jobs that start from a model."""
    names = [name for _id, name in service.jobs_of(session, principal=principal, model_id=model.id)]
    return [_("Jobs: {names}", names=listed(names))] if names else []


ROWS = BulkRows(
    table=ImportedModel,
    box="model",
    directory=lambda model: storage.base_model(model.id),
    delete=lambda session, principal, model_id: service.delete(session, principal=principal, model_id=model_id),
    uses=_uses,
)
