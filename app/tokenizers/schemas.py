"""Request and response bodies of tokenizers."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.core.json_shapes import Problem
from app.core.models import BackgroundTask, Tokenizer
from app.tokenizers import problems
from trainer.families import MIN_VOCAB_SIZE

MAX_VOCAB_SIZE = 262_144
MAX_SPECIAL_TOKENS = 1_000
MIN_SAMPLE_BYTES, DEFAULT_SAMPLE_BYTES, MAX_SAMPLE_BYTES = 1 << 10, 256 << 20, 4 << 30
MAX_COMPARED = 4
MAX_TEXT = 20_000

SpecialToken = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class TrainRequest(BaseModel):
    """A byte-level BPE tokenizer to be trained on corpora."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"corpora": ["00kingjamesbible"], "vocab_size": 8192, "name": "verse"}]},
    )

    corpora: list[str] = Field(min_length=1, max_length=64, description="IDs of the corpora to train on.")
    name: str = Field("", max_length=200, description="Name in lists. Defaults to the names of the corpora.")
    vocab_size: int | None = Field(
        None,
        ge=MIN_VOCAB_SIZE,
        le=MAX_VOCAB_SIZE,
        description="Number of tokens; null: it depends on the size of the text.",
    )
    special_tokens: list[SpecialToken] = Field(
        [],
        max_length=MAX_SPECIAL_TOKENS,
        description="Tokens that no text is divided into, besides those for the end of a text and for padding.",
    )
    model_kind: Literal["decoder", "encoder", "encoder_decoder"] = Field(
        "decoder",
        description="What models it is for: encoders such as BERT get a mask token, encoder-decoders such as T5 the "
        "tokens that stand for removed spans.",
    )
    sample_bytes: int = Field(
        DEFAULT_SAMPLE_BYTES,
        ge=MIN_SAMPLE_BYTES,
        le=MAX_SAMPLE_BYTES,
        description="Most bytes of text to train on, evenly spread over the corpora.",
    )


class TokenizerProgress(BaseModel):
    """Progress in bytes of text that were read."""

    done: int
    total: int


class CurvePoint(BaseModel):
    """Bytes per token with a vocabulary size."""

    vocab_size: int
    bytes_per_token: float


class TokenizerProblem(BaseModel):
    """Why a tokenizer could not be trained or imported."""

    code: str
    message: str


class TokenizerAnswer(BaseModel):
    """A tokenizer: trained by a job, trained by itself, or imported."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "06bv8h2m4c7k9qz1",
                    "name": "tiny",
                    "tags": ["verse"],
                    "notes": "",
                    "shared_by": None,
                    "source": "training",
                    "state": "ready",
                    "algorithm": "byte_level_bpe",
                    "vocab_size": 2048,
                    "sha256": "9f2a…",
                    "corpora": ["00kingjamesbible"],
                    "special_tokens": [],
                    "end_of_text": "<|endoftext|>",
                    "num_training_bytes": 4000000,
                    "num_held_out_bytes": 200000,
                    "curve": [{"vocab_size": 2048, "bytes_per_token": 3.9}],
                    "problems": [],
                    "task_id": None,
                    "progress": None,
                    "created_at": "2026-01-01T12:00:00Z",
                }
            ]
        }
    )

    id: str
    name: str
    tags: list[str] = Field(description="Words of its owner to find it by.")
    notes: str = Field(description="What its owner wrote about it.")
    shared_by: str | None = Field(description="Name of the user who shares it; null for your own.")
    source: Literal["job", "training", "import"]
    state: Literal["preparing", "ready", "failed"]
    algorithm: Literal["byte_level_bpe", "bpe", "unigram", "wordpiece", "wordlevel", "other"]
    vocab_size: int | None = Field(description="Number of tokens; null until it is ready.")
    sha256: str | None = Field(description="SHA-256 of its tokenizer.json; null until it is ready.")
    corpora: list[str] = Field(description="IDs of the corpora it was trained on.")
    special_tokens: list[str] = Field(description="Special tokens that were asked for.")
    end_of_text: str | None
    num_training_bytes: int | None = Field(description="Bytes of text it was trained on, if it was trained by itself.")
    num_held_out_bytes: int | None = Field(
        description="Bytes of text that `curve` was measured on; 0 if the text was too short to leave some out."
    )
    curve: list[CurvePoint] = Field(
        description="Bytes per token by vocabulary size, on text that was not trained on: what training with that size "
        "would have given."
    )
    problems: list[TokenizerProblem]
    task_id: str | None = Field(description="The background task that trains or imports it, while it waits or runs.")
    progress: TokenizerProgress | None = Field(description="While it is being prepared.")
    created_at: datetime


def tokenizer_answer(tokenizer: Tokenizer, task: BackgroundTask | None = None) -> TokenizerAnswer:
    """The response for a row. `task` is the one that trains or imports it."""
    facts = tokenizer.facts
    total = task.progress.total if task is not None else None
    names = ("id", "name", "tags", "notes", "source", "state", "vocab_size", "sha256", "corpora", "created_at")
    of_facts = ("algorithm", "special_tokens", "end_of_text", "num_training_bytes", "num_held_out_bytes")
    return TokenizerAnswer(
        **{name: getattr(tokenizer, name) for name in names},
        shared_by=tokenizer.shared_by,
        **{name: getattr(facts, name) for name in of_facts},
        curve=[CurvePoint(vocab_size=size, bytes_per_token=value) for size, value in facts.curve],
        problems=[problem_answer(problem) for problem in tokenizer.problems],
        task_id=task.id if task is not None else None,
        progress=TokenizerProgress(done=task.progress.done, total=total) if task is not None and total else None,
    )


def problem_answer(problem: Problem) -> TokenizerProblem:
    """A stored problem with its sentence."""
    return TokenizerProblem(code=problem.code, message=problems.sentence(problem))


# ---- comparison -----------------------------------------------------------------------------------------------------


class CompareRequest(BaseModel):
    """A text, and tokenizers to compare on it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"text": "In the beginning", "tokenizers": ["06bv8h2m4c7k9qz1"]}]},
    )

    text: str = Field(min_length=1, max_length=MAX_TEXT)
    tokenizers: list[str] = Field(
        min_length=1, max_length=MAX_COMPARED, description="IDs of tokenizers, or of imported base models for theirs."
    )


class ComparedToken(BaseModel):
    """A token of a text. Bytes that form no character are written as \\xe5."""

    id: int
    text: str
    num_bytes: int
    is_special: bool
    bytes: str = Field(description="Its bytes in hexadecimal if they are no text by themselves, else empty.")


class Tokenization(BaseModel):
    """What one tokenizer makes of a text. If it refuses the text, `refused` says why, and there are no tokens."""

    tokenizer: str
    name: str
    vocab_size: int | None
    num_bytes: int = Field(description="Bytes of the text.")
    num_tokens: int
    bytes_per_token: float | None
    tokens: list[ComparedToken]
    refused: str | None


class TokenizationsAnswer(BaseModel):
    """What each tokenizer makes of the text, in the order of the request."""

    data: list[Tokenization]
