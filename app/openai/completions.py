"""`POST /v1/completions`: continues texts. The older of the two endpoints; base models have no other."""

import codecs
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field

from app.core.errors import bad_field
from app.core.i18n import _
from app.openai import generations
from app.openai.generations import (
    MAX_TEXTS,
    AnswerFormat,
    GeneratedText,
    GenerationRequest,
    GenerationResponse,
    Generations,
    unsupported,
)
from app.playground.schemas import MAX_CONTEXT
from app.playground.service import GenerationEvent
from app.web.auth import Submitter
from app.web.json_body import StrictRoute

router = APIRouter(route_class=StrictRoute)

DEFAULT_TOKENS = 16  # OpenAI's


# ---- the request ----------------------------------------------------------------------------------------------------


class CompletionRequest(GenerationRequest):
    """What is continued: a text, tokens of the model, or several of either."""

    prompt: Any = ""
    max_tokens: Annotated[int | None, Field(ge=0, le=MAX_CONTEXT)] = None
    logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None

    @property
    def num_choices(self) -> int:
        """The texts of each prompt."""
        return self.n or 1

    def task_fields(self) -> list[dict[str, Any]]:
        """The fields of GenerationTask for each prompt. Raises PanelError."""
        if self.best_of not in (None, self.num_choices):
            raise unsupported("best_of", _("best_of must be n: all texts are returned."))
        prompts = prompt_fields(self.prompt)
        if len(prompts) * self.num_choices > MAX_TEXTS:
            message = _("A request can ask for {n} texts at most. Send fewer prompts, or less for n.", n=MAX_TEXTS)
            raise bad_field("prompt", "request_invalid", message)
        shared = {
            "max_tokens": DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens,
            "top_logprobs": self.logprobs,
            "echo": bool(self.echo),
        }
        return [{**shared, **prompt} for prompt in prompts]


def prompt_fields(prompt: Any) -> list[dict[str, Any]]:
    """The fields of GenerationTask for a text, a list of texts, tokens or a list of those. Raises PanelError."""
    if prompt is None or isinstance(prompt, str):
        return [{"prompt": prompt or ""}]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(one, str) for one in prompt):
            return [{"prompt": one} for one in prompt]
        lists = prompt if all(isinstance(one, list) for one in prompt) else [prompt]
        if all(_are_tokens(ids) for ids in lists):
            return [{"prompt_ids": ids} for ids in lists]
    message = _("prompt must be a text, a list of texts, or tokens of the model.")
    raise bad_field("prompt", "request_invalid", message)


def _are_tokens(ids: list[Any]) -> bool:
    return bool(ids) and all(isinstance(number, int) and 0 <= number <= MAX_CONTEXT for number in ids)


# ---- the answer -----------------------------------------------------------------------------------------------------


class CompletionFormat(AnswerFormat):
    """Objects `text_completion`, whole and as chunks."""

    def __init__(self, request: CompletionRequest, generations: Generations) -> None:
        self._request = request
        self._base = generations.base("cmpl-", "text_completion")
        self._offsets = [TextOffsets() for _ in generations.tasks]  # of the stream

    def complete(self, texts: Sequence[GeneratedText]) -> dict[str, Any]:
        choices = [
            self._choice(index, text.text, text.tokens, TextOffsets(), text.done["finish_reason"])
            for index, text in enumerate(texts)
        ]
        return {**self._base, "choices": choices, "usage": generations.usage(texts, self._request.num_choices)}

    def chunks(self, index: int, event: GenerationEvent) -> Iterator[dict[str, Any]]:
        text, tokens = event.data.get("text", ""), event.data.get("tokens", [])
        choice = self._choice(index, text, tokens, self._offsets[index], event.data.get("finish_reason"))
        yield {**self._base, "choices": [choice], **({"usage": None} if self._request.includes_usage else {})}

    def last(self, texts: Sequence[GeneratedText]) -> Iterator[dict[str, Any]]:
        if self._request.includes_usage:
            yield {**self._base, "choices": [], "usage": generations.usage(texts, self._request.num_choices)}

    def _choice(
        self,
        index: int,
        text: str,
        tokens: Sequence[dict[str, Any]],
        offsets: "TextOffsets",
        finish_reason: str | None,
    ) -> dict[str, Any]:
        logprobs = None if self._request.logprobs is None else legacy_logprobs(tokens, offsets)
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}


class TextOffsets:
    """Where each token of a text begins, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def next(self, token: dict[str, Any]) -> int:
        """The place of the next token."""
        offset = self._offset
        self._offset += len(self._decoder.decode(bytes(token["bytes"])))
        return offset


def legacy_logprobs(tokens: Sequence[dict[str, Any]], offsets: TextOffsets) -> dict[str, Any]:
    """The log-probabilities of tokens as lists. The first token of an echoed prompt has none."""
    return {
        "tokens": [token_text(token) for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [_alternatives(token) for token in tokens],
        "text_offset": [offsets.next(token) for token in tokens],
    }


def _alternatives(token: dict[str, Any]) -> dict[str, float] | None:
    if token["logprob"] is None:
        return None
    return {token_text(other): other["logprob"] for other in reversed([*token["top"], token])}


def token_text(token: dict[str, Any]) -> str:
    """A token as text; as OpenAI writes it where its bytes are a part of a character only."""
    data = bytes(token["bytes"])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


# ---- the route ------------------------------------------------------------------------------------------------------


@router.post("/completions")
async def create(principal: Submitter, body: CompletionRequest) -> Response:
    """Continue texts, at once or as a stream."""
    generations.refuse_unsupported(body, ("suffix",))
    started = await generations.start(principal, body, body.task_fields(), {})
    answer = CompletionFormat(body, started)
    return GenerationResponse(started.tasks, answer, is_stream=bool(body.stream), renamed={})
