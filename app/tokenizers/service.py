"""Operations on tokenizers: the only writer of their table."""

import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core import audit_log, background_tasks, deleted_directories, labels, sharing, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import TokenizerFacts
from app.core.labels import LabelChanges
from app.core.model_base import new_id
from app.core.models import TERMINAL, BackgroundTask, Job, Tokenizer
from app.core.names import check_text, checked_name
from app.core.principal import Principal, own, visible
from app.core.settings import settings
from app.corpora import service as corpora_service
from app.tokenizers.schemas import TrainRequest
from trainer.families import RESERVED_TOKENS

MAX_NAME_LENGTH = corpora_service.MAX_NAME_LENGTH
BASE_BYTES = 1 << 30  # of memory that a training takes besides its text
MEMORY_FACTOR = 4  # bytes of memory per byte of text, at most: the distinct words and their pairs


# ---- training and importing -----------------------------------------------------------------------------------------


def train(session: Session, *, principal: Principal, request: TrainRequest) -> Tokenizer:
    """Create a tokenizer and queue its training. Raises at the field that does not fit."""
    corpora = corpora_service.require_ready_corpora(session, principal=principal, ids=request.corpora)
    name = request.name.strip() or " + ".join(corpus.name for corpus in corpora)[:MAX_NAME_LENGTH]
    for token in request.special_tokens:
        check_text("special_tokens", token)
        if token in RESERVED_TOKENS:
            message = _(
                "Athanor gives {token} a meaning of its own. Leave it out: the kind of model decides whether it is "
                "there.",
                token=token,
            )
            raise bad_field("special_tokens", "token_reserved", message)
    if len(set(request.special_tokens)) < len(request.special_tokens):
        raise bad_field("special_tokens", "token_twice", _("A special token is named twice. Name each once."))
    facts = request.model_dump(include={"vocab_size", "special_tokens", "model_kind", "sample_bytes"})
    tokenizer = Tokenizer(
        owner_id=principal.user_id,
        name=checked_name(name, max_length=MAX_NAME_LENGTH),
        source="training",
        state="preparing",
        corpora=[corpus.id for corpus in corpora],
        facts=TokenizerFacts(**facts),
    )
    num_bytes = min(request.sample_bytes, sum(corpus.num_text_bytes or 0 for corpus in corpora))
    return _queue(session, tokenizer, BASE_BYTES + MEMORY_FACTOR * num_bytes)


def create_import(
    session: Session, *, principal: Principal, tokenizer_id: str, name: str, filename: str, end: str
) -> Tokenizer:
    """Record an uploaded tokenizer, whose file is in place, and queue its import."""
    tokenizer = Tokenizer(
        id=tokenizer_id,
        owner_id=principal.user_id,
        name=checked_name(name, max_length=MAX_NAME_LENGTH),
        source="import",
        state="preparing",
        corpora=[],
        facts=TokenizerFacts(filename=filename, end=end or None),
    )
    return _queue(session, tokenizer, settings().import_memory_bytes)


def _queue(session: Session, tokenizer: Tokenizer, memory_bytes: int) -> Tokenizer:
    session.add(tokenizer)
    session.flush()
    background_tasks.enqueue(
        session,
        kind="tokenizer",
        owner_id=tokenizer.owner_id,
        tokenizer_id=tokenizer.id,
        memory_bytes=memory_bytes,
    )
    session.refresh(tokenizer)
    return tokenizer


def tasks_of(session: Session, tokenizers: Iterable[Tokenizer]) -> dict[str, BackgroundTask]:
    """The tasks that train or import tokenizers, by the ID of their tokenizer."""
    ids = [tokenizer.id for tokenizer in tokenizers if tokenizer.state == "preparing"]
    return background_tasks.open_tasks(session, BackgroundTask.tokenizer_id, ids)


def finish(session: Session, *, tokenizer_id: str, result: dict[str, Any]) -> None:
    """Mark a tokenizer as ready with the closing report of its process."""
    tokenizer = session.get_one(Tokenizer, tokenizer_id)
    facts = TokenizerFacts.model_validate({**tokenizer.facts.model_dump(), **result["facts"]})
    _change_preparing(
        session, tokenizer_id, "ready", facts=facts, vocab_size=result["vocab_size"], sha256=result["sha256"]
    )


def fail(session: Session, *, tokenizer_id: str, problems: list[dict[str, Any]]) -> None:
    """Mark a tokenizer as failed, with its problems."""
    _change_preparing(session, tokenizer_id, "failed", problems=problems)


def _change_preparing(session: Session, tokenizer_id: str, state: str, **values: Any) -> None:
    preparing = (Tokenizer.id == tokenizer_id, Tokenizer.state == "preparing")
    session.execute(update(Tokenizer).where(*preparing).values(state=state, **values))


