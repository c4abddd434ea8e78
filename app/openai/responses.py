"""`POST /v1/responses`: the newer endpoint for conversations, for texts and functions. Nothing is stored, so that each
request holds its whole conversation.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, BeforeValidator, Field
from sse_starlette import ServerSentEvent

from app.core.errors import PanelError, bad_field
from app.core.formatting import json_text
from app.core.i18n import _
from app.openai import generations
from app.openai.chat import RequestMessage, chat_logprobs, prompt_message, renamed_fields
from app.openai.generations import (
    AnswerFormat,
    GeneratedText,
    GenerationRequest,
    GenerationResponse,
    Generations,
    unsupported,
)
from app.openai.tools import CalledFunction, CalledTool, Tool, ToolFunction, tool_fields
from app.playground.schemas import MAX_CONTEXT
from app.playground.service import GenerationEvent
from app.web.auth import Submitter
from app.web.json_body import StrictRoute
from app.web.openai_errors import openai_error

router = APIRouter(route_class=StrictRoute)

UNSUPPORTED = ("previous_response_id", "conversation", "background", "prompt")


# ---- the request ----------------------------------------------------------------------------------------------------


class InputItem(BaseModel):
    """A message, a call of a function, or its result. Which fields there are depends on the type."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Any = None
    call_id: Annotated[str | None, Field(max_length=200)] = None
    name: Annotated[str | None, Field(max_length=200)] = None
    arguments: str | None = None
    output: Any = None

    def message(self) -> RequestMessage | None:
        """It as a message of a conversation; None for the thoughts of another model."""
        if self.type == "function_call":
            function = CalledFunction(name=self.name or "", arguments=self.arguments or "{}")
            return RequestMessage(role="assistant", tool_calls=[CalledTool(id=self.call_id, function=function)])
        if self.type == "function_call_output":
            return RequestMessage(role="tool", content=self.output, tool_call_id=self.call_id)
        return RequestMessage(role=self.role or "user", content=self.content) if self.type == "message" else None


class TextFormat(BaseModel):
    """What the text of the answer consists of."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None

    def schema_of_text(self) -> dict[str, Any] | None:
        """The JSON schema of the text; None for any text. Raises PanelError if it is missing."""
        if self.type != "json_schema":
            return {"type": "object"} if self.type == "json_object" else None
        if self.json_schema is None:
            name = "text.format.schema"
            raise bad_field(name, "request_invalid", _("{field} is missing.", field=name))
        return self.json_schema


class TextSettings(BaseModel):
    """Of the text of the answer."""

    format: TextFormat = TextFormat()


class _ToolType(BaseModel):
    type: Literal["function"]


class FunctionTool(ToolFunction, _ToolType):
    """A function that the model may call."""


def _items(value: Any) -> Any:
    """A text as the message of a user."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class ResponsesRequest(GenerationRequest):
    """What is asked."""

    input: Annotated[list[InputItem], BeforeValidator(_items), Field(min_length=1, max_length=1_000)]
    instructions: str | None = None
    max_output_tokens: Annotated[int | None, Field(ge=1, le=MAX_CONTEXT)] = None
    include: list[str] | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    text: TextSettings | None = None
    tools: Annotated[list[FunctionTool] | None, Field(max_length=128)] = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Any] | None = None
    previous_response_id: Any = None
    conversation: Any = None
    background: Any = None
    prompt: Any = None

    @property
    def has_logprobs(self) -> bool:
        """Whether log-probabilities are asked for."""
        return "message.output_text.logprobs" in (self.include or [])

    def task_fields(self) -> dict[str, Any]:
        """The fields of GenerationTask that say what is answered. Raises PanelError."""
        messages = [
            prompt_message(f"input.{number}", message)
            for number, item in enumerate(self.input)
            if (message := item.message()) is not None
        ]
        if self.instructions:
            messages.insert(0, {"role": "system", "content": self.instructions})
        return {
            "messages": messages,
            "max_tokens": self.max_output_tokens or MAX_CONTEXT,
            "top_logprobs": (self.top_logprobs or 0) if self.has_logprobs else None,
            "json_schema": self.text.format.schema_of_text() if self.text else None,
            **tool_fields([Tool(type="function", function=tool) for tool in self.tools or []], self.tool_choice),
        }


# ---- the answer -----------------------------------------------------------------------------------------------------


