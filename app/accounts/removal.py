"""Removing a user: everything of theirs is deleted, or becomes that of the one who removes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sqlalchemy import ColumnElement, Table, delete, func, select, update
from sqlalchemy.orm import Session

from app.accounts import service
from app.core import audit_log, deleted_directories, storage
from app.core.account_models import User
from app.core.conversation_models import Conversation
from app.core.deployment_models import Deployment
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.installation_models import IdempotencyKey
from app.core.model_base import Base
from app.core.models import TERMINAL, BackgroundTask, Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.openai_models import Submission
from app.core.principal import Principal

Choice = Literal["delete", "transfer"]

# The directory of a row, of the tables whose rows have one.
DIRECTORIES = {
    "corpus": storage.corpus,
    "tokenizer": storage.tokenizer,
    "base_model": storage.base_model,
    "job": storage.run,
    "background_task": storage.background_task,
    "upload": storage.upload,
}


def owned_tables() -> list[Table]:
    """Every table whose rows have an owner; only when all features are imported are these all."""
    return [table for table in Base.metadata.sorted_tables if "owner_id" in table.c]


@dataclass(frozen=True)
class Belongings:
    """How many rows of each kind a user has. `num_unfinished` counts jobs and background tasks."""

    num_jobs: int
    num_checkpoints: int
    num_corpora: int
    num_tokenizers: int
    num_models: int
    num_conversations: int
    num_deployments: int
    num_unfinished: int


def belongings(session: Session, user_id: str) -> Belongings:
    """What a user has."""
    open_jobs = _count(session, Job.owner_id == user_id, Job.state.not_in(TERMINAL))
    open_tasks = _count(session, BackgroundTask.owner_id == user_id, BackgroundTask.state.in_(("queued", "running")))
    waiting = _count(session, Submission.owner_id == user_id, Submission.state == "waiting")
    return Belongings(
        num_jobs=_count(session, Job.owner_id == user_id),
        num_checkpoints=_count(session, Checkpoint.owner_id == user_id),
        num_corpora=_count(session, Corpus.owner_id == user_id),
        num_tokenizers=_count(session, Tokenizer.owner_id == user_id),
        num_models=_count(session, ImportedModel.owner_id == user_id),
        num_conversations=_count(session, Conversation.owner_id == user_id),
        num_deployments=_count(session, Deployment.owner_id == user_id),
        num_unfinished=open_jobs + open_tasks + waiting,
    )


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).where(*conditions)) or 0


def remove(session: Session, *, principal: Principal, user_id: str, choice: str | None) -> None:
    """Remove a user. The scheduler removes the files.

    Raises PanelError for a role that is too high for the principal, for the last owner, for the principal's own
    account, without a choice, and for "delete" while jobs or background tasks have not finished. Those are transferred
    as they are and go on.
    """
    # The lock makes whoever adds a row of this user wait, and then fail.
    user = service.managed_user(session, principal=principal, user_id=user_id)
    service.require_another_owner(session, user)
    if user.id == principal.user_id:
        raise PanelError(409, "own_account", _("You cannot remove your own account. Another owner can."))
    if choice not in get_args(Choice):
        message = _("Choose what happens to the data of {name}: delete or transfer.", name=user.name)
        raise bad_field("data", "choice_missing", message)
    if choice == "delete":
        _require_finished(session, user)
        discarded = _owned_directories(session, user_id)
    else:
        discarded = _transfer(session, user_id, principal.user_id)
    audit_log.record(session, "user_removed", principal, subject=user.name, subject_id=user.id, detail=str(choice))
    session.delete(user)
    deleted_directories.note(session, *discarded)


def _require_finished(session: Session, user: User) -> None:
    num_unfinished = belongings(session, user.id).num_unfinished
    if num_unfinished:
        message = _(
            "{name} has unfinished jobs or tasks: {n}. Wait for their end, or transfer everything to yourself.",
            name=user.name,
            n=num_unfinished,
        )
        raise PanelError(409, "user_busy", message)


def _owned_directories(session: Session, user_id: str) -> list[Path]:
    with_id = [table for table in owned_tables() if "id" in table.c]
    ids = [(table.name, select(table.c.id).where(table.c.owner_id == user_id)) for table in with_id]
    return [DIRECTORIES[name](row_id) for name, own in ids if name in DIRECTORIES for row_id in session.scalars(own)]


def _transfer(session: Session, user_id: str, to_id: str) -> list[Path]:
    """Give all rows of a user to another one; returns the directories of what the other one has already."""
    copies = _merge_tokenizers(session, user_id, to_id)
    # The keys of two users may be the same, and nobody will repeat a request of a removed one.
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.owner_id == user_id))
    session.execute(update(Submission).where(Submission.owner_id == user_id).values(idempotency_key=None))
    for job in session.scalars(select(Job).where(Job.owner_id == user_id).order_by(Job.id).with_for_update()):
        job.owner_id, job.idempotency_key = to_id, None
    session.flush()
    for table in owned_tables():
        session.execute(update(table).where(table.c.owner_id == user_id).values(owner_id=to_id))
    return [storage.tokenizer(tokenizer_id) for tokenizer_id in copies]


def _merge_tokenizers(session: Session, user_id: str, to_id: str) -> list[str]:
    """Delete the tokenizers of jobs that another user has, too; jobs refer to that user's. A user has each
    only once.
    """
    of_jobs = select(Tokenizer).where(Tokenizer.source == "job")
    own = of_jobs.where(Tokenizer.owner_id == user_id)
    kept = {row.sha256: row.id for row in session.scalars(of_jobs.where(Tokenizer.owner_id == to_id))}
    copies = [row for row in session.scalars(own) if row.sha256 in kept]
    for copy in copies:
        same_id = kept[copy.sha256]
        session.get_one(Tokenizer, same_id).deleted_at = None
        for job in session.scalars(select(Job).where(Job.owner_id == user_id, Job.tokenizer_id == copy.id)):
            job.tokenizer_id = same_id
            if job.spec.tokenizer == copy.id:
                job.spec = job.spec.model_copy(update={"tokenizer": same_id})
        session.delete(copy)
    session.flush()
    return [copy.id for copy in copies]
