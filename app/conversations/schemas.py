"""Request and response bodies of conversations."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.conversation_models import Conversation, ConversationMessage
from app.core.json_shapes import AnswerSettings

MAX_TITLE_LENGTH = 120
MAX_CONTENT_LENGTH = 100_000
MAX_TOKENS_LENGTH = 300_000

MessageId = Annotated[str, Field(min_length=1, max_length=32)]
SystemPrompt = Annotated[str, Field(max_length=20_000, description="Begins every branch; empty: none.")]


class ConversationColumnFields(BaseModel):
    """A model, and the last message of the branch that its column shows."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_id: str = Field(min_length=1, max_length=40, description="ID of the checkpoint or base model.")
    leaf_id: MessageId | None = Field(None, description="ID of a message of the conversation; null: an empty column.")


Columns = Annotated[
    list[ConversationColumnFields], Field(max_length=4, description="The models side by side, each with its branch.")
]


class ConversationRequest(BaseModel):
    """A new conversation. Without a title it gets the beginning of its first message."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"title": "Small talk"}]})

    title: Annotated[str, Field(max_length=200)] = ""
    system_prompt: SystemPrompt = ""
    columns: Columns = []


class ConversationChange(BaseModel):
    """What changes; fields that are absent or null stay as they are."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"title": "Capitals of Europe"}]})

    title: Annotated[str, Field(max_length=200)] | None = None
    system_prompt: SystemPrompt | None = None
    columns: Columns | None = None


Setting = Annotated[float, Field(ge=-1_000, le=1_000)]


class MessageSettings(BaseModel):
    """What an answer was generated with: fields of POST /generate, and the system prompt."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    system_prompt: Annotated[str, Field(max_length=20_000)] | None = None
    prefill: Annotated[str, Field(max_length=MAX_CONTENT_LENGTH)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    temperature: Setting | None = None
    top_p: Setting | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    min_p: Setting | None = None
    presence_penalty: Setting | None = None
    frequency_penalty: Setting | None = None
    repetition_penalty: Setting | None = None
    logit_bias: Annotated[dict[Annotated[str, Field(max_length=20)], Setting], Field(max_length=1_000)] = {}
    stop: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=8)] = []


_TOKENS = (
    "The tokens of an answer with their probabilities, to be shown later: JSON of a list of pieces [text, tokens], "
    "which together are the content. A token is [ID, text, log-probability, alternatives], an alternative [ID, text, "
    "log-probability]."
)
Probability = tuple[int, str, float]
Token = tuple[int, str, float, list[Probability]]
Pieces = list[tuple[str, list[Token]]]


class MessageRequest(BaseModel):
    """A message to add below its parent. A second one below the same parent is an alternative to the first."""

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [{"parent_id": None, "role": "user", "content": "What is the capital of Italy?"}]
        },
    )

    parent_id: MessageId | None = Field(None, description="The message before it; null: it begins a branch.")
    role: Literal["user", "assistant"] = "user"
    content: Annotated[str, Field(max_length=MAX_CONTENT_LENGTH, description="Of a question: not empty.")] = ""
    model_id: Annotated[str, Field(max_length=40)] | None = Field(None, description="Of an answer: what wrote it.")
    model_name: Annotated[str, Field(max_length=300)] | None = None
    settings: MessageSettings = MessageSettings()
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    finish_reason: Literal["stop", "length", "cancelled", "edited"] | None = None
    num_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    tokens_per_second: Annotated[float, Field(ge=0, le=10**9)] | None = None
    tokens: Annotated[str, Field(max_length=MAX_TOKENS_LENGTH, description=_TOKENS)] = ""


class MessageAnswer(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(protected_namespaces=(), from_attributes=True)

    id: str
    parent_id: str | None
    role: Literal["user", "assistant"]
    content: str
    model_id: str | None
    model_name: str | None
    settings: AnswerSettings
    seed: int | None
    finish_reason: Literal["stop", "length", "cancelled", "edited"] | None
    num_tokens: int | None
    tokens_per_second: float | None
    tokens: str = Field(
        description="As they were sent; empty where they were not, or where newer ones took their place."
    )
    created_at: datetime


_EXAMPLE: dict[str, Any] = {
    "id": "5s8q2m0zr4k1n7vd",
    "title": "What is the capital of Italy?",
    "system_prompt": "",
    "columns": [{"model_id": "5s8q2m0zr4k1n7va", "leaf_id": None}],
    "share_key": None,
    "excerpt": None,
    "created_at": "2026-01-01T12:00:00Z",
    "updated_at": "2026-01-01T12:00:00Z",
}


class ConversationAnswer(BaseModel):
    """A conversation without its messages."""

    model_config = ConfigDict(protected_namespaces=(), json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    title: str
    system_prompt: str
    columns: list[ConversationColumnFields]
    share_key: str | None = Field(description="While it is shared: everyone who is logged in reads it at /shared/KEY.")
    excerpt: str | None = Field(None, description="In a search: the place in a message where the text occurs.")
    created_at: datetime
    updated_at: datetime


class ConversationDetail(ConversationAnswer):
    """A conversation with the messages of all its branches, the oldest first."""

    messages: list[MessageAnswer]


class RecordMessage(BaseModel):
    """A message of a training record."""

    role: Literal["system", "user", "assistant"]
    content: str


class TrainingRecord(BaseModel):
    """A branch as one line of a chat corpus."""

    messages: list[RecordMessage]


def conversation_answer(row: Conversation, excerpt: str | None = None) -> ConversationAnswer:
    """A row as the API answers it."""
    return ConversationAnswer.model_validate({**_fields(row), "excerpt": excerpt})


def conversation_detail(row: Conversation, messages: list[ConversationMessage]) -> ConversationDetail:
    """A row with its messages as the API answers it."""
    answers = [MessageAnswer.model_validate(message) for message in messages]
    return ConversationDetail.model_validate({**_fields(row), "messages": answers})


def _fields(row: Conversation) -> dict[str, Any]:
    names = ("id", "title", "system_prompt", "share_key", "created_at", "updated_at")
    return {**{name: getattr(row, name) for name in names}, "columns": [column.model_dump() for column in row.columns]}
