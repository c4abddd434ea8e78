"""Operations on corpora: the only writer of their tables."""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.checkpoints import usable_models
from app.core import audit_log, background_tasks, deleted_directories, labels, quotas, sharing, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import BadBytes, Cleaning, CorpusMapping, ParseReport
from app.core.labels import LabelChanges
from app.core.models import TERMINAL, BackgroundTask, Corpus, CorpusFile, Job
from app.core.principal import (
    Principal,
    in_trash,
    is_in_trash,
    own,
    visible,
    visible_to,
)
from app.core.settings import settings
from app.corpora import mappings
from app.corpora.shipped import FOLDER, SHIPPED
from trainer.formats import corpus_formats
from trainer.run_dir import CorpusInput, sha256_file

MAX_NAME_LENGTH = labels.MAX_NAME_LENGTHS[Corpus]
MAX_TOKENIZATIONS = 5  # shown of a corpus
MAX_EXPIRED = 100  # corpora that one sweep deletes
CANCELLED = {"parse": "reading_cancelled", "clean": "cleaning_cancelled"}  # the problem, by the kind of the task
CorpusOrder = Literal["newest", "name", "size"]
CorpusState = Literal["parsing", "ready", "failed"]
CorpusOwner = Literal["own", "shared", "shipped"]
_ORDERS: dict[str, ColumnElement[Any]] = {"name": func.lower(Corpus.name), "size": -Corpus.num_bytes}


# ---- corpora --------------------------------------------------------------------------------------------------------


def create_corpus(
    session: Session,
    *,
    corpus_id: str,
    owner_id: str | None,
    name: str,
    filename: str,
    num_bytes: int,
    sha256: str,
    encoding: str | None = None,
    kind: str | None = None,
    format: str | None = None,
    purpose: str | None = None,
    lifetime: int | None = None,
) -> Corpus:
    """Record a stored upload and enqueue its parsing. After `lifetime` seconds it is deleted.

    Without a `format`, that of the file name is.
    """
    corpus = Corpus(
        id=corpus_id,
        owner_id=owner_id,
        name=name,
        filename=filename,
        format=format or corpus_formats.format_of(filename) or "txt",
        encoding=encoding,
        state="parsing",
        num_bytes=num_bytes,
        sha256=sha256,
        progress=ParseReport(kind=kind) if kind else ParseReport(),
        purpose=purpose,
        expires_at=None if lifetime is None else func.now() + timedelta(seconds=lifetime),
    )
    shared = {name: getattr(corpus, name) for name in ("filename", "format", "num_bytes", "sha256", "encoding")}
    return add_corpus(session, corpus, [CorpusFile(position=0, **shared)])


def add_corpus(session: Session, corpus: Corpus, files: Sequence[CorpusFile]) -> Corpus:
    """Record a version of a corpus with its files, which are on disk, and enqueue its parsing."""
    corpus.state = "parsing"
    if corpus.lineage_id is not None:
        earlier = select(Corpus).where(Corpus.lineage_id == corpus.lineage_id).order_by(Corpus.version.desc()).limit(1)
        for version in session.scalars(earlier):
            corpus.tags, corpus.notes = version.tags, version.notes
    session.add(corpus)
    session.flush()
    session.refresh(corpus, ["expires_at"])
    for file in files:
        file.corpus_id = corpus.id
    session.add_all(files)
    session.flush()
    quotas.check_disk(session, corpus.owner_id)
    _enqueue_parse(session, corpus)
    return corpus


def corpus_input(corpus: Corpus) -> CorpusInput:
    """A parsed corpus as the trainer reads it: the directory, and the hash that the text must have."""
    path = str(storage.corpus(corpus.id))
    return CorpusInput(id=corpus.id, path=path, sha256=str(corpus.text_sha256), kind=corpus.kind)


def get_corpus(session: Session, *, principal: Principal, corpus_id: str) -> Corpus:
    """A corpus the user may see. Raises 404."""
    return visible(session, Corpus, corpus_id, principal=principal)


