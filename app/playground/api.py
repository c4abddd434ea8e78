"""JSON route of the playground: generates text, complete or as a stream of server-sent events."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.core.errors import PanelError
from app.core.formatting import json_text
from app.core.principal import Principal
from app.playground import failures, service
from app.playground.deployments import calls
from app.playground.deployments.calls import Call
from app.playground.schemas import GenerateAnswer, GenerateRequest, GenerationTask
from app.web.auth import Submitter
from app.web.idempotency import ApiRoute
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["playground"])

_STREAM = (
    "With `stream`, server-sent events: `waiting` {position, message}, `start` {seed}, `loading` {percent} "
    "while the model is loaded, `piece` {text, num_tokens} and with top_logprobs {tokens}, and at the end `done` "
    "{finish_reason, num_tokens, tokens_per_second, seed} or `failure` {code, message}."
)


@router.post(
    "/generate",
    summary="Continue a prompt with a checkpoint",
    description="Disconnect to stop. The same seed and settings give the same text. " + _STREAM,
    response_model=GenerateAnswer,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **errors(
            *("checkpoint_unknown", "prompt_and_messages", "prompt_too_large", "deployment_limit"),
            *failures.GENERATION_CODES,
        ),
    },
)
async def generate(request: Request, body: GenerateRequest, principal: Submitter) -> Any:
    task = await to_thread.run_sync(enqueue, principal, body)
    if body.stream:
        return EventSourceResponse(_events(task), ping=15, sep="\n")
    return await collect_while_connected(request, task)


def enqueue(principal: Principal, body: GenerateRequest) -> GenerationTask:
    """Check a request and enqueue it. Raises PanelError."""
    with calls.placing() as session:
        task = service.begin(session, principal=principal, request=body)
    service.enqueue(task)
    return task


async def _events(task: GenerationTask) -> AsyncIterator[ServerSentEvent]:
    async with aclosing(service.follow(task)) as events:
        async for event in events:
            yield ServerSentEvent(json_text(event.data), event=event.name, sep="\n")


async def collect_while_connected(request: Request, task: GenerationTask, request_call: Call | None = None) -> Any:
    """The result of `service.collect`, or an empty 204 response if the client disconnects, which stops the generation.

    Raises PanelError for a failure.
    """
    answer: Any = Response(status_code=204)
    failure: PanelError | None = None
    # A task group repeats its cancellation: a single cancel can get lost in a read that ends at the same moment.
    async with anyio.create_task_group() as group:
        group.start_soon(cancel_when_disconnected, request, group.cancel_scope)
        try:
            answer = await service.collect(task, request_call)
        except PanelError as error:
            failure = error  # raised below: the group would wrap it in an ExceptionGroup
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return answer


async def cancel_when_disconnected(request: Request, scope: anyio.CancelScope) -> None:
    """Cancel the scope when the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass  # the end of a body that was read already
    scope.cancel()
