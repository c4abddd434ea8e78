"""What the endpoints that generate texts have in common: their fields, their tasks, and how answers are sent.

A request for n texts is n generations, each with a seed of its own. Their events are merged as they arrive. The status
of the answer is decided by the first event that says something, so that a refused prompt is an error 400 even where a
stream was asked for; what fails later is an error inside the stream.
"""

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from app.core.errors import FieldError, PanelError, bad_field
from app.core.formatting import json_text
from app.core.i18n import _
from app.core.model_base import new_id
from app.core.principal import Principal
from app.openai import models
from app.playground import failures, service
from app.playground.api import cancel_when_disconnected
from app.playground.deployments import calls
from app.playground.deployments.calls import Call
from app.playground.schemas import MAX_CONTEXT, GenerationTask
from app.playground.service import GenerationEvent
from app.web.openai_errors import openai_error

MAX_CHOICES = 8  # texts of one prompt
MAX_TEXTS = 32  # of one request
# A stream whose texts wait longer begins before it is known whether they can be generated: no proxy waits much longer.
FIRST_SECONDS = 10.0
PING_SECONDS = 15
FIELDS = {"checkpoint": "model"}  # of our services, as they are called here


# ---- requests -------------------------------------------------------------------------------------------------------


def _strings(value: Any) -> Any:
    """One string as a list, and null as an empty one."""
    return [] if value is None else [value] if isinstance(value, str) else value


class StreamOptions(BaseModel):
    """What a stream tells beside its texts."""

    include_usage: bool | None = None


