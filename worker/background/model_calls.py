"""Asks a model for an answer: one behind an API like OpenAI's, or one of this installation."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, Protocol

import anyio
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from app.core import addresses, db
from app.core.errors import PanelError
from app.core.names import printable_text
from app.core.synthetic_models import ModelEndpoint
from app.core.synthetic_shapes import RecordSettings
from app.core.version import VERSION
from app.playground import service as playground
from app.playground.deployments import calls
from app.playground.schemas import GenerationTask
from app.synthetic import prompts
from app.synthetic.endpoints import RULES
from app.synthetic.progress import WritingAssignment

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 600.0  # of an endpoint, until it has answered
MAX_ANSWER_BYTES = 2**20  # 100,000 tokens, the most that may be asked for, have fewer
MAX_COUNT = 10**9  # of tokens that an endpoint may say an answer took
REASON_CHARACTERS = 300
LOOK_SECONDS = 0.2
CHARACTERS_PER_TOKEN = 3  # of an estimate before a request, and of an answer without a count
# Answers of endpoints that concern the endpoint and not the request: no other request will do better.
FATAL = (401, 402, 403, 404, 405)
LATER = (408, 409, 425, 429)  # besides all that begin with 5
# Of a model without a chat template, which then continues the prompt.
WITHOUT_CHAT = ("chat_template_missing", "chat_template_unusable", "messages_unfit")


class Later(Exception):
    """The model cannot answer now. `seconds` is how long it asks to be left alone, if it says so."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class RequestRejected(Exception):
    """The model will not answer this request; if `is_fatal`, no other either."""

    def __init__(self, why: str, *, is_fatal: bool = False) -> None:
        super().__init__(why)
        self.is_fatal = is_fatal


class Stopped(Exception):
    """The generation has ended meanwhile."""


@dataclass(frozen=True)
class WrittenAnswer:
    """What a model wrote, and the tokens that it took."""

    text: str
    is_cut: bool
    num_prompt_tokens: int
    num_tokens: int


class RecordWriter(Protocol):
    """Who can be asked."""

    def ask(self, prompt: str, seed: int) -> WrittenAnswer:
        """The answer to a prompt. Raises Later, RequestRejected or Stopped."""
        ...

    def stop(self) -> None:
        """End all requests."""
        ...


def model_of(assignment: WritingAssignment) -> RecordWriter:
    """The model that an assignment names."""
    if assignment.endpoint is not None:
        return EndpointModel(assignment.endpoint, assignment.generation.settings)
    return OwnModel(assignment)


class EndpointModel:
    """A model behind an API like OpenAI's. The threads of a generation share it."""

    def __init__(self, endpoint: ModelEndpoint, settings: RecordSettings) -> None:
        self._endpoint = endpoint
        self._parameters: dict[str, Any] = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
        schema = prompts.schema(settings, with_counts=False)
        if schema is not None:
            form = {"name": "records", "strict": True, "schema": schema}
            self._parameters["response_format"] = {"type": "json_schema", "json_schema": form}
        self._takes_seed = True
        self._connections: set[HTTPConnection] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def ask(self, prompt: str, seed: int) -> WrittenAnswer:
        """The answer to a prompt. Parameters that the endpoint refuses are left out, from then on in all requests."""
        parameters = {**self._parameters, "seed": seed} if self._takes_seed else self._parameters
        while True:
            try:
                answer = self._ask(prompt, parameters)
            except RequestRejected as refused:
                fewer = None if refused.is_fatal else without_refused(parameters, str(refused))
                if fewer is None:
                    raise
                parameters = fewer
            else:
                self._takes_seed = "seed" in parameters
                self._parameters = {name: value for name, value in parameters.items() if name != "seed"}
                return answer

    def stop(self) -> None:
        """Cut all connections."""
        with self._lock:
            self._is_stopped = True
            for connection in self._connections:
                addresses.cut(connection)

    def _ask(self, prompt: str, parameters: dict[str, Any]) -> WrittenAnswer:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": self._endpoint.model, "messages": messages, **parameters}
        try:
            status, headers, content = self._post(json.dumps(body).encode())
        except PanelError as error:
            raise RequestRejected(error.message, is_fatal=True) from None
        except (OSError, HTTPError, HTTPException) as error:
            if self._is_stopped:
                raise Stopped from None
            raise Later(str(error)[:REASON_CHARACTERS] or type(error).__name__) from None
        if status != 200:
            raise _refusal(status, headers, content)
        return _answer(prompt, content)

    def _post(self, body: bytes) -> tuple[int, Any, bytes]:
        """Status, headers and body of the answer to a request. Redirects are not followed."""
        target = addresses.resolve(f"{self._endpoint.base_url}/chat/completions", RULES)
        headers = {
            "Host": target.host_header,
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"Athanor/{VERSION}",
        }
        if self._endpoint.api_key:
            headers["Authorization"] = f"Bearer {self._endpoint.api_key}"
        with self._connection(target) as connection:
            connection.connect()
            connection.sock.settimeout(REQUEST_SECONDS)
            if self._is_stopped:  # meanwhile, when there was no socket to cut
                raise Stopped
            connection.request("POST", target.path, body, headers, preload_content=False)
            response = connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
            if len(content) > MAX_ANSWER_BYTES:
                raise RequestRejected(f"The answer has more than {MAX_ANSWER_BYTES} bytes. Ask for fewer tokens.")
            return response.status, response.headers, content

    @contextmanager
    def _connection(self, target: addresses.DeliveryAddress) -> Iterator[HTTPConnection]:
        connection = addresses.connect(target, CONNECT_SECONDS)
        timer = threading.Timer(REQUEST_SECONDS, addresses.cut, [connection])
        timer.daemon = True
        with self._lock:
            if self._is_stopped:
                raise Stopped
            self._connections.add(connection)
        timer.start()
        try:
            yield connection
        finally:
            timer.cancel()
            with self._lock:
                self._connections.discard(connection)
            connection.close()


