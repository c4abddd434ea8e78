"""What the server answers about tokenizers."""

from datetime import datetime

from .shapes import Progress, Shape


class TokenizerProblemInfo(Shape):
    """Why a tokenizer could not be trained or imported."""

    code: str
    message: str


class CurvePointInfo(Shape):
    """Bytes per token with a vocabulary size."""

    vocab_size: int
    bytes_per_token: float


class TokenizerProgressInfo(Progress):
    """Progress in bytes of text that were read."""


class TokenizerInfo(Shape):
    """A tokenizer: trained by a job, trained by itself, or imported."""

    id: str
    name: str
    tags: list[str]
    notes: str
    shared_by: str | None
    source: str
    state: str
    algorithm: str
    vocab_size: int | None
    sha256: str | None
    corpora: list[str]
    special_tokens: list[str]
    end_of_text: str | None
    num_training_bytes: int | None
    num_held_out_bytes: int | None
    curve: list[CurvePointInfo]
    problems: list[TokenizerProblemInfo]
    task_id: str | None
    progress: TokenizerProgressInfo | None
    created_at: datetime


class ComparedTokenInfo(Shape):
    """A token of a text. Bytes that form no character are written as \\xe5."""

    id: int
    text: str
    num_bytes: int
    is_special: bool
    bytes: str = ""


class TokenizationInfo(Shape):
    """What one tokenizer makes of a text."""

    tokenizer: str
    name: str
    vocab_size: int | None
    num_bytes: int
    num_tokens: int
    bytes_per_token: float | None
    tokens: list[ComparedTokenInfo]
    refused: str | None


class TokenizationsInfo(Shape):
    """What each tokenizer makes of a text."""

    data: list[TokenizationInfo]
