"""HTML routes of background tasks: all of them, the page of one, and the form of exports."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.background_tasks import failures, service
from app.background_tasks.schemas import ExportRequest
from app.checkpoints import usable_models
from app.core import db
from app.core.background_tasks import Kind
from app.core.errors import PanelError
from app.core.i18n import gettext_noop, translate
from app.core.labels import checkpoint_title
from app.core.models import BackgroundTask, Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.web.auth import Reader, Submitter
from app.web.errors import form_error
from app.web.forms import FormBody, errors_by_control
from app.web.pages import page
from app.web.paging import After
from app.web.parameters import FileName, Id, Part

router = APIRouter()
PAGE_ROWS = 50
METRICS = {
    "bits_per_byte": gettext_noop("Bits per byte"),
    "byte_perplexity": gettext_noop("Perplexity per byte"),
    "word_perplexity": gettext_noop("Perplexity per word"),
    "acc": gettext_noop("Accuracy"),
    "acc_norm": gettext_noop("Accuracy, normalized by answer length"),
    "exact_match": gettext_noop("Exact matches"),
    "right": gettext_noop("Right answers"),
}
KINDS: dict[Kind, str] = {
    "parse": gettext_noop("Corpora"),
    "statistics": gettext_noop("Statistics"),
    "clean": gettext_noop("Cleanings"),
    "import": gettext_noop("Imports"),
    "export": gettext_noop("Exports"),
    "evaluation": gettext_noop("Evaluations"),
    "tokenizer": gettext_noop("Tokenizers"),
    "generate": gettext_noop("Synthetic data"),
    "job_import": gettext_noop("Imported jobs"),
    "tokenize": gettext_noop("Tokenized corpora"),
}
FORMATS = {
    "safetensors": gettext_noop("safetensors: transformers, vLLM and others"),
    "adapter": gettext_noop("adapter: LoRA weights to use with the base model"),
    "gguf": gettext_noop("GGUF: llama.cpp, Ollama, LM Studio"),
}


@router.get("/tasks")
def show_tasks(
    request: Request,
    principal: Reader,
    subject: Annotated[str | None, Query(max_length=64)] = None,
    kind: Annotated[Kind | None, Query()] = None,
    after: After = None,
    part: Part = "",
) -> Response:
    """All background tasks, or those of one checkpoint or model with the form to export it.

    `part=list` answers the list alone, for its live update.
    """
    return _index(request, principal, subject, kind, after, part)


def _index(
    request: Request,
    principal: Principal,
    subject_id: str | None,
    kind: Kind | None = None,
    after: str | None = None,
    part: str = "",
    error: PanelError | None = None,
) -> Response:
    kinds = (kind,) if kind is not None else ()
    with db.transaction() as session:
        rows, cursor = service.list_tasks(
            session, principal=principal, subject_id=subject_id, kinds=kinds, limit=PAGE_ROWS, after=after
        )
        tasks = [(row, _link(session, row)) for row in rows]
        corpus_ids = [row.corpus_id for row in rows]
        corpora = session.scalars(select(Corpus).where(Corpus.id.in_(corpus_ids))).all()
        forms = {} if subject_id is None or part else _forms(session, principal, subject_id)
    query = {"subject": subject_id, "kind": kind}
    return page(
        request,
        "background_tasks/_list.html" if part == "list" else "background_tasks/index.html",
        error.status if error else 200,
        principal=principal,
        tasks=tasks,
        subject_id=subject_id,
        kind=kind,
        kinds={name: translate(word) for name, word in KINDS.items()},
        query=urlencode({name: value for name, value in query.items() if value is not None}),
        metric_words={name: translate(text) for name, text in METRICS.items()},
        corpora={corpus.id: corpus for corpus in corpora if corpus.state == "ready" and corpus.num_documents},
        failures={row.id: failures.sentence(row.failure) for row in rows if row.failure},
        next=cursor,
        after=after,
        error=error.message if error and not error.fields else "",
        fields=errors_by_control(error),
        **forms,
    )


def _link(session: Session, task: BackgroundTask) -> tuple[str, str]:
    """The page of what a task works on, and its name there."""
    if task.kind == "generate":
        return f"/synthetic/{task.options.generation}", session.get_one(Corpus, task.corpus_id).name
    if task.kind == "job_import":
        job = session.get(Job, task.id)
        return ("/jobs", str(task.options.filename)) if job is None else (f"/jobs/{job.id}", job.name)
    if task.corpus_id is not None:
        return f"/corpora/{task.corpus_id}", session.get_one(Corpus, task.corpus_id).name
    if task.tokenizer_id is not None:
        return f"/tokenizers/{task.tokenizer_id}", session.get_one(Tokenizer, task.tokenizer_id).name
    return _model_link(session, task.checkpoint_id, task.model_id)


def _model_link(session: Session, checkpoint_id: str | None, model_id: str | None) -> tuple[str, str]:
    if model_id is not None:
        return f"/models/{model_id}", session.get_one(ImportedModel, model_id).name
    checkpoint = session.get_one(Checkpoint, checkpoint_id)
    name = session.get_one(Job, checkpoint.job_id).name
    return f"/checkpoints/{checkpoint_id}", checkpoint_title(name, checkpoint.step, checkpoint.name)


def _forms(session: Session, principal: Principal, subject_id: str) -> dict[str, Any]:
    """What the form of exports of a checkpoint or an imported model offers."""
    try:
        subject = usable_models.subject(session, principal=principal, subject_id=subject_id)
    except PanelError as error:
        if error.code == "checkpoint_unknown":
            raise PanelError(404, "checkpoint_unknown", error.message) from error
        raise
    checkpoint_id = subject.checkpoint.id if subject.checkpoint is not None else None
    return {
        "subject": _model_link(session, checkpoint_id, subject.model.id if subject.model is not None else None),
        "formats": [(name, translate(FORMATS[name])) for name in subject.formats],
    }


def _task_id(task: BackgroundTask) -> str:
    return task.id


@router.post("/tasks")
def start(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Start an export, and go to its page."""
    fields: dict[str, Any] = {name: value for name, value in form.items() if isinstance(value, str) and value.strip()}
    checkpoint_id = str(fields.get("checkpoint", ""))
    try:
        task_id = service.start(service.export, principal, ExportRequest.model_validate(fields), _task_id)
    except ValidationError as error:
        return _index(request, principal, checkpoint_id, error=form_error(error))
    except PanelError as refused:
        if "checkpoint" in [problem.field for problem in refused.fields]:
            raise
        return _index(request, principal, checkpoint_id, error=refused)
    return RedirectResponse(f"/tasks/{task_id}", status_code=303)


