"""Operations on imported base models: the only writer of their table."""

import re
import shutil
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from app.base_models import names
from app.core import audit_log, background_tasks, deleted_directories, labels, sharing, storage
from app.core.deployment_models import Deployment
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.labels import LabelChanges
from app.core.models import TERMINAL, BackgroundTask, ImportedModel, Job
from app.core.names import checked_name
from app.core.principal import Principal, own, visible, visible_to
from app.core.settings import settings

MAX_NAME_LENGTH = labels.MAX_NAME_LENGTHS[ImportedModel]
UPLOAD_LIFETIME = timedelta(days=1)  # after which an unfinished upload is deleted
ModelOrder = Literal["newest", "name", "size"]
ModelSource = Literal["upload", "hub"]
ModelState = Literal["uploading", "importing", "ready", "failed"]
_ORDERS: dict[str, ColumnElement[Any]] = {"name": func.lower(ImportedModel.name), "size": -ImportedModel.num_bytes}
_REFERENCE = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w.-]+)?", re.ASCII)


# ---- for people -----------------------------------------------------------------------------------------------------


def create(session: Session, *, principal: Principal, name: str, reference: str = "") -> ImportedModel:
    """Create a model to upload, or import one from the hub: `reference` is owner/name or owner/name@revision."""
    reference = reference.strip()
    if reference:
        _check_reference(reference)
    name = checked_name(name.strip() or reference.partition("@")[0].rpartition("/")[2], max_length=MAX_NAME_LENGTH)
    model = ImportedModel(
        owner_id=principal.user_id,
        name=name,
        source="hub" if reference else "upload",
        reference=reference or None,
        state="importing" if reference else "uploading",
    )
    session.add(model)
    session.flush()
    if reference:
        _enqueue_import(session, model)
    return model


def _check_reference(reference: str) -> None:
    if settings().hf_hub_offline:
        message = _("Downloads from the hub are turned off (HF_HUB_OFFLINE is set). Upload the model's files instead.")
        raise bad_field("reference", "hub_offline", message, 409)
    if len(reference) > names.MAX_NAME_LENGTH or _REFERENCE.fullmatch(reference) is None:
        message = _("Hub models are named owner/name or owner/name@revision.")
        raise bad_field("reference", "reference_invalid", message)


def get(session: Session, *, principal: Principal, model_id: str) -> ImportedModel:
    """A model the user may see. Raises 404."""
    return visible(session, ImportedModel, model_id, principal=principal)


def find(session: Session, *, principal: Principal, model_id: str, for_update: bool = False) -> ImportedModel | None:
    """A model the user may see, or None if no such model has this ID. `for_update` holds it until the commit."""
    query = select(ImportedModel).where(ImportedModel.id == model_id, visible_to(ImportedModel.owner_id, principal))
    return session.scalar(query.with_for_update(read=True) if for_update else query)


def list_models(
    session: Session,
    *,
    principal: Principal,
    limit: int = 100,
    after: str | None = None,
    search: str = "",
    tag: str = "",
    source: str = "",
    state: str | None = None,
    owner: str | None = None,
    order: str = "newest",
) -> tuple[list[ImportedModel], str | None]:
    """The models the user may see, and the cursor of the next page. `search` is a part of name, tags, notes or
    reference.
    """
    query = select(ImportedModel)
    if search:
        query = query.where(labels.matches(ImportedModel, search))
    if tag:
        query = query.where(labels.has_tag(ImportedModel, tag))
    if source:
        query = query.where(ImportedModel.source == source)
    if state:
        query = query.where(ImportedModel.state == state)
    return sharing.listed(session, principal, query, ImportedModel, _ORDERS.get(order), limit, after, owner)


def receive(session: Session, *, principal: Principal, model_id: str) -> ImportedModel:
    """Open an uploaded model for another file. Raises PanelError if it is importing, ready or from the hub."""
    model = _locked(session, principal, model_id)
    if model.source == "hub" or model.state in ("importing", "ready"):
        message = _("This model accepts no more files. Create another one.")
        raise PanelError(409, "model_closed", message)
    model.state, model.problems = "uploading", []
    return model


def begin_import(session: Session, *, principal: Principal, model_id: str) -> ImportedModel:
    """Start the import: validate the uploaded files, or retry one that failed."""
    model = _locked(session, principal, model_id)
    if model.state == "importing":
        raise PanelError(409, "model_importing", _("This model is being imported already."))
    if model.state == "ready":
        raise PanelError(409, "model_ready", _("This model is imported already."))
    if model.source == "hub":
        _check_reference(str(model.reference))
    elif not any(storage.base_model(model_id).glob("[!.]*")):
        raise bad_field("file", "model_empty", _("No file of this model has been uploaded yet."))
    model.state = "importing"
    model.problems = []
    _enqueue_import(session, model)
    return model


def change_labels(session: Session, *, principal: Principal, model_id: str, changes: LabelChanges) -> ImportedModel:
    """Rename, tag or describe a model. Raises PanelError: 404, or 422 at the field that is wrong."""
    model = _locked(session, principal, model_id)
    labels.change(session, principal, model, changes)
    return model


def delete(session: Session, *, principal: Principal, model_id: str) -> None:
    """Move a model to the trash, and end what imports, exports or evaluates it.

    Raises PanelError if an unfinished job starts from the model, or a deployment serves it.
    """
    model = _locked(session, principal, model_id)
    _refuse_in_use(session, model)
    audit_log.record(session, "model_deleted", principal, subject=model.name, subject_id=model_id)
    if "import" in background_tasks.cancel_of(session, BackgroundTask.model_id, model_id):
        fail_import(session, model_id=model_id, problems=[{"code": "import_cancelled"}])
    model.deleted_at = func.now()