def list_corpora(
    session: Session,
    *,
    principal: Principal,
    limit: int = 100,
    after: str | None = None,
    search: str = "",
    tag: str = "",
    kind: str = "",
    state: str = "",
    owner: str | None = None,
    order: str = "newest",
) -> tuple[list[Corpus], str | None]:
    """The corpora the user may see, and the cursor of the next page: of each the newest version, and the newest that
    is ready.

    `search` is a part of name, tags or notes; `tag`, `kind`, `state` and `owner` (own, shared or shipped) leave out the
    others.
    """
    newer = aliased(Corpus)
    is_later = and_(newer.lineage_id == Corpus.lineage_id, newer.version > Corpus.version, newer.deleted_at.is_(None))
    is_newest = ~exists().where(is_later)
    is_newest_ready = and_(Corpus.state == "ready", ~exists().where(is_later, newer.state == "ready"))
    query = select(Corpus).where(or_(is_newest, is_newest_ready))
    if search:
        query = query.where(labels.matches(Corpus, search))
    if tag:
        query = query.where(labels.has_tag(Corpus, tag))
    if kind:
        query = query.where(Corpus.kind == kind, Corpus.state == "ready")  # before it is ready, the kind is not known
    if state:
        query = query.where(Corpus.state == state)
    return sharing.listed(session, principal, query, Corpus, _ORDERS.get(order), limit, after, owner)


def require_ready_corpora(
    session: Session, *, principal: Principal, ids: Sequence[str], field: str = "corpora"
) -> list[Corpus]:
    """The corpora of a job, in the given order. Raises PanelError at the field for one that cannot be used."""
    visible = visible_to(Corpus.owner_id, principal)
    # Held until the commit, so that none is deleted under the job that is being submitted.
    rows = session.scalars(select(Corpus).where(Corpus.id.in_(ids), visible).with_for_update(read=True))
    corpora = {c.id: c for c in rows}
    for corpus_id in ids:
        corpus = corpora.get(corpus_id)
        if corpus is None:
            if is_in_trash(session, Corpus, corpus_id, principal=principal):
                raise bad_field(field, "in_trash", in_trash().message)
            message = _("There is no corpus {id}, or it is not yours.", id=corpus_id)
            raise bad_field(field, "corpus_unknown", message)
        if corpus.state == "parsing":
            message = _("The corpus “{name}” is still being read. Try again when it is ready.", name=corpus.name)
            raise bad_field(field, "corpus_parsing", message)
        if corpus.state == "failed":
            message = _("The corpus “{name}” could not be read. Its page says why.", name=corpus.name)
            raise bad_field(field, "corpus_failed", message)
    if len(set(ids)) != len(ids):
        raise bad_field(field, "corpus_twice", _("A corpus is named twice. Name each once."))
    return [corpora[corpus_id] for corpus_id in ids]


def tokenizations(session: Session, *, principal: Principal, corpus: Corpus) -> list[BackgroundTask]:
    """The user's newest tasks that tokenize a corpus, alone or with others."""
    query = select(BackgroundTask).where(
        BackgroundTask.kind == "tokenize",
        BackgroundTask.owner_id == principal.user_id,
        BackgroundTask.options["corpora"].contains([corpus.id]),
    )
    return list(session.scalars(query.order_by(BackgroundTask.id.desc()).limit(MAX_TOKENIZATIONS)))


def existing(session: Session, ids: Sequence[str]) -> list[Corpus]:
    """Those of the corpora that have not been deleted, in the given order."""
    query = select(Corpus).where(Corpus.id.in_(ids), Corpus.deleted_at.is_(None))
    rows = {corpus.id: corpus for corpus in session.scalars(query)}
    return [rows[corpus_id] for corpus_id in ids if corpus_id in rows]


def is_unchanged(session: Session, corpora: Sequence[Corpus]) -> bool:
    """Whether the corpora are ready and have the text that they had when these rows were loaded."""
    now = [(corpus.id, corpus.text_sha256, corpus.state) for corpus in existing(session, [c.id for c in corpora])]
    return now == [(corpus.id, corpus.text_sha256, "ready") for corpus in corpora]


