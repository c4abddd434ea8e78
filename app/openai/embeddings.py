"""`POST /v1/embeddings`: a vector of length 1 for each text, the mean of the model's last hidden states.

A request is one call of a deployment, however many tasks its texts are sent to the node in.
"""

import base64
import json
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.model_base import new_id
from app.core.principal import Principal
from app.openai import models
from app.openai.generations import as_openai, unsupported
from app.openai.models import Model
from app.playground import service
from app.playground.api import collect_while_connected
from app.playground.deployments import calls
from app.playground.deployments.calls import Call
from app.playground.inspection.schemas import MAX_TEXT_CHARACTERS, MAX_TEXTS
from app.playground.schemas import MAX_CONTEXT, GenerationTask
from app.web.auth import Submitter
from app.web.json_body import StrictRoute

router = APIRouter(route_class=StrictRoute)

RENAMED = {"text": "input", "logit_bias": "input"}  # the field of texts, and that of unknown tokens
MAX_INPUTS = 2_048

Input = str | list[int]  # a text, or its tokens


class EmbeddingsRequest(BaseModel):
    """The texts, or their tokens. Null is the default; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    model: Annotated[str, Field(min_length=1, max_length=300)]
    input: Any
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None

    def inputs(self) -> list[Input]:
        """The texts, each as such or as its tokens. Raises PanelError."""
        is_one = isinstance(self.input, str) or (isinstance(self.input, list) and _are_tokens(self.input))
        inputs = [self.input] if is_one else self.input
        if not isinstance(inputs, list) or not inputs or not all(map(_is_input, inputs)):
            message = _("input must be a text, a list of token IDs, or a list of such, none of them empty.")
            raise bad_field("input", "request_invalid", message)
        if len(inputs) > MAX_INPUTS or max(map(len, inputs)) > MAX_TEXT_CHARACTERS:
            message = _(
                "input must have at most {n} texts of at most {length} characters or tokens.",
                n=MAX_INPUTS,
                length=MAX_TEXT_CHARACTERS,
            )
            raise bad_field("input", "prompt_too_large", message, 413)
        return inputs


def _is_input(value: Any) -> bool:
    return bool(value) and (isinstance(value, str) or (isinstance(value, list) and _are_tokens(value)))


def _are_tokens(values: list[Any]) -> bool:
    return bool(values) and all(type(value) is int and 0 <= value <= MAX_CONTEXT for value in values)


@router.post("/embeddings")
async def create(request: Request, principal: Submitter, body: EmbeddingsRequest) -> Response:
    """Turn texts into vectors."""
    inputs = body.inputs()
    vectors: list[list[float]] = []
    try:
        model, task = await to_thread.run_sync(_placed, principal, body.model)
        call = Call(task)
        async with call.recorded():
            for start in range(0, len(inputs), MAX_TEXTS):
                part = task.model_copy(update={"id": new_id(), "prompt_number": start, "deployment_id": None})
                part.arguments = {"texts": inputs[start : start + MAX_TEXTS]}
                answer = await _embed(request, part, call)
                if isinstance(answer, Response):  # the client has disconnected
                    return answer
                vectors += answer
    except PanelError as error:
        raise as_openai(error, RENAMED) from None
    num_tokens = call.num_prompt_tokens
    if body.dimensions not in (None, len(vectors[0])):
        raise unsupported("dimensions", _("The vectors of this model have {n} dimensions.", n=len(vectors[0])))
    return JSONResponse(_answer(model, vectors, num_tokens, is_base64=body.encoding_format == "base64"))


def _placed(principal: Principal, name: str) -> tuple[Model, GenerationTask]:
    """The model that is meant, and the task of embedding with it, without its texts."""
    with calls.placing() as session:
        model = models.resolve(session, principal=principal, name=name)
        task = GenerationTask(id=new_id(), path="", task="embed")
        service.place(session, principal, [task], model.source_id, "embed")
    return model, task


async def _embed(request: Request, task: GenerationTask, call: Call) -> list[list[float]] | Response:
    """The vectors of some texts; an empty response if the client disconnects. Raises PanelError."""
    try:
        await to_thread.run_sync(service.enqueue, task)
        answer = await collect_while_connected(request, task, call)
    except PanelError as error:
        call.failure = error.code
        raise
    if isinstance(answer, Response):
        return answer
    vectors: list[list[float]] = json.loads(answer["result"])["embeddings"]
    return vectors


def _answer(model: Model, vectors: Sequence[list[float]], num_tokens: int, *, is_base64: bool) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if is_base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return {"object": "list", "data": data, "model": model.id, "usage": usage}


def _base64(vector: Sequence[float]) -> str:
    """The numbers in fp32, little-endian: what OpenAI's own clients ask for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
