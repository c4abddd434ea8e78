"""Where an imported job comes from: its archive, and the corpora and the base model of the installation there."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core.archive_shapes import ArchivedBase, ArchivedCorpus, RunOrigin
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import Job
from app.core.principal import Principal
from app.jobs.archives.local_ids import same_corpora


class OriginCorpus(BaseModel):
    """A corpus there, by name and hash. Without them, it is one that its reader may not see."""

    id: str = Field(description="Its ID there.")
    name: str | None
    kind: str | None
    text_sha256: str | None = Field(description="Of its parsed text.")
    num_documents: int | None
    num_text_bytes: int | None
    corpus_id: str | None = Field(description="A corpus here with the same text, or null.")


class OriginBase(BaseModel):
    """The base model that it started from there."""

    id: str
    name: str | None
    reference: str | None
    sha256: str | None


class OriginAnswer(BaseModel):
    """The archive that a job was imported from."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "filename": "tiny.tar",
                    "sha256": "8b1c" * 16,
                    "exported_at": "2026-11-24T20:14:51Z",
                    "athanor_version": "0.1.0",
                    "job_id": "06e9x1aa3kb5c7de",
                    "corpora": [
                        {
                            "id": "06e9x0c5m1n2p3q4",
                            "name": "Genesis",
                            "kind": "text",
                            "text_sha256": "5d41" * 16,
                            "num_documents": 50,
                            "num_text_bytes": 191442,
                            "corpus_id": None,
                        }
                    ],
                    "validation_corpora": [],
                    "base_model": None,
                }
            ]
        }
    )

    filename: str
    sha256: str = Field(description="Of the archive.")
    exported_at: datetime
    athanor_version: str = Field(description="Of the installation that exported it.")
    job_id: str = Field(description="Its ID there.")
    corpora: list[OriginCorpus]
    validation_corpora: list[OriginCorpus]
    base_model: OriginBase | None


def answer(session: Session, principal: Principal, job: Job) -> OriginAnswer:
    """The origin of a job. Raises PanelError (409) for one that was submitted here."""
    origin = job.imported_from
    if origin is None:
        raise PanelError(409, "not_imported", _("This job was submitted here, not imported from an archive."))
    return _answer(session, principal, origin, is_own=job.owner_id == principal.user_id)


def find(session: Session, principal: Principal, job: Job) -> OriginAnswer | None:
    """The origin of a job, or None for one that was submitted here."""
    return answer(session, principal, job) if job.imported_from is not None else None


def _answer(session: Session, principal: Principal, origin: RunOrigin, *, is_own: bool) -> OriginAnswer:
    plain = origin.model_dump(include={"filename", "sha256", "exported_at", "athanor_version", "job_id"})
    return OriginAnswer(
        **plain,
        corpora=_corpora(session, principal, origin.corpora, is_own=is_own),
        validation_corpora=_corpora(session, principal, origin.validation_corpora, is_own=is_own),
        base_model=_base(origin.base_model) if is_own else None,
    )


def _corpora(
    session: Session, principal: Principal, archived: Sequence[ArchivedCorpus], *, is_own: bool
) -> list[OriginCorpus]:
    here = {(row.kind, row.text_sha256): row.id for row in reversed(same_corpora(session, principal, archived))}
    corpora = []
    for corpus in archived:
        corpus_id = here.get((corpus.kind or "", corpus.text_sha256))
        visible = corpus if is_own or corpus_id is not None else ArchivedCorpus(id=corpus.id)
        corpora.append(OriginCorpus(**visible.model_dump(), corpus_id=corpus_id))
    return corpora


def _base(base: ArchivedBase | None) -> OriginBase | None:
    return OriginBase(**base.model_dump()) if base is not None else None
