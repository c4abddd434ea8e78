"""The models under /v1: what each is called, which of our models a name means, and their routes.

An imported model is called by its name, or by its ID if a newer one has that name or the name is one of ours. What a
job trained is `ft:BASE:ORGANIZATION:JOB NAME:JOB ID`, a checkpoint that with `:ckpt-step-N`. Only the ID and the step
decide which checkpoint is meant.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from sqlalchemy import ColumnElement, Row, Select, select
from sqlalchemy.orm import Session

from app.base_models import service as base_models
from app.checkpoints import service as checkpoints
from app.core import db
from app.core.deployment_models import Deployment
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.models import Checkpoint, ImportedModel, Job
from app.core.principal import Principal, visible_to
from app.openai import objects
from app.playground.deployments import calls
from app.web.auth import Reader, Submitter
from app.web.json_body import StrictRoute
from trainer.spec import TrainSpec

router = APIRouter(route_class=StrictRoute)

MAX_SUFFIX_LENGTH = 64
_TUNED = re.compile(r"ft:.+:([0-9a-z]{16})(?::ckpt-step-(\d{1,9}))?", re.DOTALL)
_OF_JOB = re.compile(r"ftjob-([0-9a-z]{16})(?::(\d{1,9}))?")  # as Together's from_checkpoint: JOB, or JOB:STEP
_Columns = tuple[str, int, str, datetime, str, TrainSpec, str]
_PLAIN = re.compile(r"(?!ft:)\S(.*\S)?", re.DOTALL)


@dataclass(frozen=True)
class Model:
    """A model by its name under /v1. `source_id` is the ID of the checkpoint, imported model or deployment."""

    id: str
    source_id: str
    created_at: datetime
    is_deployment: bool = False

    @property
    def answer(self) -> dict[str, Any]:
        """The model as clients read it."""
        created = int(self.created_at.timestamp())
        return {"id": self.id, "object": "model", "created": created, "owned_by": objects.ORGANIZATION}


# ---- names ----------------------------------------------------------------------------------------------------------


class ModelNames:
    """What the models of jobs are called, for one answer: what was looked up is kept."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._origins: dict[str, str | TrainSpec] = {}  # by ID: an imported model's name, or the spec of a checkpoint

    def tuned(self, job_id: str, name: str, spec: TrainSpec) -> str:
        """The name of the model that a job trains."""
        suffix = re.sub(r"[^\w.-]+", "-", name).strip("-")[:MAX_SUFFIX_LENGTH]
        return f"ft:{self.base(spec)}:{objects.ORGANIZATION}:{suffix}:{job_id}"

    def base(self, spec: TrainSpec) -> str:
        """The name of the imported model that a spec starts from, perhaps through checkpoints; else of its recipe."""
        self.look_up([spec])
        while spec.base_model is not None:
            origin = self._origins[spec.base_model]
            if isinstance(origin, str):
                return origin
            spec = origin
        return spec.recipe

    def look_up(self, specs: Iterable[TrainSpec]) -> None:
        """Look up what specs start from, however many, in two queries for each checkpoint of the longest chain."""
        while ids := {spec.base_model for spec in specs if spec.base_model is not None} - self._origins.keys():
            imported = select(ImportedModel.id, ImportedModel.name).where(ImportedModel.id.in_(ids))
            of_checkpoints = select(Checkpoint.id, Job.spec).join(Job, Job.id == Checkpoint.job_id)
            trained = self._session.execute(of_checkpoints.where(Checkpoint.id.in_(ids)))
            next_specs: dict[str, TrainSpec] = {row.id: row.spec for row in trained}
            names = {row.id: row.name for row in self._session.execute(imported)}
            self._origins |= {**{base_id: base_id for base_id in ids}, **next_specs, **names}
            specs = next_specs.values()


def checkpoint_name(tuned: str, step: int) -> str:
    """The name of a checkpoint of the model with this name."""
    return f"{tuned}:ckpt-step-{step}"


# ---- which model a name means ---------------------------------------------------------------------------------------


def unknown(name: str) -> PanelError:
    """The error for a model that does not exist, or is another user's."""
    message = _("The model {name} does not exist, or it is not yours.", name=name[:200])
    return bad_field("model", "model_not_found", message, 404)


def resolve(session: Session, *, principal: Principal, name: str) -> Model:
    """The model that the user means, by its name under /v1 or by the ID of the checkpoint or imported model.

    Raises PanelError (404).
    """
    imported = _imported_models(session, principal)
    model = (
        _trained(session, principal, name)
        or next((one for one in imported if name in (one.id, one.source_id)), None)
        or _deployed(calls.find(session, principal=principal, name=name))  # last: others choose these names
    )
    if model is None:
        raise unknown(name)
    return model


def _deployed(row: Deployment | None) -> Model | None:
    return None if row is None else Model(row.name, row.id, row.created_at, is_deployment=True)


