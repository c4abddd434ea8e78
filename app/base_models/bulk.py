"""Base models that are deleted together: what depends on each."""

from sqlalchemy.orm import Session

from app.base_models import service
from app.core import storage
from app.core.i18n import _, gettext_noop
from app.core.labels import LabelChanges
from app.core.models import ImportedModel
from app.core.principal import Principal
from app.web.bulk import BulkRows, listed
from app.web.labels import LabelForm


def _uses(session: Session, principal: Principal, model: ImportedModel) -> list[str]:
    """The jobs that start from a model."""
    names = [name for _id, name in service.jobs_of(session, principal=principal, model_id=model.id)]
    return [_("Jobs: {names}", names=listed(names))] if names else []


def change_labels(session: Session, principal: Principal, row_id: str, changes: LabelChanges) -> ImportedModel:
    """Rename, tag or describe the row of an ID."""
    return service.change_labels(session, principal=principal, model_id=row_id, changes=changes)


ROWS = BulkRows(
    table=ImportedModel,
    box="model",
    directory=lambda model: storage.base_model(model.id),
    delete=lambda session, principal, model_id: service.delete(session, principal=principal, model_id=model_id),
    uses=_uses,
    change_labels=change_labels,
)
LABELS = LabelForm("/models", gettext_noop("Base model"), change_labels)
