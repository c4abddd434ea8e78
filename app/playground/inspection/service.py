"""Looks inside a model: which models can be looked into how, and the tasks that nodes carry out."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.base_models import service as base_models
from app.checkpoints import service as checkpoints
from app.core.i18n import _
from app.core.labels import checkpoint_title
from app.core.model_base import new_id
from app.core.models import Checkpoint, Job
from app.core.principal import Principal, visible_to
from app.playground.deployments import calls
from app.playground.inspection.schemas import EmbedRequest, InspectRequest
from app.playground.schemas import GenerationTask
from app.playground.service import MAX_OFFERED, deployed_traits, place
from trainer.limits import INSPECTIONS, Traits, limit


def begin(
    session: Session, *, principal: Principal, task_name: str, request: InspectRequest | EmbedRequest
) -> GenerationTask:
    """Check a request against the models that its sender may use. Raises PanelError."""
    task = GenerationTask(id=new_id(), path="", task=task_name, arguments=request.model_dump(exclude={"checkpoint"}))
    place(session, principal, [task], request.checkpoint, task_name)
    return task


@dataclass(frozen=True)
class OfferedModel:
    """A model as pages offer it, with the looks inside that it allows."""

    id: str
    label: str
    tasks: list[str]
    job_id: str | None = None
    turns_text: bool = False  # it is an encoder-decoder, which scores a text as the answer to another one


def list_models(
    session: Session, *, principal: Principal, wanted: str | None = None
) -> tuple[dict[str, list[OfferedModel]], str | None]:
    """The checkpoints and imported models of a user, newest first, by the name of their group; and the ID of one to
    begin with: the wanted one, which may be a deployment, else the newest. Raises 404 for another user's.
    """
    rows = session.execute(
        select(Checkpoint, Job)
        .join(Job, Job.id == Checkpoint.job_id)
        .where(visible_to(Checkpoint.owner_id, principal), Checkpoint.state == "ready")
        .order_by(Checkpoint.id.desc())
        .limit(MAX_OFFERED)
    ).all()
    groups: dict[str, list[OfferedModel]] = {}
    for checkpoint, job in rows:
        groups.setdefault(job.name, []).append(_checkpoint(checkpoint, job))
    models, _more = base_models.list_models(session, principal=principal, limit=MAX_OFFERED, state="ready")
    for model in models:
        offered = OfferedModel(model.id, model.name, _allowed(model.facts), turns_text=model.facts.turns_text)
        groups.setdefault(_("Base models"), []).append(offered)
    ids = [model.id for group in groups.values() for model in group]
    deployment = None if wanted is None or wanted in ids else calls.find(session, principal=principal, name=wanted)
    if deployment is not None:
        traits = deployed_traits(session, deployment)
        offered = OfferedModel(deployment.id, deployment.name, _allowed(traits), turns_text=traits.turns_text)
        groups.setdefault(_("Deployments"), []).append(offered)
        return groups, deployment.id
    if wanted is not None and wanted not in ids:  # too old to be in the list, or of another user
        checkpoint = checkpoints.get(session, principal=principal, checkpoint_id=wanted)
        job = session.get_one(Job, checkpoint.job_id)
        groups.setdefault(job.name, []).append(_checkpoint(checkpoint, job))
    return groups, wanted or next(iter(ids), None)


def _checkpoint(checkpoint: Checkpoint, job: Job) -> OfferedModel:
    traits = Traits(model_type=job.spec.model_type, is_classifier=job.spec.objective == "classification")
    label = checkpoint_title(job.name, checkpoint.step, checkpoint.name)
    return OfferedModel(checkpoint.id, label, _allowed(traits), job.id, traits.turns_text)


def _allowed(traits: Traits) -> list[str]:
    return [task for task in INSPECTIONS if limit(traits, task) is None]
