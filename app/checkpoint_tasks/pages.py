"""HTML routes of exports and evaluations: start one for a checkpoint, list them, show the result of one."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.checkpoint_tasks import failures, schemas, service
from app.checkpoint_tasks.schemas import EvaluationRequest, ExportRequest
from app.checkpoints import service as checkpoints
from app.core import db, queue
from app.core.errors import PanelError
from app.core.i18n import gettext_noop, translate
from app.core.models import Checkpoint, CheckpointTask, Job
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.web.auth import Reader, Submitter
from app.web.errors import validation_field
from app.web.pages import page
from app.web.paging import After
from trainer.corpus_kinds import EVALUATION_KINDS
from trainer.families import DECODERS, GGUF_MODEL_TYPES

router = APIRouter()
PAGE_ROWS = 50
METRICS = {
    "bits_per_byte": gettext_noop("Bits per byte"),
    "byte_perplexity": gettext_noop("Perplexity per byte"),
    "word_perplexity": gettext_noop("Perplexity per word"),
    "acc": gettext_noop("Accuracy"),
    "acc_norm": gettext_noop("Accuracy, normalized by answer length"),
    "exact_match": gettext_noop("Exact matches"),
}
FORMATS = {
    "safetensors": gettext_noop("safetensors: transformers, vLLM and others"),
    "adapter": gettext_noop("adapter: LoRA weights to use with the base model"),
    "gguf": gettext_noop("GGUF: llama.cpp, Ollama, LM Studio"),
}


@router.get("/checkpoint-tasks")
def show_tasks(
    request: Request,
    principal: Reader,
    checkpoint: Annotated[str | None, Query(max_length=64)] = None,
    after: After = None,
    part: Annotated[str, Query()] = "",
) -> Response:
    """What was done, and of one checkpoint what can be. `part=list` answers the list alone, for its live update."""
    return _index(request, principal, checkpoint, after, part)


def _index(
    request: Request,
    principal: Principal,
    checkpoint_id: str | None,
    after: str | None = None,
    part: str = "",
    error: PanelError | None = None,
) -> Response:
    with db.transaction() as session:
        rows, following = service.list_tasks(
            session, principal=principal, checkpoint_id=checkpoint_id, limit=PAGE_ROWS, after=after
        )
        checkpoints_by_id = _named(session, {row.checkpoint_id for row in rows})
        of_one = {} if checkpoint_id is None or part else _of_one(session, principal, checkpoint_id)
    return page(
        request,
        "checkpoint_tasks/_list.html" if part == "list" else "checkpoint_tasks/index.html",
        error.status if error else 200,
        principal=principal,
        tasks=[(row, schemas.progress(row), *checkpoints_by_id[row.checkpoint_id]) for row in rows],
        checkpoint_id=checkpoint_id,
        next=following,
        after=after,
        error=error.message if error else "",
        fields={problem.field: problem.message for problem in error.fields} if error else {},
        **of_one,
    )


def _named(session: Session, ids: set[str]) -> dict[str, tuple[Checkpoint, str]]:
    named = {}
    for checkpoint_id in ids:
        row = session.get_one(Checkpoint, checkpoint_id)
        named[checkpoint_id] = row, session.get_one(Job, row.job_id).name
    return named


def _of_one(session: Session, principal: Principal, checkpoint_id: str) -> dict[str, Any]:
    """What the forms of a checkpoint offer."""
    row = checkpoints.get(session, principal=principal, checkpoint_id=checkpoint_id)
    job = session.get_one(Job, row.job_id)
    writes = job.spec.model_type in DECODERS and job.spec.objective != "classification"
    formats = {
        "safetensors": True,
        "adapter": job.spec.tuning != "full",
        "gguf": writes and job.spec.model_type in GGUF_MODEL_TYPES,
    }
    corpora, _next = corpora_service.list_corpora(session, principal=principal, limit=200)
    return {
        "checkpoint": row,
        "job": job,
        "formats": [(name, translate(FORMATS[name])) for name, fits in formats.items() if fits],
        "writes": writes,
        "corpora": [corpus for corpus in corpora if corpus.state == "ready" and corpus.kind in EVALUATION_KINDS],
    }


@router.post("/checkpoint-tasks")
async def start(request: Request, principal: Submitter) -> Response:
    """Start an export or an evaluation, and go to its page."""
    form = await request.form()
    fields: dict[str, Any] = {
        name: value for name, value in form.items() if isinstance(value, str) and value.strip() and name != "kind"
    }
    checkpoint_id = str(fields.get("checkpoint", ""))
    try:
        if form.get("kind") == "evaluation":
            fields["corpora"] = [value for value in form.getlist("corpora") if isinstance(value, str)]
            fields["limit"] = fields.get("limit")
            task_id = _started(principal, EvaluationRequest.model_validate(fields), service.evaluate)
        else:
            task_id = _started(principal, ExportRequest.model_validate(fields), service.export)
    except ValidationError as error:
        wrong = [validation_field({**detail, "loc": ("body", *detail["loc"])}) for detail in error.errors()]
        refused = PanelError(422, "invalid", " ".join(problem.message for problem in wrong), wrong)
        return _index(request, principal, checkpoint_id, error=refused)
    except PanelError as refused:
        if "checkpoint" in [problem.field for problem in refused.fields]:
            raise
        return _index(request, principal, checkpoint_id, error=refused)
    return RedirectResponse(f"/checkpoint-tasks/{task_id}", status_code=303)


def _started(principal: Principal, task_request: Any, verb: Callable[..., CheckpointTask]) -> str:
    with db.transaction() as session:
        task_id = verb(session, principal=principal, request=task_request).id
    queue.flush_outbox()
    return task_id


@router.get("/checkpoint-tasks/{task_id}")
def show_task(request: Request, principal: Reader, task_id: str, part: Annotated[str, Query()] = "") -> Response:
    """One of them. `part=state` answers only how far it is."""
    with db.transaction() as session:
        task = service.get(session, principal=principal, task_id=task_id)
        ((checkpoint, job_name),) = _named(session, {task.checkpoint_id}).values()
        names = corpora_service.corpus_names(session, principal=principal, ids=task.options.corpora)
    return page(
        request,
        "checkpoint_tasks/_state.html" if part == "state" else "checkpoint_tasks/show.html",
        principal=principal,
        task=task,
        progress=schemas.progress(task),
        checkpoint=checkpoint,
        job_name=job_name,
        names=names,
        failure=failures.sentence(task.failure) if task.failure else "",
        metric_words={name: translate(text) for name, text in METRICS.items()},
    )


@router.post("/checkpoint-tasks/{task_id}/cancel")
def cancel(principal: Submitter, task_id: str) -> Response:
    """Cancel it, and return to its page."""
    with db.transaction() as session:
        service.cancel(session, principal=principal, task_id=task_id)
    return RedirectResponse(f"/checkpoint-tasks/{task_id}", status_code=303)


@router.post("/checkpoint-tasks/{task_id}/delete")
def delete(principal: Submitter, task_id: str) -> Response:
    """Delete it and its files, and go to what else was done with the checkpoint."""
    with db.transaction() as session:
        checkpoint_id = service.get(session, principal=principal, task_id=task_id).checkpoint_id
        service.delete(session, principal=principal, task_id=task_id)
    service.remove_files(task_id)
    return RedirectResponse(f"/checkpoint-tasks?checkpoint={checkpoint_id}", status_code=303)


@router.get("/works{rest:path}")
def redirect_old_path(request: Request, rest: str) -> Response:
    """Redirect bookmarks of earlier versions."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"/checkpoint-tasks{rest}{query}", status_code=308)
