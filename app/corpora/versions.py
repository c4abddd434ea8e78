"""Corpora of several files, in versions that never change: adding, replacing or removing files makes another one.

Each version has its own directory. Files that it shares with another version are hard links, so they take their place
on the disk once, and a version can be deleted without a look at the others.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import db, disk, queue, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import ParseReport
from app.core.model_base import new_id
from app.core.models import Corpus, CorpusFile
from app.core.openai_models import Upload
from app.core.principal import Principal, name_owners, visible_to
from app.corpora import open_uploads, resumable_uploads, service, uploads
from trainer.formats import corpus_formats
from trainer.run_dir import sync_directory

MAX_FILES = 10_000
CONTENT = ("filename", "format", "num_bytes", "sha256", "encoding")  # of a file, in whatever version it is


@dataclass(frozen=True)
class NewFile:
    """A file of a version that is being made, and where its bytes are."""

    source: Path
    row: CorpusFile


@dataclass(frozen=True)
class Changes:
    """What differs between two versions: the names of files, and how many are the same."""

    added: list[str]
    replaced: list[str]
    removed: list[str]
    num_same: int


def create(principal: Principal, upload_ids: Sequence[str], name: str, encoding: str, kind: str) -> Corpus:
    """Make a corpus of uploads all of whose bytes have arrived, in this order. Raises PanelError."""

    def describe(session: Session, arrived: Sequence[Upload]) -> tuple[Corpus, list[NewFile]]:
        label = uploads.label(arrived[0].filename, name, encoding, kind)
        files = [_uploaded(upload, label.encoding) for upload in arrived]
        progress = ParseReport(kind=label.kind) if label.kind else ParseReport()
        return Corpus(name=label.name, encoding=label.encoding, progress=progress), files

    return _make(principal, upload_ids, describe)


def change(principal: Principal, corpus_id: str, upload_ids: Sequence[str], removed: Sequence[str]) -> Corpus:
    """Make a new version of a corpus. An upload with the name of a file replaces it; the others come last.

    Raises PanelError, also if nothing would differ.
    """

    def describe(session: Session, arrived: Sequence[Upload]) -> tuple[Corpus, list[NewFile]]:
        base = service.own_corpus(session, principal, corpus_id)
        rows = service.list_files(session, corpus_id)
        files = {row.filename: NewFile(storage.corpus_file(corpus_id, row.position), _copy_of(row)) for row in rows}
        unknown = next((filename for filename in removed if filename not in files), None)
        if unknown is not None:
            message = _("This corpus has no file “{name}”.", name=unknown[:200])
            raise bad_field("remove", "file_unknown", message)
        for filename in removed:
            files.pop(filename, None)
        for upload in arrived:
            files[upload.filename] = _uploaded(upload, None)
        if _digests(file.row for file in files.values()) == _digests(rows):
            raise bad_field("uploads", "version_same", _("The new version would have the same files."))
        newest = select(func.max(Corpus.version)).where(Corpus.lineage_id == base.lineage_id)
        version = (session.scalar(newest) or 0) + 1
        progress = parse_options(base)
        corpus = Corpus(lineage_id=base.lineage_id, version=version, name=base.name, progress=progress)
        return corpus, list(files.values())

    return _make(principal, upload_ids, describe)


def parse_options(base: Corpus) -> ParseReport:
    """How another version parses the files that it has of this one."""
    report = base.progress
    return ParseReport(
        kind=report.kind,
        mapping=report.mapping,
        group_column=report.group_column if base.cleaning is None else None,  # a file that a recipe made has none
        skip_bad=report.skip_bad,
        bad_bytes=report.bad_bytes,
        bad_bytes_by_file=report.bad_bytes_by_file,
    )


def _uploaded(upload: Upload, encoding: str | None) -> NewFile:
    row = CorpusFile(
        filename=upload.filename,
        format=corpus_formats.format_of(upload.filename) or "txt",
        num_bytes=upload.num_bytes,
        sha256=str(upload.sha256),
        encoding=encoding,
    )
    return NewFile(resumable_uploads.data(upload.id), row)


def _copy_of(row: CorpusFile) -> CorpusFile:
    return CorpusFile(**{name: getattr(row, name) for name in CONTENT})


def _digests(rows: Any) -> list[tuple[str, str]]:
    return [(row.filename, row.sha256) for row in rows]


def content_sha256(files: Sequence[CorpusFile]) -> str:
    """The hash of a version: that of its file, or of the lines `SHA-256, two spaces, name` of several (sha256sum's)."""
    if len(files) == 1:
        return files[0].sha256
    return hashlib.sha256("".join(f"{file.sha256}  {file.filename}\n" for file in files).encode()).hexdigest()


def _make(
    principal: Principal,
    upload_ids: Sequence[str],
    describe: Callable[[Session, Sequence[Upload]], tuple[Corpus, list[NewFile]]],
) -> Corpus:
    """Link the files into the directory of a new version, and record it with them.

    They are linked, not moved: if this process ends before the commit, uploads and other versions are as they were.
    """
    corpus_id = new_id()
    try:
        with db.transaction() as session:
            arrived = resumable_uploads.received(session, principal, upload_ids)
            corpus, files = describe(session, arrived)
            _check(files)
            link(corpus_id, [file.source for file in files])
            rows = [file.row for file in files]
            for position, row in enumerate(rows):
                row.position = position
            corpus.id, corpus.owner_id, corpus.num_uploads = corpus_id, principal.user_id, len(rows)
            corpus.filename, corpus.format = rows[0].filename, rows[0].format
            corpus.num_bytes, corpus.sha256 = sum(row.num_bytes for row in rows), content_sha256(rows)
            service.add_corpus(session, corpus, rows)
            for upload in arrived:
                open_uploads.complete(session, upload, corpus_id)
    except BaseException:
        service.remove_files(corpus_id)
        raise
    for upload_id in upload_ids:
        open_uploads.remove_files(upload_id)
    queue.flush_outbox()
    return corpus


def _check(files: Sequence[NewFile]) -> None:
    """Raise PanelError for no or too many files, two of one name, or too little room for the text of all."""
    if not files:
        message = _("No file would be left. Delete the corpus instead.")
        raise bad_field("remove", "version_empty", message)
    if len(files) > MAX_FILES:
        message = _("A corpus can have {n} files. Join some of them.", n=MAX_FILES)
        raise bad_field("uploads", "files_many", message)
    name, count = Counter(file.row.filename for file in files).most_common(1)[0]
    if count > 1:
        message = _("Two files are called “{name}”. Rename one of them, or upload both with their folders.", name=name)
        raise bad_field("uploads", "file_twice", message)
    disk.require_room(sum(file.row.num_bytes for file in files))


def link(corpus_id: str, sources: Sequence[Path]) -> None:
    """Link files into the directory of a new version, in their order. Raises PanelError for one that is gone."""
    storage.corpus(corpus_id).mkdir(parents=True)
    for position, source in enumerate(sources):
        try:
            os.link(source, storage.corpus_file(corpus_id, position))
        except FileNotFoundError:
            message = _("A file of this corpus is no longer on the disk. Upload it again.")
            raise PanelError(409, "file_gone", message) from None
    sync_directory(storage.corpus(corpus_id))


def list_versions(session: Session, *, principal: Principal, corpus: Corpus) -> list[Corpus]:
    """All versions of a corpus that are left, the newest first."""
    query = select(Corpus).where(Corpus.lineage_id == corpus.lineage_id, visible_to(Corpus.owner_id, principal))
    rows = list(session.scalars(query.order_by(Corpus.version.desc())))
    name_owners(session, principal, rows)
    return rows


def compared(session: Session, *, principal: Principal, corpus: Corpus, since: str = "") -> Corpus:
    """The version with an ID, or the one before. Raises PanelError: 404, or 422 for one of another corpus."""
    if since:
        other = service.get_corpus(session, principal=principal, corpus_id=since)
        if other.lineage_id != corpus.lineage_id:
            raise bad_field("since", "version_other", _("These are not versions of the same corpus."))
        return other
    every = list_versions(session, principal=principal, corpus=corpus)
    before = next((other for other in every if other.version < corpus.version), None)
    if before is None:
        raise bad_field("since", "version_first", _("There is no version before this one to compare it with."))
    return before


def changes(session: Session, before: Corpus, after: Corpus) -> Changes:
    """What is different in a version, compared with another one."""
    old, new = (dict(_digests(service.list_files(session, corpus.id))) for corpus in (before, after))
    return Changes(
        added=[name for name in new if name not in old],
        replaced=[name for name in new if name in old and new[name] != old[name]],
        removed=[name for name in old if name not in new],
        num_same=sum(old.get(name) == digest for name, digest in new.items()),
    )
