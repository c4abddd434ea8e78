"""HTML routes of checkpoints: the list, and one with what it was made from."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import auth, db, storage
from app.auth import Principal, Reader
from app.checkpoints import service
from app.models import Checkpoint, Job, Tokenizer
from app.paging import After
from app.web import page

router = APIRouter()
PAGE_ROWS = 50


@router.get("/checkpoints")
def show_checkpoints(
    request: Request,
    principal: Reader,
    job: Annotated[str | None, Query(max_length=64)] = None,
    after: After = None,
) -> Response:
    """The list, of all jobs or of one."""
    with db.transaction() as session:
        rows, following = service.list_checkpoints(
            session, principal=principal, job_id=job, limit=PAGE_ROWS, after=after
        )
        names = _job_names(session, {row.job_id for row in rows})
    query = (f"job={job}&" if job else "") + f"after={following}"
    return page(
        request,
        "checkpoints/index.html",
        principal=principal,
        checkpoints=rows,
        names=names,
        job_name=names.get(job) if job else None,
        job_id=job,
        next=query if following else None,
    )


def _job_names(session: Session, ids: set[str]) -> dict[str, str]:
    rows = session.execute(select(Job.id, Job.name).where(Job.id.in_(ids)))
    return {row.id: row.name for row in rows}


@router.get("/checkpoints/{checkpoint_id}")
def show_checkpoint(request: Request, principal: Reader, checkpoint_id: str) -> Response:
    """One checkpoint: losses, files and hashes, how to use it."""
    with db.transaction() as session:
        checkpoint = service.get(session, principal=principal, checkpoint_id=checkpoint_id)
        job = session.get_one(Job, checkpoint.job_id)
        tokenizer = _tokenizer(session, principal, checkpoint)
        archive = service.archive_name(session, checkpoint=checkpoint)
    return page(
        request,
        "checkpoints/show.html",
        principal=principal,
        checkpoint=checkpoint,
        job=job,
        tokenizer=tokenizer,
        directory=re.sub(r"\.zip$", "", archive),
        archive=archive,
        is_gone=not storage.checkpoint(checkpoint.path).is_dir(),
    )


def _tokenizer(session: Session, principal: Principal, checkpoint: Checkpoint) -> Tokenizer | None:
    same = Tokenizer.sha256 == checkpoint.manifest.get("tokenizer_sha256")
    return session.scalar(select(Tokenizer).where(same, auth.visible_to(Tokenizer.owner_id, principal)))