def _refuse_in_use(session: Session, model: ImportedModel) -> None:
    """Raise PanelError (409) if an unfinished job starts from a model, or a deployment serves it."""
    using = select(Job).where(Job.state.not_in(TERMINAL), Job.spec["base_model"].as_string() == model.id)
    job = session.scalar(using.order_by(Job.owner_id != model.owner_id).limit(1))
    if job is not None and job.owner_id != model.owner_id:
        raise sharing.used_by_another("model_in_use")
    if job is not None:
        message = _(
            "The job “{job}” starts from this model and has not finished. Cancel it or wait for its end.", job=job.name
        )
        raise PanelError(409, "model_in_use", message)
    deployment_name = session.scalar(select(Deployment.name).where(Deployment.model_id == model.id).limit(1))
    if deployment_name is not None:
        message = _(
            "The deployment “{name}” serves this model. Remove it, or deploy another one there.", name=deployment_name
        )
        raise PanelError(409, "model_in_use", message)


def purge(session: Session, model: ImportedModel) -> None:
    """Delete the row of a model, which is locked, for good, and cancel its tasks; the sweep removes its files. Raises
    PanelError (409) if a job or a deployment uses it.
    """
    _refuse_in_use(session, model)
    background_tasks.cancel_of(session, BackgroundTask.model_id, model.id)
    deleted_directories.note(session, storage.base_model(model.id))
    sharing.forget(session, model)
    session.delete(model)


def _locked(session: Session, principal: Principal, model_id: str) -> ImportedModel:
    return own(session, ImportedModel, model_id, principal=principal)


def remove_files(model_id: str) -> None:
    """Delete the files of a model whose row was deleted."""
    shutil.rmtree(storage.base_model(model_id), ignore_errors=True)


def require_ready_model(session: Session, *, principal: Principal, model_id: str) -> ImportedModel | None:
    """The imported model that a job starts from, or None if no imported model has this ID.

    Raises PanelError at the field `base_model` if it is not ready.
    """
    model = find(session, principal=principal, model_id=model_id, for_update=True)
    if model is not None:
        check_ready(model, "base_model")
    return model


def check_ready(model: ImportedModel, field: str) -> None:
    """Refuse, at the field that names it, a model that has not been imported."""
    if model.state != "ready":
        message = _("The model “{name}” is not ready. Its page says what is missing.", name=model.name)
        raise bad_field(field, "model_unready", message)


def jobs_of(session: Session, *, principal: Principal, model_id: str) -> list[tuple[str, str]]:
    """The user's jobs that start from a model: id and name, newest first."""
    uses_model = (
        Job.owner_id == principal.user_id,
        Job.deleted_at.is_(None),
        Job.spec["base_model"].as_string() == model_id,
    )
    return [
        (row.id, row.name)
        for row in session.execute(select(Job.id, Job.name).where(*uses_model).order_by(Job.id.desc()))
    ]


def _enqueue_import(session: Session, model: ImportedModel) -> None:
    background_tasks.enqueue(
        session,
        kind="import",
        owner_id=model.owner_id,
        model_id=model.id,
        memory_bytes=settings().import_memory_bytes,
        disk_bytes=max(1, _archive_bytes(model.id)),
    )


def _archive_bytes(model_id: str) -> int:
    """The size of an uploaded archive, which is unpacked; 0 for a download, whose size is not known yet."""
    return sum(path.stat().st_size for path in storage.base_model(model_id).glob("archive.*"))


def import_tasks(session: Session, models: Iterable[ImportedModel]) -> dict[str, BackgroundTask]:
    """The tasks that import models, by the ID of their model."""
    ids = [model.id for model in models if model.state == "importing"]
    return background_tasks.open_tasks(session, BackgroundTask.model_id, ids)


# ---- importing, as the worker reports it ----------------------------------------------------------------------------


def record_download(session: Session, *, model_id: str, reference: str) -> None:
    """Record that a model was downloaded from the hub, with the commit of its files in its reference."""
    _change_importing(session, model_id, reference=reference)


def finish_import(session: Session, *, model_id: str, result: dict[str, Any]) -> None:
    """Mark a model as ready with the result of its validation, the closing report of the child process."""
    _change_importing(session, model_id, state="ready", **result)


def fail_import(session: Session, *, model_id: str, problems: list[dict[str, Any]]) -> None:
    """Mark a model as failed, with its problems."""
    _change_importing(session, model_id, state="failed", problems=problems)


def _change_importing(session: Session, model_id: str, **values: Any) -> None:
    waiting = (ImportedModel.id == model_id, ImportedModel.state == "importing")
    session.execute(update(ImportedModel).where(*waiting).values(**values))


def forget_unfinished(session: Session) -> list[str]:
    """Delete the rows of uploads not finished within a day; returns their ids. A sweep removes their files."""
    old = (ImportedModel.state == "uploading", ImportedModel.created_at < func.now() - UPLOAD_LIFETIME)
    rows = session.scalars(select(ImportedModel).where(*old).with_for_update(skip_locked=True)).all()
    for model in rows:
        session.delete(model)
    session.flush()
    return [model.id for model in rows]


def list_known(session: Session) -> set[str]:
    """The IDs of all models, which are the names of their directories."""
    return set(session.scalars(select(ImportedModel.id)))
