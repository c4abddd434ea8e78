"""Requests, responses and queue messages of the playground."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_PROMPT_CHARACTERS = 50_000  # a longer prompt is refused before a model has to count its tokens
MAX_CONTEXT = 2**31 - 1  # no context has more tokens

_EXAMPLE: dict[str, Any] = {
    "checkpoint": "5s8q2m0zr4k1n7vd",
    "prompt": "In the beginning",
    "max_tokens": 120,
    "temperature": 0.8,
    "seed": 7,
    "stream": True,
}


ModelID = Annotated[
    str, Field(description="ID of the checkpoint or base model, or name of a deployment.", min_length=1, max_length=64)
]


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class PromptMessage(BaseModel):
    """A message as chat templates read it. The arguments of tool calls are objects."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class GeneratedToolCall(BaseModel):
    """A function that the model calls. The arguments are a JSON text."""

    name: str
    arguments: str


class GenerationSettings(BaseModel):
    """How a text is generated."""

    max_tokens: Annotated[int, Field(description="Maximum number of tokens to generate.", ge=1, le=4_096)] = 200
    temperature: Annotated[float, Field(description="Sampling temperature; 0 is greedy decoding.", ge=0, le=2)] = 0.8
    top_p: Annotated[
        float,
        Field(
            description="Nucleus sampling: smallest set of most likely tokens with this total probability.", gt=0, le=1
        ),
    ] = 0.95
    top_k: Annotated[int, Field(description="Sample from this many most likely tokens; 0: all.", ge=0, le=1_000)] = 50
    min_p: Annotated[
        float,
        Field(description="Leave out tokens less likely than this fraction of the most likely one.", ge=0, le=1),
    ] = 0.0
    repetition_penalty: Annotated[
        float,
        Field(description="Divides the scores of tokens that the prompt or the text contains; 1: none.", gt=0, le=10),
    ] = 1.0
    presence_penalty: Annotated[
        float, Field(description="Lowers the scores of tokens that the text contains.", ge=-2, le=2)
    ] = 0.0
    frequency_penalty: Annotated[
        float, Field(description="Lowers the score of a token each time that the text contains it.", ge=-2, le=2)
    ] = 0.0
    logit_bias: Annotated[
        dict[Annotated[int, Field(ge=0, le=2**31 - 1)], Annotated[float, Field(ge=-100, le=100)]],
        Field(description="Added to the scores of tokens, by token ID.", max_length=1_024),
    ] = {}
    top_logprobs: Annotated[
        int | None,
        Field(
            description="Return the log-probability of each token, and so many alternatives; null: neither.",
            ge=0,
            le=20,
        ),
    ] = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]],
        Field(description="Strings that end the text and are not part of it.", max_length=8),
    ] = []


class GenerateRequest(GenerationSettings):
    """A prompt or a conversation, the model that continues it, and the sampling parameters."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": [_EXAMPLE]})

    checkpoint: ModelID
    prompt: Annotated[str, Field(description="The text to continue; may be empty.")] = ""
    messages: Annotated[
        list[ChatMessage] | None,
        Field(
            description="A conversation to answer, in place of a prompt: the model's chat template makes the prompt.",
            min_length=1,
            max_length=1_000,
        ),
    ] = None
    prefill: Annotated[
        str, Field(description="With messages: the text that the answer begins with. It is not returned.")
    ] = ""
    seed: Annotated[int | None, Field(description="Random seed; null draws one.", ge=0, le=2**31 - 1)] = None
    stream: Annotated[bool, Field(description="Stream the text as server-sent events.")] = False


class TokenProbability(BaseModel):
    """A token with the natural logarithm of its probability, as the model gives it before any sampling setting."""

    id: int
    text: str  # with U+FFFD for bytes that are no whole character
    bytes: list[int]
    logprob: float


class GeneratedToken(TokenProbability):
    """A token of the text, and the most likely tokens in its place, most likely first."""

    top: list[TokenProbability]


class GenerateAnswer(BaseModel):
    """The complete continuation."""

    text: str
    finish_reason: Literal["stop", "length"]
    num_tokens: int
    num_prompt_tokens: int
    tokens_per_second: float
    seed: int
    tokens: list[GeneratedToken] | None = None  # with top_logprobs

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "text": " God created the heaven and the earth.",
                    "finish_reason": "length",
                    "num_tokens": 9,
                    "num_prompt_tokens": 4,
                    "tokens_per_second": 212.4,
                    "seed": 7,
                }
            ]
        }
    )


class GenerationTask(GenerationSettings):
    """A checked request as it is sent to a node. `path` is the model's directory, relative to the data directory."""

    id: str
    path: str
    task: str = "generate"  # a key of TASKS in worker/inference/server.py
    max_tokens: Annotated[int, Field(ge=0)] = MAX_CONTEXT  # of which the end of the context leaves as many as it does
    prompt: str = ""
    messages: list[PromptMessage] | None = None
    prefill: str = ""
    seed: int = 0
    node: str | None = None  # that has to answer it, as it keeps the model in memory
    deployment_id: str | None = None
    user_id: str = ""
    prompt_number: int = 0  # among the prompts of its request, which may ask for several texts of each
    prompt_ids: list[int] = []  # in place of a prompt
    echo: bool = False  # whether the text begins with the prompt
    stream: bool = True  # whether its reader is shown the text as it grows
    json_schema: dict[str, Any] | None = None  # that the text is valid JSON for
    tools: list[dict[str, Any]] | None = None  # for the chat template; calls are told apart from the text
    arguments: dict[str, Any] = {}  # of a look inside the model: the fields of its request
    required_functions: list[dict[str, Any]] = []  # of the tools: the text is a call of one of them
    strict_functions: list[dict[str, Any]] = []  # of the tools: all calls in the text are valid calls of them


class GenerationMessage(BaseModel):
    """An event of a generation, sent by the inference process through the worker and Valkey to the web server.

    Only the fields of its event are set: waiting has position; loading, while its model is loaded, has percent; piece
    has text and num_tokens, and with top_logprobs tokens, and with tools tool_calls; done has finish_reason,
    num_tokens, num_prompt_tokens and tokens_per_second, or the result of a look inside the model and
    num_prompt_tokens; failure has code and values; start and beat have none.
    """

    event: Literal["waiting", "start", "loading", "piece", "beat", "done", "failure"]
    position: int | None = None  # requests ahead in the queue; None once a worker has taken this one
    percent: int | None = None  # of the weights that are loaded
    text: str = ""
    tokens: list[GeneratedToken] = []
    tool_calls: list[GeneratedToolCall] = []
    is_prompt: bool = False  # a piece that repeats the prompt: its first token has no log-probability
    num_tokens: int = 0  # generated so far
    num_prompt_tokens: int = 0
    finish_reason: Literal["stop", "length", "cancelled"] | None = None
    tokens_per_second: float = 0.0
    result: str = ""  # JSON of an answer of app/playground/inspection/schemas.py
    code: str = ""  # one of app/playground/failures.py
    values: dict[str, Any] = {}

    @property
    def is_last(self) -> bool:
        """Whether no message follows this one."""
        return self.event in ("done", "failure")