@router.get("/tasks/{task_id}")
def show_task(request: Request, principal: Reader, task_id: Id, part: Part = "") -> Response:
    """One of them. `part=state` answers only how far it is."""
    with db.transaction() as session:
        task = service.get(session, principal=principal, task_id=task_id)
        subject = _link(session, task)
        names = corpora_service.corpus_names(session, principal=principal, ids=task.options.corpora)
    return page(
        request,
        "background_tasks/_state.html" if part == "state" else "background_tasks/show.html",
        principal=principal,
        task=task,
        subject=subject,
        names=names,
        failure=failures.sentence(task.failure) if task.failure else "",
        metric_words={name: translate(text) for name, text in METRICS.items()},
    )


@router.post("/tasks/{task_id}/cancel")
def cancel(principal: Submitter, task_id: Id) -> Response:
    """Cancel it, and go to its page, or to the corpus or model that is now without it."""
    with db.transaction() as session:
        task = service.cancel(session, principal=principal, task_id=task_id)
        then = f"/tasks/{task_id}" if task.kind in ("export", "evaluation", "job_import") else _link(session, task)[0]
    return RedirectResponse(then, status_code=303)


@router.post("/tasks/{task_id}/delete")
def delete(principal: Submitter, task_id: Id) -> Response:
    """Delete it and its files, and go to the others."""
    with db.transaction() as session:
        service.delete(session, principal=principal, task_id=task_id)
    service.remove_files(task_id)
    return RedirectResponse("/tasks", status_code=303)


@router.get("/checkpoint-tasks{rest:path}")
@router.get("/works{rest:path}")
def redirect_former_path(request: Request, rest: FileName) -> Response:
    """Redirect bookmarks of earlier versions."""
    query = f"?{request.url.query}".replace("checkpoint=", "subject=") if request.url.query else ""
    return RedirectResponse(f"/tasks{rest}{query}", status_code=308)
