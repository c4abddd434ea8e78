"""What a model cannot be used for, as the reader's sentences and as errors of requests."""

from sqlalchemy.orm import Session

from app.core.errors import bad_field
from app.core.i18n import _
from app.core.models import Checkpoint, ImportedModel, Job
from trainer.limits import MESSAGES, Limit, Traits, limit
from trainer.spec import TrainSpec


def sentence(reason: Limit) -> str:
    """Why a model cannot be used for something, in the reader's language."""
    values = dict(reason.values)
    family, _space, kind = str(values.get("model_type", "")).partition(" ")
    if kind == "classifier":
        values["model_type"] = _("{model_type} classifier", model_type=family)
    return _(MESSAGES[reason.code], **values)


def require(traits: Traits, use: str, field: str) -> None:
    """Refuse, at the field that asks for it, what a model cannot be used for."""
    reason = limit(traits, use)
    if reason is not None:
        raise bad_field(field, reason.code, sentence(reason))


def own_traits(spec: TrainSpec) -> Traits:
    """The traits of the checkpoints of a job with this spec, as far as they do not depend on what it started from."""
    return Traits(model_type=spec.model_type, is_classifier=spec.objective == "classification")


def traits_of_checkpoints(session: Session, spec: TrainSpec) -> Traits:
    """The traits of the checkpoints of a job with this spec. What it started from decides what the import noted."""
    own = own_traits(spec)
    base_id = spec.base_model
    while base_id is not None:
        model = session.get(ImportedModel, base_id)
        if model is not None:
            facts = model.facts
            return own.model_copy(update={"missing_tokens": facts.missing_tokens, "gguf_limit": facts.gguf_limit})
        checkpoint = session.get(Checkpoint, base_id)
        base_id = session.get_one(Job, checkpoint.job_id).spec.base_model if checkpoint is not None else None
    return own
