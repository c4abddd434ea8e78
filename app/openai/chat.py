"""`POST /v1/chat/completions`: answers a conversation."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app.core.errors import bad_field
from app.core.i18n import _
from app.openai import generations
from app.openai.generations import (
    AnswerFormat,
    GeneratedText,
    GenerationRequest,
    GenerationResponse,
    Generations,
    unsupported,
)
from app.openai.tools import CalledTool, Tool, tool_call, tool_fields
from app.playground.schemas import MAX_CONTEXT
from app.playground.service import GenerationEvent
from app.web.auth import Submitter
from app.web.json_body import StrictRoute

router = APIRouter(route_class=StrictRoute)

UNSUPPORTED = ("audio", "web_search_options", "functions", "function_call")


# ---- the request ----------------------------------------------------------------------------------------------------


class RequestMessage(BaseModel):
    """A message of the conversation. Its content is a text, or parts that are texts."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Any = None
    name: Annotated[str | None, Field(max_length=200)] = None
    tool_calls: Annotated[list[CalledTool] | None, Field(max_length=128)] = None
    tool_call_id: Annotated[str | None, Field(max_length=200)] = None


class JsonFormat(BaseModel):
    """A JSON schema with its name."""

    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class ResponseFormat(BaseModel):
    """What the answer consists of."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonFormat | None = None

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema of the answer; None for any text. Raises PanelError if it is missing."""
        if self.type != "json_schema":
            return {"type": "object"} if self.type == "json_object" else None
        if self.json_schema is None or self.json_schema.json_schema is None:
            name = "response_format.json_schema.schema"
            raise bad_field(name, "request_invalid", _("{field} is missing.", field=name))
        return self.json_schema.json_schema


class ChatRequest(GenerationRequest):
    """What is asked."""

    messages: Annotated[list[RequestMessage], Field(min_length=1, max_length=1_000)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MAX_CONTEXT)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=MAX_CONTEXT)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    continue_final_message: bool | None = None  # of vLLM: the answer begins with the last message
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool] | None, Field(max_length=128)] = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None
    functions: Any = None
    function_call: Any = None

    def task_fields(self) -> dict[str, Any]:
        """The fields of GenerationTask that say what is answered. Raises PanelError."""
        messages = [prompt_message(f"messages.{number}", message) for number, message in enumerate(self.messages)]
        prefill = ""
        if self.continue_final_message and messages[-1]["role"] == "assistant" and len(messages) > 1:
            prefill = messages.pop()["content"] or ""
        max_tokens = self.max_completion_tokens or self.max_tokens or MAX_CONTEXT
        top_logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return {
            "messages": messages,
            "prefill": prefill,
            "max_tokens": max_tokens,
            "top_logprobs": top_logprobs,
            "json_schema": self.response_format.schema_of_answer if self.response_format else None,
            **tool_fields(self.tools or [], self.tool_choice),
        }


def renamed_fields(fields: dict[str, Any], messages: str, response_format: str) -> dict[str, str]:
    """What our services' fields are called in a request with these names for its messages and its format."""
    is_call = fields["required_functions"] or (fields["strict_functions"] and fields["json_schema"] is None)
    return {"prompt": messages, "messages": messages, "json_schema": "tools" if is_call else response_format}


def prompt_message(name: str, message: RequestMessage) -> dict[str, Any]:
    """A message as chat templates read it. Raises PanelError. `name` is that of the field."""
    role = "system" if message.role == "developer" else message.role  # templates know no other word for it
    fields: dict[str, Any] = {"role": role, "content": text_of(f"{name}.content", message.content)}
    if fields["content"] is None and role != "assistant":
        raise bad_field(f"{name}.content", "request_invalid", _("The message has no content. Add it."))
    if message.tool_calls:
        fields["tool_calls"] = [call.for_template() for call in message.tool_calls]
    names = ("name", "tool_call_id")
    return {**fields, **{name: getattr(message, name) for name in names if getattr(message, name)}}