class ResponsesFormat(AnswerFormat):
    """An object `response`, or the events in which it comes about: a message, and then calls."""

    def __init__(self, request: ResponsesRequest, generations: Generations) -> None:
        self._request = request
        self._generations = generations
        self._id = generations.tasks[0].id
        self._number = -1  # of the event before
        self._text = GeneratedText()  # so far
        self._message_text = GeneratedText()  # of the message that the stream is in
        self._output: list[dict[str, Any]] = []  # items that the stream has completed
        self._is_in_message = False

    # ---- the object ----

    def complete(self, texts: Sequence[GeneratedText]) -> dict[str, Any]:
        text = texts[0]
        calls = [self._call(number, call) for number, call in enumerate(self._allowed(text.calls))]
        message = [] if calls and not text.text else [self._message(text)]
        return self._response(text, [*message, *calls])

    def _response(self, text: GeneratedText | None, output: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """The object; without a text, as it is while the text is generated."""
        request = self._request
        is_cut = text is not None and text.done["finish_reason"] == "length"
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._generations.created,
            "status": "in_progress" if text is None else "incomplete" if is_cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "model": self._generations.model.id,
            "output": list(output),
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": self._generations.tasks[0].temperature,
            "text": {"format": (request.text or TextSettings()).format.model_dump(by_alias=True, exclude_none=True)},
            "tool_choice": request.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in request.tools or []],
            "top_p": request.top_p or 1.0,
            "truncation": "disabled",
            "usage": None if text is None else _usage(text),
            **fields,
        }

    def _allowed(self, calls: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        return calls[:1] if self._request.parallel_tool_calls is False else calls

    def _message(self, text: GeneratedText | None) -> dict[str, Any]:
        """The message; without a text, its beginning."""
        is_cut = text is not None and text.done.get("finish_reason") == "length"
        return {
            "type": "message",
            "id": f"msg_{self._id}",
            "role": "assistant",
            "status": "in_progress" if text is None else "incomplete" if is_cut else "completed",
            "content": [] if text is None else [self._part(text)],
        }

    def _part(self, text: GeneratedText) -> dict[str, Any]:
        logprobs = chat_logprobs(text.tokens) if self._request.has_logprobs else []
        return {"type": "output_text", "text": text.text, "annotations": [], "logprobs": logprobs}

    def _call(self, number: int, call: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "function_call",
            "id": f"fc_{self._id}{number}",
            "call_id": f"call_{self._id}{number}",
            "name": call["name"],
            "arguments": call["arguments"],
            "status": "completed",
        }

    # ---- the events ----

    def first(self) -> Iterator[dict[str, Any]]:
        for name in ("created", "in_progress"):
            yield self._event(name, response=self._response(None, []))

    def chunks(self, index: int, event: GenerationEvent) -> Iterator[dict[str, Any]]:
        self._text.add(event)
        self._message_text.add(event)
        if event.name == "done":
            if self._is_in_message or not self._output:
                yield from self._opened_message()
                yield from self._closed_message()
            return
        if event.data["text"]:
            yield from self._opened_message()
            logprobs = chat_logprobs(event.data.get("tokens", [])) if self._request.has_logprobs else []
            yield self._part_event("output_text.delta", delta=event.data["text"], logprobs=logprobs)
        if event.data.get("tool_calls") and self._is_in_message:
            yield from self._closed_message()
        for number, call in enumerate(self._allowed(self._text.calls)):
            if number >= sum(item["type"] == "function_call" for item in self._output):
                yield from self._call_events(self._call(number, call))

    def _opened_message(self) -> Iterator[dict[str, Any]]:
        if not self._is_in_message:
            self._is_in_message = True
            yield self._event("output_item.added", output_index=len(self._output), item=self._message(None))
            yield self._part_event("content_part.added", part=self._part(GeneratedText()))

    def _closed_message(self) -> Iterator[dict[str, Any]]:
        part = self._part(self._message_text)
        yield self._part_event("output_text.done", text=part["text"], logprobs=part["logprobs"])
        yield self._part_event("content_part.done", part=part)
        yield self._item_done(self._message(self._message_text))
        self._message_text, self._is_in_message = GeneratedText(), False

    def _call_events(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        place = {"output_index": len(self._output)}
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield self._event("output_item.added", **place, item=begun)
        name, arguments = item["name"], item["arguments"]
        yield self._event("function_call_arguments.delta", **place, item_id=item["id"], delta=arguments)
        done = {"item_id": item["id"], "name": name, "arguments": arguments}
        yield self._event("function_call_arguments.done", **place, **done)
        yield self._item_done(item)

    def _item_done(self, item: dict[str, Any]) -> dict[str, Any]:
        event = self._event("output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        return event

    def last(self, texts: Sequence[GeneratedText]) -> Iterator[dict[str, Any]]:
        response = self._response(texts[0], self._output)
        yield self._event(response["status"], response=response)

    def failure(self, error: PanelError) -> Iterator[dict[str, Any]]:
        body = openai_error(error)
        reason = {"code": body["code"], "message": body["message"]}
        yield self._event("failed", response=self._response(None, self._output, status="failed", error=reason))

    def event(self, chunk: dict[str, Any]) -> ServerSentEvent:
        return ServerSentEvent(json_text(chunk), event=chunk["type"], sep="\n")

    def end(self) -> Iterator[ServerSentEvent]:
        yield from ()

    def _event(self, name: str, /, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": f"response.{name}", "sequence_number": self._number, **fields}

    def _part_event(self, name: str, /, **fields: Any) -> dict[str, Any]:
        place = {"item_id": f"msg_{self._id}", "output_index": len(self._output), "content_index": 0}
        return self._event(name, **place, **fields)


def _usage(text: GeneratedText) -> dict[str, Any]:
    num_tokens = generations.usage([text], 1)
    return {
        "input_tokens": num_tokens["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": num_tokens["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": num_tokens["total_tokens"],
    }


# ---- the route ------------------------------------------------------------------------------------------------------


@router.post("/responses")
async def create(principal: Submitter, body: ResponsesRequest) -> Response:
    """Answer a conversation, at once or as a stream of events."""
    generations.refuse_unsupported(body, UNSUPPORTED)
    if (body.n or 1) > 1:
        raise unsupported("n", _("A response has one text. Send several requests."))
    fields = body.task_fields()
    renamed = renamed_fields(fields, "input", "text.format")
    started = await generations.start(principal, body, [fields], renamed)
    answer = ResponsesFormat(body, started)
    return GenerationResponse(started.tasks, answer, is_stream=bool(body.stream), renamed=renamed)