def without_refused(parameters: dict[str, Any], why: str) -> dict[str, Any] | None:
    """The parameters without one that an endpoint refused, by its reason; None if none is left to leave out.

    A reason that names none of them may be that the endpoint takes no JSON schema.
    """
    if "max_tokens" in parameters and "max_completion_tokens" in why:  # what newer models of OpenAI call it
        renamed = {"max_completion_tokens": parameters["max_tokens"]}
        return {**{name: value for name, value in parameters.items() if name != "max_tokens"}, **renamed}
    named = next((name for name in ("temperature", "seed") if name in parameters and name in why), "response_format")
    if named not in parameters:
        return None
    return {name: value for name, value in parameters.items() if name != named}


def _refusal(status: int, headers: Any, content: bytes) -> Exception:
    """What an answer with an error means."""
    why = f"HTTP {status}: {_reason(content)}"
    if status in LATER or status >= 500:
        return Later(why, _retry_after(headers.get("Retry-After")))
    return RequestRejected(why, is_fatal=status in FATAL or status < 400)


def _reason(content: bytes) -> str:
    """The sentence of an error, as OpenAI's API and its likes answer it."""
    text = content[:4000].decode(errors="replace")
    try:
        error = json.loads(content)
        error = error.get("error", error.get("detail", error)) if isinstance(error, dict) else error
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        pass
    return printable_text(" ".join(text.split())[:REASON_CHARACTERS])


def _retry_after(value: str | None) -> float | None:
    """The seconds of a Retry-After header, which has a number or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - db.now()).total_seconds())
    except (ValueError, TypeError):
        return None


def _answer(prompt: str, content: bytes) -> WrittenAnswer:
    """Read an answer. Raises RequestRejected for one of another shape."""
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        text = choice["message"]["content"] or ""
        usage = answer.get("usage") or {}
        counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        if not isinstance(text, str):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise RequestRejected(f"The answer is no chat completion: {_reason(content)}") from None
    estimates = [estimated_tokens(prompt), estimated_tokens(text)]
    tokens = [
        count if type(count) is int and 0 <= count <= MAX_COUNT else estimate
        for count, estimate in zip(counts, estimates, strict=True)
    ]
    return WrittenAnswer(text, choice.get("finish_reason") == "length", *tokens)


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has. In Chinese a character is about one."""
    num_bytes = len(text.encode("utf-8", "replace"))
    return num_bytes // CHARACTERS_PER_TOKEN + 1


class OwnModel:
    """A deployment, a checkpoint or a base model of this installation."""

    def __init__(self, assignment: WritingAssignment) -> None:
        self._principal = assignment.principal
        self._model_id = assignment.generation.model
        self._settings = assignment.generation.settings
        self._schema = prompts.schema(self._settings, with_counts=True)
        self._can_chat = True
        self._stop = threading.Event()

    def ask(self, prompt: str, seed: int) -> WrittenAnswer:
        """The answer to a prompt; of a model without a chat template, how it continues the prompt."""
        can_chat = self._can_chat
        try:
            return self._ask(prompt, seed, can_chat)
        except PanelError as error:
            if not can_chat or error.code not in WITHOUT_CHAT:
                raise _own_refusal(error) from None
        self._can_chat = False
        try:
            return self._ask(prompt, seed, False)
        except PanelError as error:
            raise _own_refusal(error) from None

    def stop(self) -> None:
        """End all generations."""
        self._stop.set()

    def _ask(self, prompt: str, seed: int, can_chat: bool) -> WrittenAnswer:
        fields: dict[str, Any] = {
            "seed": seed,
            "json_schema": self._schema,
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
            "top_k": 0,
            **({"messages": [{"role": "user", "content": prompt}]} if can_chat else {"prompt": prompt}),
        }
        with calls.placing() as session:
            (task,) = playground.prepare(session, principal=self._principal, model_id=self._model_id, prompts=[fields])
        playground.enqueue(task)
        result = anyio.run(self._collect, task)
        return WrittenAnswer(
            result["text"], result["finish_reason"] == "length", result["num_prompt_tokens"], result["num_tokens"]
        )

    async def _collect(self, task: GenerationTask) -> dict[str, Any]:
        """The answer of a generation. Raises PanelError, or Stopped."""
        result: dict[str, Any] | None = None
        failure: PanelError | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, group.cancel_scope)
            try:
                result = await playground.collect(task)
            except PanelError as error:  # raised below: the group would wrap it
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if result is None:
            raise Stopped
        return result

    async def _watch(self, scope: anyio.CancelScope) -> None:
        while not self._stop.is_set():
            await anyio.sleep(LOOK_SECONDS)
        scope.cancel()


def _own_refusal(error: PanelError) -> Exception:
    """What an error of our own models means."""
    if error.status == 429 or error.status >= 500:
        seconds = error.headers.get("Retry-After")
        return Later(error.message, float(seconds) if seconds else None)
    return RequestRejected(error.message, is_fatal=error.status in (404, 409))