def text_of(name: str, content: Any) -> str | None:
    """The text of the content of a message. Raises PanelError for anything else than text."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad_field(name, "request_invalid", _("{field} must be a text or a list of parts.", field=name))
    return "".join(_text_of_part(f"{name}.{number}", part) for number, part in enumerate(content))


def _text_of_part(name: str, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else None
    if kind not in ("text", "input_text", "output_text", "refusal"):
        message = _("Content of the type {type} is not supported here. Send text.", type=str(kind)[:40])
        raise unsupported(f"{name}.type", message)
    if not isinstance(text, str):
        raise bad_field(f"{name}.text", "request_invalid", _("{field} must be text.", field=f"{name}.text"))
    return text


# ---- the answer -----------------------------------------------------------------------------------------------------


class ChatFormat(AnswerFormat):
    """Objects `chat.completion` and `chat.completion.chunk`."""

    def __init__(self, request: ChatRequest, generations: Generations) -> None:
        self._request = request
        self._generations = generations
        self._begun: set[int] = set()  # texts whose role the stream has told
        self._calls: list[list[dict[str, Any]]] = [[] for _ in generations.tasks]  # that the stream has told

    def complete(self, texts: Sequence[GeneratedText]) -> dict[str, Any]:
        choices = [self._choice(index, text) for index, text in enumerate(texts)]
        return {**self._base("chat.completion"), "choices": choices, "usage": self._usage(texts)}

    def _choice(self, index: int, text: GeneratedText) -> dict[str, Any]:
        calls = self._numbered(index, text.calls)
        message: dict[str, Any] = {"role": "assistant", "content": text.text, "refusal": None}
        if calls:
            message = {**message, "content": text.text or None, "tool_calls": calls}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(text.tokens),
            "finish_reason": self._finish_reason(text.done, has_calls=bool(calls)),
        }

    def _numbered(self, index: int, calls: Sequence[dict[str, Any]], first: int = 0) -> list[dict[str, Any]]:
        """The calls as OpenAI writes them, those before `first` left out."""
        if self._request.parallel_tool_calls is False:
            calls = calls[:1]
        return [tool_call(f"call_{self._generations.tasks[index].id}{n}", call) for n, call in enumerate(calls)][first:]

    def _finish_reason(self, done: dict[str, Any], *, has_calls: bool) -> str:
        reason = str(done["finish_reason"])
        return "tool_calls" if has_calls and reason == "stop" else reason

    def chunks(self, index: int, event: GenerationEvent) -> Iterator[dict[str, Any]]:
        if index not in self._begun:
            self._begun.add(index)
            yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
        if event.name == "done":
            reason = self._finish_reason(event.data, has_calls=bool(self._calls[index]))
            yield self._chunk(index, {}, finish_reason=reason)
            return
        num_before = len(self._calls[index])
        self._calls[index] += event.data.get("tool_calls", [])
        calls = self._numbered(index, self._calls[index], num_before)
        delta: dict[str, Any] = {"content": event.data["text"]}
        if calls:
            delta["tool_calls"] = [{"index": n, **call} for n, call in enumerate(calls, num_before)]
        yield self._chunk(index, delta, tokens=event.data.get("tokens", []))

    def last(self, texts: Sequence[GeneratedText]) -> Iterator[dict[str, Any]]:
        if self._request.includes_usage:
            yield {**self._base("chat.completion.chunk"), "choices": [], "usage": self._usage(texts)}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        tokens: Sequence[dict[str, Any]] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        logprobs = self._logprobs(tokens) if tokens else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._request.includes_usage else {}
        return {**self._base("chat.completion.chunk"), "choices": [choice], **usage}

    def _base(self, kind: str) -> dict[str, Any]:
        return self._generations.base("chatcmpl-", kind)

    def _usage(self, texts: Sequence[GeneratedText]) -> dict[str, int]:
        return generations.usage(texts, self._request.n or 1)

    def _logprobs(self, tokens: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        if not self._request.logprobs:
            return None
        return {"content": chat_logprobs(tokens), "refusal": None}


def chat_logprobs(tokens: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities, and those of the alternatives."""
    return [
        {**_probability(token), "top_logprobs": [_probability(other) for other in token["top"]]} for token in tokens
    ]


def _probability(token: dict[str, Any]) -> dict[str, Any]:
    return {"token": token["text"], "bytes": token["bytes"], "logprob": token["logprob"]}


# ---- the route ------------------------------------------------------------------------------------------------------


@router.post("/chat/completions")
async def create(principal: Submitter, body: ChatRequest) -> Response:
    """Answer a conversation, at once or as a stream."""
    generations.refuse_unsupported(body, UNSUPPORTED)
    if any(kind != "text" for kind in body.modalities or []):
        raise unsupported("modalities", _("Only text can be generated here."))
    fields = body.task_fields()
    renamed = renamed_fields(fields, "messages", "response_format")
    started = await generations.start(principal, body, [fields], renamed)
    return GenerationResponse(started.tasks, ChatFormat(body, started), is_stream=bool(body.stream), renamed=renamed)