def parse_again(
    session: Session,
    *,
    principal: Principal,
    corpus_id: str,
    encoding: str | None,
    skip_bad: bool,
    kind: str | None = None,
    bad_bytes: BadBytes | None = None,
    filenames: Sequence[str] = (),
    names_field: str = "filenames",
    mapping: CorpusMapping | None = None,
    group_column: str | None = None,
) -> Corpus:
    """Parse an upload again: in another encoding, without its bad lines or bytes, as records of another kind, with a
    mapping of its columns, which sets the kind, or with the column of their groups. With `filenames`, only these files
    are read in another encoding; the caller calls that field `names_field`.
    """
    corpus = own_corpus(session, principal, corpus_id)
    if corpus.state == "parsing":
        raise PanelError(409, "corpus_parsing", _("This corpus is being read already."))
    if corpus.cleaning is not None and (
        encoding or skip_bad or kind or bad_bytes or filenames or mapping or group_column is not None
    ):
        message = _("A recipe made this version from another one. Read that one differently, and clean it again.")
        raise PanelError(409, "corpus_cleaned", message)
    _refuse_in_use(session, corpus)
    background_tasks.refuse_while_tokenized(session, corpus_id=corpus_id)
    files = {file.filename: file for file in list_files(session, corpus_id)}
    unknown = next((filename for filename in filenames if filename not in files), None)
    if unknown is not None:
        raise bad_field(names_field, "file_unknown", _("This corpus has no file “{name}”.", name=unknown[:200]))
    if group_column is not None and group_column not in [column.name for column in corpus.progress.columns]:
        message = _("This corpus has no column “{name}”.", name=group_column[:200])
        raise bad_field("group_column", "column_unknown", message)
    if mapping is not None and mapping.name:
        mappings.save(session, principal=principal, mapping=mapping)
    before, by_file = corpus.progress, dict[str, BadBytes | None]()
    if filenames and corpus.num_uploads != 1:  # what was chosen for the other files stays
        by_file = {**before.bad_bytes_by_file, **dict.fromkeys(filenames, bad_bytes)}
        bad_bytes = before.bad_bytes
    if encoding is not None or corpus.num_uploads == 1:  # else each file keeps its own
        for filename in filenames or files:
            files[filename].encoding = encoding
    corpus.state = "parsing"
    corpus.encoding = corpus.encoding if filenames else encoding
    corpus.problems = []
    kind = mapping.kind if mapping else kind
    corpus.progress = ParseReport(
        kind=kind,
        skip_bad=skip_bad,
        bad_bytes=bad_bytes,
        bad_bytes_by_file=by_file,
        mapping=mapping,
        group_column=group_column,
    )
    _enqueue_parse(session, corpus)
    return corpus


def change_labels(session: Session, *, principal: Principal, corpus_id: str, changes: LabelChanges) -> Corpus:
    """Rename, tag or describe a corpus, all versions that are left.

    Raises PanelError: 404, 403 for a shipped one, 422 at the field that is wrong.
    """
    corpus = own_corpus(session, principal, corpus_id)
    if changes.model_dump(exclude_none=True):
        labels.change(session, principal, corpus, changes)
        same = {"name": corpus.name, "tags": corpus.tags, "notes": corpus.notes}
        session.execute(update(Corpus).where(Corpus.lineage_id == corpus.lineage_id).values(same))
    return corpus


def delete_corpus(session: Session, *, principal: Principal, corpus_id: str) -> None:
    """Move a corpus to the trash, and end what parses or tokenizes it or evaluates on it. Raises PanelError if a job
    uses it.
    """
    corpus = own_corpus(session, principal, corpus_id)
    _refuse_in_use(session, corpus)
    audit_log.record(session, "corpus_deleted", principal, subject=corpus.name, subject_id=corpus.id)
    background_tasks.cancel_uses(session, corpus_id=corpus.id)
    for kind in background_tasks.cancel_of(session, BackgroundTask.corpus_id, corpus.id):
        if kind in CANCELLED:
            fail_parse(session, corpus_id=corpus.id, problems=[{"code": CANCELLED[kind]}])
    corpus.deleted_at = func.now()


def purge(session: Session, corpus: Corpus) -> None:
    """Delete the row of a corpus, which is locked, for good, with its tasks, and cancel what else reads it; the sweep
    removes its files. Raises PanelError (409) if a job uses it.
    """
    _refuse_in_use(session, corpus)
    background_tasks.cancel_uses(session, corpus_id=corpus.id)
    deleted_directories.note(session, storage.corpus(corpus.id))
    sharing.forget(session, corpus)
    session.delete(corpus)


def delete_expired(session: Session) -> None:
    """Delete the corpora whose lifetime is over and that nothing unfinished uses; the sweep removes their files."""
    expired = select(Corpus).where(Corpus.expires_at < func.now()).order_by(Corpus.id).limit(MAX_EXPIRED)
    for corpus in session.scalars(expired.with_for_update(skip_locked=True)):
        with suppress(PanelError):  # it is in use
            purge(session, corpus)


def remove_files(corpus_id: str) -> None:
    """Delete the files of a corpus without a row."""
    shutil.rmtree(storage.corpus(corpus_id), ignore_errors=True)


def install_samples(session: Session) -> None:
    """Install the sample corpora. Idempotent; files that are missing are copied again."""
    for shipped in SHIPPED:
        source = FOLDER / shipped.filename
        upload = storage.corpus(shipped.corpus_id) / "upload"
        if not upload.exists():
            upload.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, upload)
        if session.get(Corpus, shipped.corpus_id) is None:
            create_corpus(
                session,
                corpus_id=shipped.corpus_id,
                owner_id=None,
                name=shipped.name,
                filename=shipped.filename,
                num_bytes=source.stat().st_size,
                sha256=sha256_file(source),
            )


