"""HTML routes of exports and evaluations: what can be done with a checkpoint, what was, and what came of one."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.core import db, queue
from app.core.errors import PanelError
from app.core.i18n import gettext_noop, translate
from app.core.models import Checkpoint, Job, Work
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.web.auth import Reader, Submitter
from app.web.errors import validation_field
from app.web.pages import page
from app.web.paging import After
from app.works import failures, schemas, service
from app.works.schemas import EVALUATED_KINDS, EvaluationRequest, ExportRequest
from trainer.spec import DECODERS

router = APIRouter()
PAGE_ROWS = 50
METRICS = {
    "bits_per_byte": gettext_noop("Bits per byte"),
    "byte_perplexity": gettext_noop("Perplexity per byte"),
    "word_perplexity": gettext_noop("Perplexity per word"),
    "acc": gettext_noop("Accuracy"),
    "acc_norm": gettext_noop("Accuracy, answers weighed by length"),
    "exact_match": gettext_noop("Exact matches"),
}
FORMATS = {
    "safetensors": gettext_noop("safetensors: transformers, vLLM and others"),
    "adapter": gettext_noop("adapter: to be put beside its base model"),
    "gguf": gettext_noop("GGUF: llama.cpp, Ollama, LM Studio"),
}


@router.get("/works")
def show_works(
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
        rows, following = service.list_works(
            session, principal=principal, checkpoint_id=checkpoint_id, limit=PAGE_ROWS, after=after
        )
        named = _named(session, {row.checkpoint_id for row in rows})
        of_one = {} if checkpoint_id is None or part else _of_one(session, principal, checkpoint_id)
    return page(
        request,
        "works/_list.html" if part == "list" else "works/index.html",
        error.status if error else 200,
        principal=principal,
        works=[(row, schemas.progress(row), *named[row.checkpoint_id]) for row in rows],
        checkpoint_id=checkpoint_id,
        next=following,
        after=after,
        error=error.message if error else "",
        fields={problem.field: problem.message for problem in error.fields} if error else {},
        **of_one,
    )


def _named(session: Session, ids: set[str]) -> dict[str, tuple[Checkpoint, str]]:
    found = {}
    for checkpoint_id in ids:
        row = session.get_one(Checkpoint, checkpoint_id)
        found[checkpoint_id] = row, session.get_one(Job, row.job_id).name
    return found


def _of_one(session: Session, principal: Principal, checkpoint_id: str) -> dict[str, Any]:
    """What the forms of a checkpoint offer."""
    row = checkpoints.get(session, principal=principal, checkpoint_id=checkpoint_id)
    job = session.get_one(Job, row.job_id)
    writes = job.spec.model_type in DECODERS and job.spec.objective != "classification"
    formats = {
        "safetensors": True,
        "adapter": job.spec.tuning != "full",
        "gguf": writes and job.spec.model_type in service.GGUF,
    }
    corpora, _next = corpora_service.list_corpora(session, principal=principal, limit=200)
    return {
        "checkpoint": row,
        "job": job,
        "formats": [(name, translate(FORMATS[name])) for name, fits in formats.items() if fits],
        "writes": writes,
        "corpora": [corpus for corpus in corpora if corpus.state == "ready" and corpus.kind in EVALUATED_KINDS],
    }


@router.post("/works")
async def start(request: Request, principal: Submitter) -> Response:
    """Start an export or an evaluation, and go to its page."""
    form = await request.form()
    given: dict[str, Any] = {
        name: value for name, value in form.items() if isinstance(value, str) and value.strip() and name != "kind"
    }
    checkpoint_id = str(given.get("checkpoint", ""))
    try:
        if form.get("kind") == "evaluation":
            given["corpora"] = [value for value in form.getlist("corpora") if isinstance(value, str)]
            given["limit"] = given.get("limit")
            work_id = _started(principal, EvaluationRequest.model_validate(given), service.evaluate)
        else:
            work_id = _started(principal, ExportRequest.model_validate(given), service.export)
    except ValidationError as error:
        wrong = [validation_field({**detail, "loc": ("body", *detail["loc"])}) for detail in error.errors()]
        refused = PanelError(422, "invalid", " ".join(problem.message for problem in wrong), wrong)
        return _index(request, principal, checkpoint_id, error=refused)
    except PanelError as refused:
        if "checkpoint" in [problem.field for problem in refused.fields]:
            raise
        return _index(request, principal, checkpoint_id, error=refused)
    return RedirectResponse(f"/works/{work_id}", status_code=303)


def _started(principal: Principal, asked: Any, verb: Callable[..., Work]) -> str:
    with db.transaction() as session:
        work_id = verb(session, principal=principal, asked=asked).id
    queue.flush_outbox()
    return work_id


@router.get("/works/{work_id}")
def show_work(request: Request, principal: Reader, work_id: str, part: Annotated[str, Query()] = "") -> Response:
    """One of them. `part=state` answers only how far it is."""
    with db.transaction() as session:
        work = service.get(session, principal=principal, work_id=work_id)
        ((checkpoint, job_name),) = _named(session, {work.checkpoint_id}).values()
        names = corpora_service.corpus_names(session, principal=principal, ids=work.options.corpora)
    return page(
        request,
        "works/_state.html" if part == "state" else "works/show.html",
        principal=principal,
        work=work,
        progress=schemas.progress(work),
        checkpoint=checkpoint,
        job_name=job_name,
        names=names,
        failure=failures.sentence(work.failure) if work.failure else "",
        metric_words={name: translate(text) for name, text in METRICS.items()},
    )


@router.post("/works/{work_id}/cancel")
def cancel(principal: Submitter, work_id: str) -> Response:
    """Cancel it, and return to its page."""
    with db.transaction() as session:
        service.cancel(session, principal=principal, work_id=work_id)
    return RedirectResponse(f"/works/{work_id}", status_code=303)


@router.post("/works/{work_id}/delete")
def delete(principal: Submitter, work_id: str) -> Response:
    """Delete it and its files, and go to what else was done with the checkpoint."""
    with db.transaction() as session:
        checkpoint_id = service.get(session, principal=principal, work_id=work_id).checkpoint_id
        service.delete(session, principal=principal, work_id=work_id)
    service.remove_files(work_id)
    return RedirectResponse(f"/works?checkpoint={checkpoint_id}", status_code=303)
