"""Calls of OpenAI's client, the same for the synchronous and the asynchronous one; each answer is validated."""

import asyncio
import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.app.client import scripted_server
from tests.app.client.scripted_server import ScriptedServer


@dataclass
class ClientCalls:
    """A client. `loop` runs the asynchronous one."""

    client: Any
    loop: asyncio.AbstractEventLoop | None

    def __call__(self, method: str, /, *arguments: Any, **options: Any) -> Any:
        """The answer of a method such as `files.create`, which has the types that the client says it has."""
        answer = operator.attrgetter(method)(self.client)(*arguments, **options)
        if self.loop is not None:
            answer = self.loop.run_until_complete(answer)
        validate(answer)
        return answer

    def pages(self, method: str, /, *arguments: Any, **options: Any) -> list[Any]:
        """All items of a list, page after page."""
        pages = operator.attrgetter(method)(self.client)(*arguments, **options)
        items = list(pages) if self.loop is None else self.loop.run_until_complete(_collect(pages))
        for item in items:
            validate(item)
        return items


async def _collect(pages: Any) -> list[Any]:
    return [item async for item in pages]


def validate(answer: Any) -> None:
    """The client builds objects without validation: a field that is missing or of another type must not pass.

    Only `pausing` and `paused`, which the service answers, are missing in the client's type of a job.
    """
    if isinstance(getattr(answer, "data", None), list):
        for item in answer.data:
            validate(item)
    elif hasattr(answer, "model_validate"):
        values = answer.model_dump(warnings=False)
        if values.get("status") in ("pausing", "paused"):
            values["status"] = "running"
        type(answer).model_validate(values)


@contextmanager
def client_calls(openai: Any, address: str, key: str, *, is_async: bool, **options: Any) -> Iterator[ClientCalls]:
    """A client of a server, which repeats a request as often as usual."""
    settings = {"base_url": f"{address}/v1", "api_key": key, **options}
    if not is_async:
        with openai.OpenAI(**settings) as client:
            yield ClientCalls(client, None)
        return
    loop = asyncio.new_event_loop()
    client = openai.AsyncOpenAI(**settings)
    try:
        yield ClientCalls(client, loop)
    finally:
        loop.run_until_complete(client.close())
        loop.close()


def losing_answers(server: str, count: int) -> AbstractContextManager[ScriptedServer]:
    """A server before the server, which passes requests on and breaks the connection in place of the first answers."""

    def passed_on(request: Any) -> httpx.Response:
        sent = request.script.requests[-1]
        return httpx.request(sent.method, f"{server}{sent.path}", headers=sent.headers, content=sent.body, timeout=240)

    def lose(request: Any) -> None:
        assert passed_on(request).status_code == 200
        scripted_server.broken(request)

    def tell(request: Any) -> None:
        response = passed_on(request)
        scripted_server.answer(response.status_code, response.content, content_type="application/json")(request)

    return scripted_server.serving(*[lose] * count, tell)