class GenerationRequest(BaseModel):
    """The fields of all requests that generate texts. Null is the default; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    model: Annotated[str, Field(min_length=1, max_length=300)]
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=-1, le=1_000)] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    repetition_penalty: Annotated[float | None, Field(gt=0, le=10)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    logit_bias: Annotated[
        dict[Annotated[int, Field(ge=0, le=MAX_CONTEXT)], Annotated[float, Field(ge=-100, le=100)]] | None,
        Field(max_length=1_024),
    ] = None
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]], BeforeValidator(_strings), Field(max_length=8)
    ] = []
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self) -> dict[str, Any]:
        """The fields of GenerationTask that say how tokens are chosen: by default as the model has them."""
        fields: dict[str, Any] = {
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            **{name: getattr(self, name) for name in _SAMPLING if getattr(self, name) is not None},
        }
        # 0 is the likeliest token only, and -1 of other servers is all tokens.
        return {**fields, "top_p": max(fields["top_p"], 1e-9), "top_k": max(fields["top_k"], 0)}


_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("logit_bias", "stop"),
)


def unsupported(name: str, message: str) -> PanelError:
    """The error for a request that asks for something that is not supported here."""
    return bad_field(name, "unsupported_parameter", message)


def refuse_unsupported(request: BaseModel, names: Sequence[str]) -> None:
    """Raise PanelError if the request has a value in one of these fields, which change what it means."""
    for name in names:
        if getattr(request, name):
            raise unsupported(name, _("{field} is not supported here. Leave it out.", field=name))


# ---- tasks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Generations:
    """The generations of one request, in the order of its answer."""

    model: models.Model
    tasks: list[GenerationTask]
    created: int = field(default_factory=lambda: int(time.time()))

    def base(self, prefix: str, kind: str) -> dict[str, Any]:
        """The fields that all objects of an answer share. The fingerprint is the ID of the weights."""
        return {
            "id": f"{prefix}{self.tasks[0].id}",
            "object": kind,
            "created": self.created,
            "model": self.model.id,
            "system_fingerprint": f"fp_{self.model.source_id}",
        }


async def start(
    principal: Principal, request: GenerationRequest, prompts: Sequence[dict[str, Any]], renamed: dict[str, str]
) -> Generations:
    """Enqueue the generations of prompts, each given by fields of GenerationTask. `renamed` says what the fields of
    our services are called in the request. Raises PanelError.
    """
    return await to_thread.run_sync(_start, principal, request, prompts, renamed)


def _start(
    principal: Principal, request: GenerationRequest, prompts: Sequence[dict[str, Any]], renamed: dict[str, str]
) -> Generations:
    try:
        with calls.placing() as session:
            generations = _prepared(session, principal, request, prompts)
        service.enqueue(*generations.tasks)
    except PanelError as error:
        raise as_openai(error, renamed) from None
    return generations


def _prepared(
    session: Session, principal: Principal, request: GenerationRequest, prompts: Sequence[dict[str, Any]]
) -> Generations:
    model = models.resolve(session, principal=principal, name=request.model)
    fields = [{**request.sampling(), **prompt, "stream": bool(request.stream)} for prompt in prompts]
    tasks: list[GenerationTask] = []
    for first in service.prepare(session, principal=principal, model_id=model.source_id, prompts=fields):
        for _number in range(request.n or 1):
            id_ = first.id if not tasks else new_id()
            seed = first.seed if request.seed is None else request.seed
            tasks.append(first.model_copy(update={"id": id_, "seed": derived_seed(seed, len(tasks))}))
    return Generations(model, tasks)


def derived_seed(seed: int, index: int) -> int:
    """The seed of a text of a request: that of the request for the first one, if it is one of ours."""
    if index == 0 and 0 <= seed < 2**31:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=4).digest()) >> 1


def as_openai(error: PanelError, renamed: dict[str, str]) -> PanelError:
    """An error of our services as clients of OpenAI expect it: a full queue is a limit of rate, and other overload is
    worth repeating the request.
    """
    names = {**FIELDS, **renamed}
    fields = [FieldError(names.get(one.field, one.field), one.message) for one in error.fields]
    status = 429 if error.code == "line_full" else error.status
    headers = {**error.headers, **({"x-should-retry": "true"} if status in (429, 503) else {})}
    return replace(error, status=status, fields=fields, headers=headers)


# ---- answers --------------------------------------------------------------------------------------------------------


@dataclass
class GeneratedText:
    """A text that was generated."""

    text: str = ""
    tokens: list[dict[str, Any]] = field(default_factory=list)  # GeneratedToken
    calls: list[dict[str, Any]] = field(default_factory=list)  # GeneratedToolCall
    done: dict[str, Any] = field(default_factory=dict)  # the data of the last event

    def add(self, event: GenerationEvent) -> None:
        """Add an event."""
        if event.name == "piece":
            self.text += event.data.get("text", "")
            tokens = event.data.get("tokens", [])
            if event.data.get("is_prompt") and tokens:
                tokens[0]["logprob"] = None  # nothing comes before it
            self.tokens += tokens
            self.calls += event.data.get("tool_calls", [])
        elif event.name == "done":
            self.done = event.data


class AnswerFormat(ABC):
    """How an endpoint says what was generated."""

    @abstractmethod
    def complete(self, texts: Sequence[GeneratedText]) -> dict[str, Any]:
        """The answer that is no stream."""

    def first(self) -> Iterator[dict[str, Any]]:
        """What a stream begins with."""
        yield from ()

    @abstractmethod
    def chunks(self, index: int, event: GenerationEvent) -> Iterator[dict[str, Any]]:
        """What a stream says of a `piece` or `done` of a text."""

    @abstractmethod
    def last(self, texts: Sequence[GeneratedText]) -> Iterator[dict[str, Any]]:
        """What a stream says at its end."""

    def failure(self, error: PanelError) -> Iterator[dict[str, Any]]:
        """What a stream says of a failure, which ends it."""
        yield {"error": openai_error(error)}

    def event(self, chunk: dict[str, Any]) -> ServerSentEvent:
        """A chunk as an event."""
        return ServerSentEvent(json_text(chunk), sep="\n")

    def end(self) -> Iterator[ServerSentEvent]:
        """What follows the last chunk of a stream that did not fail."""
        yield ServerSentEvent("[DONE]", sep="\n")


def usage(texts: Sequence[GeneratedText], num_choices: int) -> dict[str, int]:
    """The number of tokens. A prompt counts once, however many texts follow it."""
    num_prompt = sum(text.done["num_prompt_tokens"] for text in texts[::num_choices])
    num_generated = sum(text.done["num_tokens"] for text in texts)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_generated,
        "total_tokens": num_prompt + num_generated,
    }


Events = MemoryObjectReceiveStream[tuple[int, GenerationEvent]]


class GenerationResponse(Response):
    """Sends what is generated, as one object or as a stream. A client that disconnects stops the generations."""

    def __init__(
        self, tasks: Sequence[GenerationTask], answer: AnswerFormat, *, is_stream: bool, renamed: dict[str, str]
    ) -> None:
        super().__init__()
        self._tasks = tasks
        self._answer = answer
        self._is_stream = is_stream
        self._renamed = renamed
        self._texts = [GeneratedText() for _ in tasks]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises PanelError for a failure before anything was sent."""
        response, failure = Response(status_code=204), None
        # A task group repeats its cancellation: a single cancel can get lost in a read that ends at the same moment.
        async with anyio.create_task_group() as group:
            writing, events = anyio.create_memory_object_stream[tuple[int, GenerationEvent]](64)
            group.start_soon(_forward_all, self._tasks, writing)
            watching = anyio.CancelScope()
            group.start_soon(_watch, Request(scope, receive), watching, group.cancel_scope)
            with events:
                try:
                    response = await (self._streamed(events) if self._is_stream else self._unstreamed(events))
                    watching.cancel()
                    await response(scope, receive, send)
                    return
                except PanelError as error:
                    failure = error  # raised below: the group would wrap it in an ExceptionGroup
                finally:
                    group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        await response(scope, receive, send)  # nobody reads it

    async def _unstreamed(self, events: Events) -> Response:
        async for index, event in events:
            self._texts[index].add(self._checked(event))
        return JSONResponse(self._answer.complete(self._texts))

    async def _streamed(self, events: Events) -> Response:
        first: list[tuple[int, GenerationEvent]] = []
        with anyio.move_on_after(FIRST_SECONDS), suppress(anyio.EndOfStream):
            index, event = await events.receive()
            first.append((index, self._checked(event)))
        return EventSourceResponse(self._lines(first, events), ping=PING_SECONDS, sep="\n")

    async def _lines(
        self, first: Sequence[tuple[int, GenerationEvent]], events: Events
    ) -> AsyncIterator[ServerSentEvent]:
        for chunk in self._answer.first():
            yield self._answer.event(chunk)
        try:
            for index, event in first:
                for chunk in self._chunks(index, event):
                    yield self._answer.event(chunk)
            async for index, event in events:
                for chunk in self._chunks(index, event):
                    yield self._answer.event(chunk)
        except PanelError as error:
            for chunk in self._answer.failure(error):
                yield self._answer.event(chunk)
            return
        for chunk in self._answer.last(self._texts):
            yield self._answer.event(chunk)
        for line in self._answer.end():
            yield line

    def _chunks(self, index: int, event: GenerationEvent) -> Iterator[dict[str, Any]]:
        self._texts[index].add(self._checked(event))
        return self._answer.chunks(index, event)

    def _checked(self, event: GenerationEvent) -> GenerationEvent:
        """The event. Raises PanelError for a failure."""
        if event.name == "failure":
            raise as_openai(failures.error(event.data["code"], event.data["values"]), self._renamed)
        return event


Sink = MemoryObjectSendStream[tuple[int, GenerationEvent]]


async def _forward_all(tasks: Sequence[GenerationTask], sink: Sink) -> None:
    """Put what is generated into a stream, which ends once the request has been recorded, as one call."""
    call = Call(tasks[0])
    async with sink, call.recorded(), anyio.create_task_group() as group:
        for index, task in enumerate(tasks):
            group.start_soon(_forward, index, task, call, sink)


async def _forward(index: int, task: GenerationTask, call: Call, sink: Sink) -> None:
    async with aclosing(service.follow(task, call)) as events:
        async for event in events:
            if event.name in ("piece", "done", "failure"):
                await sink.send((index, event))


async def _watch(request: Request, watching: anyio.CancelScope, stopped: anyio.CancelScope) -> None:
    """Cancel `stopped` when the client disconnects, until `watching` is cancelled."""
    with watching:
        await cancel_when_disconnected(request, stopped)