def own_corpus(session: Session, principal: Principal, corpus_id: str) -> Corpus:
    """A corpus of the user, locked. Raises PanelError: 404, or 403 for one that ships with Athanor."""
    corpus = own(session, Corpus, corpus_id, principal=principal)
    if corpus.owner_id is None:
        raise PanelError(403, "corpus_shipped", _("This corpus ships with Athanor and cannot be changed."))
    return corpus


def _job_using(session: Session, corpus: Corpus) -> Job | None:
    """An unfinished job that uses a corpus, of its owner if there is one."""
    uses_corpus = or_(*(Job.spec[field].contains([corpus.id]) for field in ("corpora", "validation_corpora")))
    using = select(Job).where(Job.state.not_in(TERMINAL), uses_corpus)
    return session.scalar(using.order_by(Job.owner_id != corpus.owner_id).limit(1))


def _refuse_in_use(session: Session, corpus: Corpus) -> None:
    job = _job_using(session, corpus)
    if job is not None and job.owner_id != corpus.owner_id:
        raise sharing.used_by_another("corpus_in_use")
    if job is not None:
        message = _(
            "The job “{job}” uses this corpus and has not finished. Cancel it or wait for its end.", job=job.name
        )
        raise PanelError(409, "corpus_in_use", message)


def _enqueue_parse(session: Session, corpus: Corpus) -> None:
    """Enqueue what makes the text of a corpus: parsing its files, or cleaning another version."""
    background_tasks.enqueue(
        session,
        kind="parse" if corpus.cleaning is None else "clean",
        owner_id=corpus.owner_id,
        corpus_id=corpus.id,
        memory_bytes=settings().parse_memory_bytes + _scoring_bytes(corpus.cleaning),
        disk_bytes=corpus.num_bytes,
    )


def _scoring_bytes(cleaning: Cleaning | None) -> int:
    """The memory that the models which score documents need."""
    models = cleaning.models.values() if cleaning is not None else ()
    return usable_models.memory_bytes(sum(model.num_bytes for model in models)) if models else 0


def parse_tasks(session: Session, corpora: Iterable[Corpus]) -> dict[str, BackgroundTask]:
    """The tasks that parse or clean corpora, by the ID of their corpus."""
    ids = [corpus.id for corpus in corpora if corpus.state == "parsing"]
    return background_tasks.open_tasks(session, BackgroundTask.corpus_id, ids, ["parse", "clean"])


# ---- how parsing ended ----------------------------------------------------------------------------------------------


def finish_parse(session: Session, *, corpus_id: str, result: dict[str, Any]) -> None:
    """Mark a corpus as ready with the counts of the parser, its closing report."""
    shared = {name: result[name] for name in ("encoding", "num_documents", "num_text_bytes")}
    files = result.pop("files", None) or [{"position": 0, **shared}]
    steps = result.pop("steps", None)
    if steps is not None:
        cleaning = session.get_one(Corpus, corpus_id).cleaning
        result["cleaning"] = Cleaning(**{**dict(cleaning or {}), "steps": steps})
    _close_parse(session, corpus_id, files, state="ready", **result)


def fail_parse(
    session: Session,
    *,
    corpus_id: str,
    problems: list[dict[str, Any]],
    files: Sequence[dict[str, Any]] = (),
    **progress: Any,
) -> None:
    """Mark a corpus as failed, with its problems: each has a code, a position and the values of its sentence."""
    _close_parse(session, corpus_id, files, state="failed", problems=problems, progress=progress)


def _close_parse(session: Session, corpus_id: str, files: Sequence[dict[str, Any]], **values: Any) -> None:
    waiting = (Corpus.id == corpus_id, Corpus.state == "parsing")
    parsed = update(Corpus).where(*waiting).values(parsed_at=func.now(), **values).returning(Corpus.id)
    if session.scalar(parsed) is not None and files:
        rows = [{"corpus_id": corpus_id, **file} for file in files]
        session.execute(update(CorpusFile), rows)


def list_files(session: Session, corpus_id: str) -> list[CorpusFile]:
    """The files of a corpus, in their order."""
    query = select(CorpusFile).where(CorpusFile.corpus_id == corpus_id).order_by(CorpusFile.position)
    return list(session.scalars(query))


def corpus_names(session: Session, *, principal: Principal, ids: Iterable[str]) -> dict[str, str]:
    """The names of corpora by ID, without those that were deleted or are not visible to the user."""
    visible = visible_to(Corpus.owner_id, principal)
    names = session.execute(select(Corpus.id, Corpus.name).where(Corpus.id.in_(ids), visible))
    return {row.id: row.name for row in names}


def list_known(session: Session) -> set[str]:
    """The IDs of all corpora, which are the names of their directories."""
    return set(session.scalars(select(Corpus.id)))
