"""Checkpoints and imported base models as one: the model with an ID, and those that a form offers."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from app.base_models import limits
from app.base_models import service as base_models
from app.checkpoints import service as checkpoints
from app.core import storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import StoredFile
from app.core.labels import checkpoint_title
from app.core.models import Checkpoint, ImportedModel, Job
from app.core.principal import Principal, in_trash, is_in_trash
from trainer.limits import Traits, limit
from trainer.spec import TrainSpec

Model = Checkpoint | ImportedModel

TORCH_BYTES = 2 * 2**30  # of memory that a process with a model needs besides the weights
MAX_OFFERED = 40  # checkpoints, the best of each job, and as many imported models


def memory_bytes(num_weight_bytes: int) -> int:
    """What a process needs for weights of this size: a second copy while they are converted or compared, and torch."""
    return 3 * num_weight_bytes + TORCH_BYTES


@dataclass(frozen=True)
class Subject:
    """What is exported or evaluated: a checkpoint with its job's spec, or an imported base model."""

    checkpoint: Checkpoint | None
    model: ImportedModel | None
    spec: TrainSpec | None  # of the checkpoint's job
    traits: Traits

    @property
    def formats(self) -> list[str]:
        """The formats that it can be exported in."""
        fits = {
            "safetensors": True,
            "adapter": self.spec is not None and self.spec.tuning != "full",
            "gguf": limit(self.traits, "gguf") is None,
        }
        return [name for name, is_fit in fits.items() if is_fit]

    @property
    def files(self) -> list[StoredFile]:
        """The files of the model, without the optimizer state."""
        if self.checkpoint is None:
            return self.model.files if self.model is not None else []
        return [file for file in self.checkpoint.manifest.files if not file.name.startswith(checkpoints.RESUME)]

    @property
    def num_bytes(self) -> int:
        """The size of the files."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> str:
        """The hash of the names and hashes of the files."""
        listed = sorted((file.name, file.sha256) for file in self.files)
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    @property
    def row(self) -> Model:
        """The row of the checkpoint or the model."""
        row = self.checkpoint or self.model
        assert row is not None, "it is one of both"
        return row


def subject(
    session: Session, *, principal: Principal, subject_id: str, for_update: bool = False, field: str = "checkpoint"
) -> Subject:
    """A checkpoint whose files exist, or an imported model that is ready. Raises at `field`."""
    model = base_models.find(session, principal=principal, model_id=subject_id, for_update=for_update)
    if model is not None:
        base_models.check_ready(model, field)
        return Subject(None, model, None, model.facts)
    try:
        checkpoint = checkpoints.get(session, principal=principal, checkpoint_id=subject_id, for_update=for_update)
    except PanelError as error:
        why = in_trash() if is_in_trash(session, ImportedModel, subject_id, principal=principal) else error
        code = why.code if why.code == "in_trash" else "checkpoint_unknown"
        raise bad_field(field, code, why.message) from error
    if checkpoint.state != "ready":
        raise bad_field(field, "checkpoint_corrupt", _("The files of this checkpoint are damaged."))
    spec = session.get_one(Job, checkpoint.job_id).spec
    return Subject(checkpoint, None, spec, limits.traits_of_checkpoints(session, spec))


def directory(session: Session, model_id: str) -> Path | None:
    """The directory of a checkpoint or an imported model whose files still exist, also in the trash; else None."""
    checkpoint = session.get(Checkpoint, model_id)
    if checkpoint is not None:
        return storage.checkpoint(checkpoint.path) if checkpoint.state == "ready" else None
    return storage.base_model(model_id) if session.get(ImportedModel, model_id) else None


@dataclass(frozen=True)
class NamedModel:
    """A checkpoint or an imported model. `corpora` are those that its job was trained on."""

    id: str
    name: str
    path: str  # of its page
    corpora: tuple[str, ...] = ()


def offered_models(session: Session, *, principal: Principal, wanted: Sequence[str] = ()) -> list[NamedModel]:
    """The models that continue texts: those wanted, the best checkpoint of each job, and imported models."""
    rows: dict[str, Model] = {}
    for model_id in wanted:
        try:
            rows[model_id] = subject(session, principal=principal, subject_id=model_id).row
        except PanelError:
            continue
    best = checkpoints.best_of_newest_jobs(session, principal=principal, limit=MAX_OFFERED)
    imported, _next = base_models.list_models(session, principal=principal, limit=MAX_OFFERED, state="ready")
    offered: list[Model] = [*best, *imported]
    rows |= {row.id: row for row in offered}
    jobs = _jobs(session, rows.values())
    return [_named(row, jobs) for row in rows.values() if _continues_texts(row, jobs)]


def named_model(session: Session, row: Model) -> NamedModel:
    """A model as lists name it."""
    return named_models(session, [row])[0]


def named_models(session: Session, rows: Collection[Model]) -> list[NamedModel]:
    """Models as lists name them, in their order, with one query for the jobs of all checkpoints."""
    jobs = _jobs(session, rows)
    return [_named(row, jobs) for row in rows]


def _jobs(session: Session, rows: Iterable[Model]) -> dict[str, Row[str, str, TrainSpec]]:
    """Name and spec of the jobs of checkpoints, by the ID of the job."""
    ids = {row.job_id for row in rows if isinstance(row, Checkpoint)}
    if not ids:
        return {}
    return {job.id: job for job in session.execute(select(Job.id, Job.name, Job.spec).where(Job.id.in_(ids)))}


def _continues_texts(row: Model, jobs: Mapping[str, Row[str, str, TrainSpec]]) -> bool:
    traits = row.facts if isinstance(row, ImportedModel) else limits.own_traits(jobs[row.job_id].spec)
    return limit(traits, "evaluate") is None


def _named(row: Model, jobs: Mapping[str, Row[str, str, TrainSpec]]) -> NamedModel:
    if isinstance(row, ImportedModel):
        return NamedModel(row.id, row.name, f"/models/{row.id}")
    job = jobs[row.job_id]
    name = checkpoint_title(job.name, row.step, row.name)
    return NamedModel(row.id, name, f"/checkpoints/{row.id}", tuple(job.spec.corpora))
