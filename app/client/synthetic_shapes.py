"""What the server answers about synthetic data: model endpoints, and records that models write."""

from datetime import datetime

from .shapes import Shape


class EndpointInfo(Shape):
    """A model behind an API like OpenAI's. Prices are per million tokens; the key is never answered."""

    id: str
    name: str
    base_url: str
    model: str
    key_hint: str
    input_price: float | None
    output_price: float | None
    created_at: datetime


class AnswerExample(Shape):
    """An answer that could not be used, with the reason."""

    code: str
    message: str
    document: int
    text: str


class DraftCountsInfo(Shape):
    """How many records are in each state; `duplicates` are almost an earlier one."""

    draft: int
    accepted: int
    rejected: int
    duplicates: int


class RecordGenerationInfo(Shape):
    """Records that a model writes or wrote: how they are asked for, how far it is, and what it took."""

    id: str
    corpus_id: str | None
    corpus_name: str
    corpus_version: int
    endpoint_id: str | None
    model: str
    model_name: str
    kind: str
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
    state: str
    task_id: str | None
    message: str
    num_done: int
    seconds_left: float | None
    num_prompt_tokens: int
    num_tokens: int
    cost: float | None
    malformed: dict[str, int]
    examples: list[AnswerExample]
    records: DraftCountsInfo
    created_at: datetime


class DraftInfo(Shape):
    """A record that a model wrote: `cells` are a question and its answer, messages in turn, or a text."""

    id: str
    document: int
    excerpt: str
    cells: list[str]
    state: str
    is_edited: bool
    duplicate_of: str | None


class SynthesisInfo(Shape):
    """How a version of a corpus was made of records that a model wrote."""

    generation_id: str
    parent_id: str | None
    parent_name: str
    parent_version: int
    parent_sha256: str
    model: str
    endpoint: str | None
    kind: str
    template: str
    seed: int
    temperature: float
    num_records: int
    num_edited: int
