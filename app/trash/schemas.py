"""Shapes of what is in the trash."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

TrashKind = Literal["corpus", "model", "tokenizer", "checkpoint", "job"]


class TrashedAnswer(BaseModel):
    """Something that was deleted and can be restored until `ends_at`."""

    id: str
    kind: TrashKind
    name: str = Field(description="Of a checkpoint, the name of its job.")
    step: int | None = Field(description="Of a checkpoint.")
    num_bytes: int = Field(description="Of its files, which count as used disk space. Of a job: of its checkpoints.")
    deleted_at: datetime
    ends_at: datetime = Field(description="When it is deleted for good.")
