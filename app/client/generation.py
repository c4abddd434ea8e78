"""Generated text: complete, or as a stream of its pieces."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

import httpx2

from .errors import GenerationFailed
from .shapes import GenerationInfo
from .transport import Transport

READ_SECONDS = 330.0  # a request may wait in the queue for five minutes


class GenerationOptions(TypedDict, total=False):
    """How a text is generated; what is left out has the server's default. The OpenAPI document says what each means."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    top_logprobs: int
    seed: int
    stop: Sequence[str]
    prefill: str


class Generator:
    """A model that continues prompts and answers conversations."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def complete(self, request: Mapping[str, Any]) -> GenerationInfo:
        """The complete text for a body of POST /api/v1/generate."""
        text, tokens = "", []
        with self.stream(request) as events:
            for name, data in events:
                if name == "piece":
                    text += data["text"]
                    tokens += data.get("tokens", [])
                elif name == "done":
                    return GenerationInfo.model_validate({"text": text, "tokens": tokens or None, **data})
        raise GenerationFailed("request_lost", "")

    @contextmanager
    def stream(self, request: Mapping[str, Any]) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
        """The events of a generation: waiting, start, piece and done. Leaving the block stops the generation.

        Raises GenerationFailed for the event failure, and ServerUnreachable if the connection breaks.
        """
        body = {**request, "stream": True}
        with self._transport.events("POST", "/generate", body=body, read_seconds=READ_SECONDS) as events:
            yield self._checked(events)

    def _checked(self, events: Iterator[httpx2.ServerSentEvent]) -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            for event in events:
                data = json.loads(event.data)
                if event.event == "failure":
                    raise GenerationFailed(data["code"], data["message"])
                yield event.event, data
        except httpx2.TransportError as error:
            raise self._transport.unreachable(error) from error


def request_body(
    model_id: str, prompt: str, messages: Sequence[Mapping[str, str]] | None, options: GenerationOptions
) -> dict[str, Any]:
    """The body of POST /api/v1/generate."""
    if messages is None:
        return {"checkpoint": model_id, "prompt": prompt, **options}
    return {"checkpoint": model_id, "messages": [dict(message) for message in messages], **options}