def remove_files(tokenizer_id: str) -> None:
    """Delete the files of a tokenizer whose row was deleted."""
    shutil.rmtree(storage.tokenizer(tokenizer_id), ignore_errors=True)


# ---- of jobs --------------------------------------------------------------------------------------------------------


def record_tokenizer(
    session: Session,
    *,
    owner_id: str,
    name: str,
    vocab_size: int,
    sha256: str,
    corpora: Sequence[str],
    tokenizer_id: str | None = None,
) -> Tokenizer:
    """Record a tokenizer that a job trained. Idempotent: the same vocabulary of the same owner has one row, which
    leaves the trash. A new row has the ID `tokenizer_id`, if that is given.
    """
    values = {"owner_id": owner_id, "name": name, "vocab_size": vocab_size, "sha256": sha256, "corpora": list(corpora)}
    new = insert(Tokenizer).values(id=tokenizer_id or new_id(), **values)
    same_vocabulary = new.on_conflict_do_update(
        index_elements=["owner_id", "sha256"], index_where=text("source = 'job'"), set_={"deleted_at": None}
    )
    session.execute(same_vocabulary)
    same = select(Tokenizer).where(
        Tokenizer.owner_id == owner_id, Tokenizer.sha256 == sha256, Tokenizer.source == "job"
    )
    return session.execute(same).scalar_one()


def jobs_of_tokenizers(session: Session, *, principal: Principal) -> dict[str, list[tuple[str, str]]]:
    """The user's jobs by the ID of their tokenizer: ID and name of each job, newest first."""
    used = select(Job.tokenizer_id, Job.id, Job.name).where(Job.owner_id == principal.user_id, Job.deleted_at.is_(None))
    jobs: dict[str, list[tuple[str, str]]] = {}
    for tokenizer_id, job_id, name in session.execute(used.order_by(Job.id.desc())):
        if tokenizer_id is not None:
            jobs.setdefault(tokenizer_id, []).append((job_id, name))
    return jobs


# ---- all tokenizers -------------------------------------------------------------------------------------------------


def get_tokenizer(session: Session, *, principal: Principal, tokenizer_id: str) -> Tokenizer:
    """A tokenizer the user may see. Raises 404."""
    return visible(session, Tokenizer, tokenizer_id, principal=principal)


def change_labels(session: Session, *, principal: Principal, tokenizer_id: str, changes: LabelChanges) -> Tokenizer:
    """Rename, tag or describe a tokenizer. Raises PanelError: 404, or 422 at the field that is wrong."""
    tokenizer = own(session, Tokenizer, tokenizer_id, principal=principal)
    labels.change(session, principal, tokenizer, changes)
    return tokenizer


def delete_tokenizer(session: Session, *, principal: Principal, tokenizer_id: str) -> None:
    """Move a tokenizer to the trash, and end its training or import.

    Raises PanelError: 404, or 409 while a job uses it.
    """
    tokenizer = own(session, Tokenizer, tokenizer_id, principal=principal)
    _refuse_in_use(session, tokenizer)
    audit_log.record(session, "tokenizer_deleted", principal, subject=tokenizer.name, subject_id=tokenizer_id)
    if background_tasks.cancel_of(session, BackgroundTask.tokenizer_id, tokenizer_id):
        fail(session, tokenizer_id=tokenizer_id, problems=[{"code": "tokenizer_cancelled"}])
    tokenizer.deleted_at = func.now()


def _refuse_in_use(session: Session, tokenizer: Tokenizer) -> None:
    """Raise PanelError (409) if an unfinished job uses a tokenizer."""
    uses_tokenizer = or_(Job.tokenizer_id == tokenizer.id, Job.spec["tokenizer"].as_string() == tokenizer.id)
    using = select(Job).where(Job.state.not_in(TERMINAL), uses_tokenizer)
    job = session.scalar(using.order_by(Job.owner_id != tokenizer.owner_id).limit(1))
    if job is not None and job.owner_id != tokenizer.owner_id:
        raise sharing.used_by_another("tokenizer_in_use")
    if job is not None:
        message = _(
            "The job “{job}” uses this tokenizer and has not finished. Cancel it or wait for its end.", job=job.name
        )
        raise PanelError(409, "tokenizer_in_use", message)


def purge(session: Session, tokenizer: Tokenizer) -> None:
    """Delete a tokenizer, whose row is locked, for good, with its tasks; the sweep removes its files. Raises PanelError
    (409) if a job uses it.
    """
    _refuse_in_use(session, tokenizer)
    deleted_directories.note(session, storage.tokenizer(tokenizer.id))
    sharing.forget(session, tokenizer)
    session.delete(tokenizer)
