"""What the JSON columns of app/core/synthetic_models.py hold, and of a corpus that was made of generated records."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

RecordKind = Literal["question_answer", "chat", "text"]


class RecordSettings(BaseModel):
    """How records are generated from documents. Tokens are limited per answer and in all, the cost in all."""

    model_config = ConfigDict(frozen=True)

    kind: RecordKind
    language: str  # of the instructions that follow the template
    template: str
    num_documents: int
    max_characters: int  # of a document; what is longer is cut
    seed: int
    records_per_document: int
    num_turns: int
    temperature: float
    max_tokens: int
    max_total_tokens: int | None = None
    max_cost: float | None = None


class AnswerProblem(BaseModel):
    """An answer that could not be used: the code of app/synthetic/answers.py, and its beginning."""

    model_config = ConfigDict(frozen=True)

    code: str
    document: int
    text: str


class Synthesis(BaseModel):
    """How a version of a corpus was made: the source version, who wrote the records, and what it was asked.

    `parent_sha256` is that of the parsed text of the source, which may have been deleted since.
    """

    model_config = ConfigDict(frozen=True)

    generation_id: str
    parent_id: str | None
    parent_name: str
    parent_version: int
    parent_sha256: str
    model: str  # its name
    model_id: str | None = None  # the checkpoint or base model; None for an endpoint, and in earlier versions
    endpoint: str | None  # its base URL; None for a model of this installation
    settings: RecordSettings
    num_records: int
    num_edited: int