def _trained(session: Session, principal: Principal, name: str) -> Model | None:
    """The newest checkpoint of a job, its newest one of a step, or the one with this ID."""
    match = _TUNED.fullmatch(name) or _OF_JOB.fullmatch(name)
    if match is None and not name.isalnum():
        return None
    rows = _checkpoints(principal, Checkpoint.id == name if match is None else Checkpoint.job_id == match[1])
    is_final = match is not None and match[2] is None
    if match is not None and not is_final:
        rows = rows.where(Checkpoint.step == int(match[2]))
    newest = session.execute(rows.order_by(Checkpoint.step.desc(), Checkpoint.id.desc()).limit(1)).first()
    return None if newest is None else _of_checkpoint(ModelNames(session), newest, is_final)


def _imported_models(session: Session, principal: Principal) -> Iterator[Model]:
    """The imported models of the user, newest first."""
    query = select(ImportedModel.id, ImportedModel.name, ImportedModel.created_at)
    own = query.where(visible_to(ImportedModel.owner_id, principal), ImportedModel.state == "ready")
    names = set[str]()
    for row in session.execute(own.order_by(ImportedModel.id.desc())):
        is_free = row.name not in names and _PLAIN.fullmatch(row.name)
        names.add(row.name)
        yield Model(row.name if is_free else row.id, row.id, row.created_at)


def _checkpoints(principal: Principal, *conditions: ColumnElement[bool]) -> Select[*_Columns]:
    """The usable checkpoints of the user with their jobs."""
    columns = (Checkpoint.id, Checkpoint.step, Checkpoint.job_id, Checkpoint.created_at)
    rows = select(*columns, Job.name, Job.spec, Job.state).join(Job, Job.id == Checkpoint.job_id)
    return rows.where(visible_to(Checkpoint.owner_id, principal), Checkpoint.state == "ready", *conditions)


def _of_checkpoint(names: ModelNames, row: Row[*_Columns], is_final: bool = False) -> Model:
    tuned = names.tuned(row.job_id, row.name, row.spec)
    return Model(tuned if is_final else checkpoint_name(tuned, row.step), row.id, row.created_at)


def list_models(session: Session, *, principal: Principal) -> list[Model]:
    """What the user may generate with or fine-tune, newest first: what is deployed, what jobs trained, checkpoints,
    imported models. Deployments can only be called.
    """
    names, listed = ModelNames(session), dict[str, Model]()
    rows = session.execute(_checkpoints(principal).order_by(Checkpoint.id.desc())).all()
    names.look_up(row.spec for row in rows)
    for deployment in session.scalars(select(Deployment).where(calls.callable_by(principal))):
        listed[deployment.name] = Model(deployment.name, deployment.id, deployment.created_at, is_deployment=True)
    for row in rows:
        finals = [_of_checkpoint(names, row, is_final=True)] if row.state == "succeeded" else []
        for model in (*finals, _of_checkpoint(names, row)):
            listed.setdefault(model.id, model)
    return [*listed.values(), *_imported_models(session, principal)]


# ---- routes ---------------------------------------------------------------------------------------------------------


@router.get("/models")
def list_all(principal: Reader) -> dict[str, Any]:
    """List the models that one may generate with or fine-tune."""
    with db.transaction() as session:
        data = [model.answer for model in list_models(session, principal=principal)]
    return {"object": "list", "data": data}


@router.get("/models/{name:path}")
def retrieve(principal: Reader, name: str) -> dict[str, Any]:
    """Get a model."""
    with db.transaction() as session:
        return resolve(session, principal=principal, name=name).answer


@router.delete("/models/{name:path}")
def delete(principal: Submitter, name: str) -> dict[str, Any]:
    """Delete an imported model, a checkpoint, or all checkpoints of what a job trained."""
    with db.transaction() as session:
        model = resolve(session, principal=principal, name=name)
        if model.is_deployment:
            message = _("{name} is a deployment. Remove it on its page or by /api/v1/deployments.", name=model.id)
            raise bad_field("model", "deployment_not_a_model", message, 409)
        if base_models.find(session, principal=principal, model_id=model.source_id) is not None:
            base_models.delete(session, principal=principal, model_id=model.source_id)
        else:
            for checkpoint_id in _meant(session, principal, model):
                checkpoints.delete(session, principal=principal, checkpoint_id=checkpoint_id)
    return {"id": model.id, "object": "model", "deleted": True}


def _meant(session: Session, principal: Principal, model: Model) -> list[str]:
    """The checkpoints that are deleted with a model: one, or all of its job."""
    match = _TUNED.fullmatch(model.id)
    if match is None or match[2] is not None:
        return [model.source_id]
    rows = _checkpoints(principal, Checkpoint.job_id == match[1]).order_by(Checkpoint.id.desc())
    return list(session.scalars(rows))
