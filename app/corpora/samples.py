"""The corpora that ship with Athanor: installed without an owner, so that everybody's first job needs no upload."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app import storage
from app.corpora import service
from app.models import Corpus
from trainer.rundir import sha256_file

FOLDER = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Sample:
    """A shipped corpus. Its identifier is fixed, so that examples can name it; it sorts behind every upload."""

    corpus_id: str
    name: str
    filename: str


SAMPLES = (
    Sample("00kingjamesbible", "King James Bible: Genesis and Exodus", "king-james-bible.txt"),
    Sample("00tangpoems", "全唐诗选 (Tang poems)", "tang-poems.jsonl"),
)


def install_samples(session: Session) -> None:
    """Put the shipped corpora in place. Safe to repeat; a file that went missing is put back."""
    for sample in SAMPLES:
        source = FOLDER / sample.filename
        upload = storage.corpus(sample.corpus_id) / "upload"
        if not upload.exists():
            upload.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, upload)
        if session.get(Corpus, sample.corpus_id) is None:
            service.create_corpus(
                session,
                corpus_id=sample.corpus_id,
                owner_id=None,
                name=sample.name,
                filename=sample.filename,
                num_bytes=source.stat().st_size,
                sha256=sha256_file(source),
            )
