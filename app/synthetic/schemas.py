"""Request and response JSON of records that models write."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.synthetic_shapes import RecordKind
from app.synthetic.prompts import MAX_TEMPLATE_LENGTH

DraftState = Literal["draft", "accepted", "rejected"]
MAX_CELL_LENGTH = 100_000
MAX_DRAFTS = 200  # of a request that names them
_EXAMPLE: dict[str, Any] = {
    "corpus": "06bv8h2m4c7k9qz1",
    "model": "helpdesk",
    "kind": "question_answer",
    "num_documents": 50,
    "records_per_document": 3,
    "seed": 7,
}


class RecordGenerationRequest(BaseModel):
    """Which model writes which records, from which documents, and what it may take."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": [_EXAMPLE]})

    corpus: str = Field(min_length=1, max_length=32, description="ID of the version whose documents are sampled.")
    model: str = Field(
        "",
        max_length=64,
        description="Name or ID of a deployment, or ID of a checkpoint or base model. It costs nothing.",
    )
    endpoint: str | None = Field(None, max_length=32, description="ID of a model endpoint, in place of a model.")
    kind: RecordKind = Field(
        "question_answer",
        description="question_answer: questions with answers; chat: conversations of `num_turns` questions; text: a "
        "better text in place of each document.",
    )
    template: str = Field(
        "",
        max_length=MAX_TEMPLATE_LENGTH,
        description="What is asked, with `{document}`, and optionally `{n}` for the number of records and `{turns}` "
        "for that of questions. Empty: a template in the language of the request.",
    )
    num_documents: int = Field(20, ge=1, le=100_000, description="Number of documents, sampled by `seed`.")
    max_characters: int = Field(8_000, ge=1, le=40_000, description="Longer documents are cut to so many characters.")
    seed: int = Field(0, ge=0, le=2**31 - 1)
    records_per_document: int = Field(3, ge=1, le=50)
    num_turns: int = Field(2, ge=1, le=20, description="Questions of a conversation.")
    temperature: float = Field(0.7, ge=0, le=2)
    max_tokens: int = Field(2_000, ge=1, le=100_000, description="Limit of the tokens of one answer.")
    max_total_tokens: int | None = Field(
        None, ge=1, le=10**12, description="No document is asked about that could exceed so many tokens in all."
    )
    max_cost: float | None = Field(
        None, gt=0, le=10**9, description="The same for the cost, in the unit of the endpoint's prices."
    )


class ResumeRequest(BaseModel):
    """The limits of a generation that is resumed. Null: as before."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_total_tokens: int | None = Field(None, ge=1, le=10**12)
    max_cost: float | None = Field(None, gt=0, le=10**9)


class AnswerProblemInfo(BaseModel):
    """An answer that could not be used."""

    code: str
    message: str
    document: int = Field(description="Number of the document, from 0.")
    text: str = Field(description="Beginning of the answer.")


class DraftCounts(BaseModel):
    """How many records are in each state; `duplicates` are those that are almost an earlier one."""

    draft: int
    accepted: int
    rejected: int
    duplicates: int


class RecordGenerationAnswer(BaseModel):
    """Records that a model writes or wrote."""

    id: str
    corpus_id: str | None = Field(description="The version of the source, or null once it was deleted.")
    corpus_name: str
    corpus_version: int
    endpoint_id: str | None
    model: str
    model_name: str
    kind: RecordKind
    template: str
    num_documents: int
    max_characters: int
    seed: int
    records_per_document: int
    num_turns: int
    temperature: float
    max_tokens: int
    max_total_tokens: int | None
    max_cost: float | None
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    task_id: str | None = Field(description="Its last background task, which can be cancelled.")
    message: str = Field(description="Why it failed or ended early, as a sentence; else empty.")
    num_done: int = Field(description="Documents that were asked about.")
    seconds_left: float | None
    num_prompt_tokens: int
    num_tokens: int
    cost: float | None = Field(description="In the unit of the endpoint's prices; null without prices.")
    malformed: dict[str, int] = Field(description="Answers or records that could not be used, by code.")
    examples: list[AnswerProblemInfo] = Field(description="The first of these.")
    records: DraftCounts
    created_at: datetime


class DraftAnswer(BaseModel):
    """A record that a model wrote."""

    id: str
    document: int = Field(description="Number of its document, from 0.")
    excerpt: str = Field(description="Beginning of the document.")
    cells: list[str] = Field(description="Question and answer, the messages of a conversation in turn, or a text.")
    state: DraftState
    is_edited: bool
    duplicate_of: str | None = Field(description="ID of an earlier record that is almost the same.")


class DraftChange(BaseModel):
    """What is to change in a record. Without a state it keeps its own."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"state": "accepted"}]})

    cells: list[Annotated[str, Field(max_length=MAX_CELL_LENGTH)]] | None = Field(None, min_length=1, max_length=40)
    state: DraftState | None = None


class ReviewRequest(BaseModel):
    """The state that many records get."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"state": "accepted"}]})

    state: DraftState
    ids: list[Annotated[str, Field(max_length=32)]] | None = Field(
        None, max_length=MAX_DRAFTS, description="IDs of records. Null: all that nobody has decided about."
    )
    duplicates: bool = Field(False, description="Without `ids`: also records that are almost an earlier one.")


class RecordCorpusRequest(BaseModel):
    """Where the accepted records go: into a new corpus, or a new version of one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Questions"}]})

    name: str = Field("", max_length=120, description="Name of a new corpus. Defaults to the name of the source.")
    corpus: str | None = Field(
        None,
        max_length=32,
        description="ID of a corpus of the same kind, of which a new version gets the records, too.",
    )


class SynthesisAnswer(BaseModel):
    """How a version of a corpus was made of records that a model wrote."""

    generation_id: str
    parent_id: str | None
    parent_name: str
    parent_version: int
    parent_sha256: str = Field(description="SHA-256 of the text of the source.")
    model: str
    endpoint: str | None = Field(description="Base URL of the endpoint; null for a model of this installation.")
    kind: RecordKind
    template: str
    seed: int
    temperature: float
    num_records: int
    num_edited: int = Field(description="Records that a person changed.")
