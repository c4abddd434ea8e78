"""What the JSON columns of jobs that were imported from archives hold."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True)


class ArchivedCorpus(_Stored):
    """A corpus that a job trained on, or held out. One that its reader may not see has its ID only."""

    id: str
    name: str | None = None
    kind: str | None = None
    text_sha256: str | None = None
    num_documents: int | None = None
    num_text_bytes: int | None = None


class ArchivedBase(_Stored):
    """The base model that a job started from: one of the hub, another imported one, or a checkpoint."""

    id: str
    name: str | None = None
    reference: str | None = None
    sha256: str | None = None


class RunOrigin(_Stored):
    """The archive that a job was imported from. All IDs are those of the installation that wrote it."""

    filename: str
    sha256: str  # of the archive
    exported_at: datetime
    athanor_version: str
    job_id: str
    corpora: list[ArchivedCorpus] = []
    validation_corpora: list[ArchivedCorpus] = []
    base_model: ArchivedBase | None = None
