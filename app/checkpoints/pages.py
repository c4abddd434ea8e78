"""HTML routes of checkpoints: the list, and the page of one checkpoint."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.checkpoints import retention_reasons, service
from app.checkpoints.bulk import LABELS, ROWS
from app.core import db, labels, sharing, storage
from app.core.i18n import _
from app.core.models import Checkpoint, Job, Tokenizer
from app.core.principal import Principal, visible_to
from app.web import bulk
from app.web.auth import Reader, Submitter
from app.web.bulk import BulkOutcome
from app.web.forms import FormBody
from app.web.list_view import OWNERS, ListView
from app.web.pages import page
from app.web.paging import After
from app.web.parameters import Id

router = APIRouter()
PAGE_ROWS = 50
BackTo = Annotated[Literal["job", "checkpoint"], Query(description="The page to return to.")]


@router.get("/checkpoints")
def show_checkpoints(request: Request, principal: Reader, after: After = None) -> Response:
    """The list of checkpoints, of all jobs or of one."""
    return _list(request, principal, _view(request.query_params), after)


def _view(query: Mapping[str, str]) -> ListView:
    """Which checkpoints the list shows."""
    return ListView.of(
        "/checkpoints", query, get_args(service.CheckpointOrder), job=(), tag=(), pinned=("", "true"), owner=OWNERS
    )


def _list(
    request: Request,
    principal: Principal,
    view: ListView,
    after: str | None = None,
    outcome: BulkOutcome | None = None,
) -> Response:
    with db.transaction() as session:
        rows, cursor = service.list_checkpoints(
            session,
            principal=principal,
            job_id=view["job"] or None,
            limit=PAGE_ROWS,
            after=after,
            search=view["q"],
            tag=view["tag"],
            pinned=True if view["pinned"] else None,
            owner=view["owner"] or None,
            order=view["order"],
        )
        names = _job_names(session, {row.job_id for row in rows})
        reasons = retention_reasons.reasons(session, names)
        jobs = service.jobs_with_checkpoints(session, principal=principal)
        tags = labels.list_tags(session, principal=principal, table=Checkpoint)
    return page(
        request,
        "checkpoints/index.html",
        422 if outcome and outcome.is_refused else 200,
        outcome=outcome,
        principal=principal,
        checkpoints=rows,
        names=names,
        retention_reasons=reasons,
        keep_words=_keep_words(),
        view=view,
        jobs=jobs,
        tags=view.choices("tag", tags),
        job_name=names.get(view["job"]) or dict(jobs).get(view["job"]),
        next=cursor,
        after=after,
    )


def _job_names(session: Session, ids: set[str]) -> dict[str, str]:
    rows = session.execute(select(Job.id, Job.name).where(Job.id.in_(ids)))
    return {row.id: row.name for row in rows}


@router.get("/checkpoints/{checkpoint_id}")
def show_checkpoint(request: Request, principal: Reader, checkpoint_id: Id) -> Response:
    """The page of one checkpoint: losses, files and hashes, and how to use it."""
    with db.transaction() as session:
        checkpoint = service.get(session, principal=principal, checkpoint_id=checkpoint_id)
        job = session.get_one(Job, checkpoint.job_id)
        tokenizer = _tokenizer(session, principal, checkpoint)
        reasons = retention_reasons.reasons(session, [job.id]).get(checkpoint_id, [])
        archive = service.archive_name(session, checkpoint=checkpoint)
        shared = sharing.context(session, principal, checkpoint)
        sees_job = session.scalar(select(Job.id).where(Job.id == job.id, visible_to(Job.owner_id, principal)))
    return page(
        request,
        "checkpoints/show.html",
        principal=principal,
        **shared,
        sees_job=sees_job is not None,
        checkpoint=checkpoint,
        job=job,
        tokenizer=tokenizer,
        directory=re.sub(r"\.zip$", "", archive),
        archive=archive,
        reasons=reasons,
        keep_words=_keep_words(),
        is_gone=not storage.checkpoint(checkpoint.path).is_dir(),
    )


def _tokenizer(session: Session, principal: Principal, checkpoint: Checkpoint) -> Tokenizer | None:
    same = Tokenizer.sha256 == checkpoint.manifest.tokenizer_sha256
    return session.scalar(select(Tokenizer).where(same, visible_to(Tokenizer.owner_id, principal)))


def _keep_words() -> dict[str, str]:
    """The labels of the reasons to keep a checkpoint, in the reader's language."""
    return {
        "newest": _("recent"),  # several of a job are
        "best": _("best"),
        "pinned": _("pinned"),
        "regular": _("kept regularly"),
        "origin": _("a job trains further from it"),
        "deployed": _("a deployment serves it"),
    }


@router.post("/checkpoints/bulk")
def change_many(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Pin, unpin, tag or delete the checkpoints that were chosen in the list. A deletion is confirmed first."""
    view = _view(bulk.text_fields(form))
    outcome = bulk.change_rows(request, principal, ROWS, view, form, _("Delete the chosen checkpoints?"))
    if isinstance(outcome, Response):
        return outcome
    return _list(request, principal, view, outcome=outcome)


LABELS.add_routes(router, "checkpoint_id")


@router.post("/checkpoints/{checkpoint_id}/delete")
def delete(principal: Submitter, checkpoint_id: Id) -> Response:
    """Move a checkpoint to the trash and redirect to its job."""
    with db.transaction() as session:
        job_id = service.delete(session, principal=principal, checkpoint_id=checkpoint_id).job_id
    return RedirectResponse(f"/jobs/{job_id}?trashed={checkpoint_id}", status_code=303)


@router.post("/checkpoints/{checkpoint_id}/pin")
def pin(principal: Submitter, checkpoint_id: Id, back_to: BackTo = "checkpoint") -> Response:
    """Pin a checkpoint and redirect to the page of the button."""
    return _pin(principal, checkpoint_id, back_to, pinned=True)


@router.post("/checkpoints/{checkpoint_id}/unpin")
def unpin(principal: Submitter, checkpoint_id: Id, back_to: BackTo = "checkpoint") -> Response:
    """Unpin a checkpoint and redirect to the page of the button."""
    return _pin(principal, checkpoint_id, back_to, pinned=False)


def _pin(principal: Principal, checkpoint_id: str, back_to: BackTo, *, pinned: bool) -> Response:
    with db.transaction() as session:
        row = service.pin(session, principal=principal, checkpoint_id=checkpoint_id, pinned=pinned)
        job_page = f"/jobs/{row.job_id}#checkpoint-{checkpoint_id}"
    return RedirectResponse(job_page if back_to == "job" else f"/checkpoints/{checkpoint_id}", status_code=303)
