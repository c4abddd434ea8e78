"""Makes a corpus of the accepted records: a new one, or a new version of one, with its lineage."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import db, disk, queue, storage
from app.core.errors import PanelError, bad_field
from app.core.formatting import json_text
from app.core.i18n import _
from app.core.json_shapes import ParseReport
from app.core.model_base import new_id
from app.core.models import Corpus, CorpusFile
from app.core.names import checked_name
from app.core.principal import Principal
from app.core.synthetic_models import DraftRecord, RecordGeneration
from app.core.synthetic_shapes import Synthesis
from app.corpora import service as corpora
from app.corpora import versions
from app.corpora.record_kinds import kind_names
from app.synthetic import service
from app.synthetic.schemas import RecordCorpusRequest

BATCH = 1000  # records that are read at a time
ROLES = ("user", "assistant")


def corpus_kind(generation: RecordGeneration) -> str:
    """The kind of corpus that the records make."""
    return "text" if generation.settings.kind == "text" else "chat"


def make_corpus(principal: Principal, generation_id: str, request: RecordCorpusRequest) -> Corpus:
    """Make a corpus of the accepted records; it is parsed in the background. Raises PanelError."""
    corpus_id = new_id()
    try:
        with db.transaction() as session:
            generation = service.get(session, principal=principal, generation_id=generation_id, for_update=True)
            corpus = _record(session, principal, generation, corpus_id, request)
    except BaseException:
        corpora.remove_files(corpus_id)
        raise
    queue.flush_outbox()
    return corpus


def _record(
    session: Session, principal: Principal, generation: RecordGeneration, corpus_id: str, request: RecordCorpusRequest
) -> Corpus:
    accepted = (DraftRecord.generation_id == generation.id, DraftRecord.state == "accepted")
    edited = func.count().filter(DraftRecord.is_edited)
    num_records, num_edited = session.execute(select(func.count(), edited).where(*accepted)).one()
    if num_records == 0:
        raise PanelError(409, "records_none", _("No record is accepted yet. Accept some first."))
    kind = corpus_kind(generation)
    filename = f"generated-{generation.id}.jsonl"
    kept: list[CorpusFile] = []
    if request.corpus is None:
        name = checked_name(request.name or generation.corpus_name, max_length=corpora.MAX_NAME_LENGTH)
        corpus = Corpus(name=name, progress=ParseReport(kind=kind))
        storage.corpus(corpus_id).mkdir(parents=True)
    else:
        base = _base(session, principal, request.corpus, kind)
        newest = select(func.max(Corpus.version)).where(Corpus.lineage_id == base.lineage_id)
        corpus = Corpus(
            name=base.name,
            lineage_id=base.lineage_id,
            version=(session.scalar(newest) or 0) + 1,
            progress=versions.parse_options(base),
        )
        kept = [file for file in corpora.list_files(session, base.id) if file.filename != filename]
        versions.link(corpus_id, [storage.corpus_file(base.id, file.position) for file in kept])
    texts = _cells(session, generation)
    num_bytes, sha256 = _write(storage.corpus_file(corpus_id, len(kept)), kind, texts)
    file = CorpusFile(filename=filename, format="jsonl", num_bytes=num_bytes, sha256=sha256, encoding=None)
    copies = [CorpusFile(**{name: getattr(row, name) for name in versions.CONTENT}) for row in kept]
    rows = [*copies, file]
    for position, row in enumerate(rows):
        row.position = position
    corpus.id, corpus.owner_id, corpus.num_uploads = corpus_id, principal.user_id, len(rows)
    corpus.filename, corpus.format = rows[0].filename, rows[0].format
    corpus.num_bytes, corpus.sha256 = sum(row.num_bytes for row in rows), versions.content_sha256(rows)
    corpus.synthesis = _synthesis(generation, num_records, num_edited)
    return corpora.add_corpus(session, corpus, rows)


def _base(session: Session, principal: Principal, corpus_id: str, kind: str) -> Corpus:
    """The corpus that gets a new version. Raises PanelError for one that cannot be used."""
    try:
        base = corpora.own_corpus(session, principal, corpus_id)
    except PanelError as error:
        raise bad_field("corpus", "corpus_unknown", error.message) from None
    if base.state != "ready":
        corpora.require_ready_corpora(session, principal=principal, ids=[corpus_id], field="corpus")
    if base.kind != kind:
        values = {"name": base.name, "kind": kind_names([base.kind]), "expected": kind_names([kind])}
        message = _("The corpus “{name}” is of the kind {kind}, and the records of the kind {expected}.", **values)
        raise bad_field("corpus", "kind_unfit", message)
    return base


def _cells(session: Session, generation: RecordGeneration) -> Iterator[list[str]]:
    """The texts of the accepted records, in their order."""
    accepted = select(DraftRecord.cells).where(
        DraftRecord.generation_id == generation.id, DraftRecord.state == "accepted"
    )
    yield from session.scalars(accepted.order_by(DraftRecord.id).execution_options(yield_per=BATCH))


def _write(path: Path, kind: str, records: Iterable[list[str]]) -> tuple[int, str]:
    """Write records as JSON lines; the size and the SHA-256 of the file. Raises PanelError if the disk is too full."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for cells in records:
            line = (json_text(record(kind, cells)) + "\n").encode()
            file.write(line)
            digest.update(line)
        num_bytes = file.tell()
    disk.require_room(num_bytes)
    return num_bytes, digest.hexdigest()


def record(kind: str, cells: list[str]) -> dict[str, object]:
    """A record of a corpus."""
    if kind == "text":
        return {"text": cells[0]}
    return {"messages": [{"role": ROLES[i % 2], "content": cell} for i, cell in enumerate(cells)]}


def _synthesis(generation: RecordGeneration, num_records: int, num_edited: int) -> Synthesis:
    return Synthesis(
        generation_id=generation.id,
        parent_id=generation.corpus_id,
        parent_name=generation.corpus_name,
        parent_version=generation.corpus_version,
        parent_sha256=generation.corpus_sha256,
        model=generation.model_name,
        model_id=generation.model_id,
        endpoint=generation.endpoint_url,
        settings=generation.settings,
        num_records=num_records,
        num_edited=num_edited,
    )
