"""`POST /v1/embeddings`: a vector of length 1 for each text, the mean of the model's last hidden states."""

import base64
import json
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.core import db
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.principal import Principal
from app.openai import models
from app.openai.generations import as_openai, unsupported
from app.openai.models import Model
from app.playground import service
from app.playground.api import collect_while_connected
from app.playground.inspection import service as inspection
from app.playground.inspection.schemas import MAX_TEXT_CHARACTERS, MAX_TEXTS, EmbedRequest
from app.playground.schemas import GenerationTask
from app.web.auth import Submitter
from app.web.json_body import StrictRoute

router = APIRouter(route_class=StrictRoute)

RENAMED = {"text": "input", "texts": "input"}
MAX_INPUTS = 2_048


class EmbeddingsRequest(BaseModel):
    """The texts. Null is the default; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    model: Annotated[str, Field(min_length=1, max_length=300)]
    input: Any
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None

    def texts(self) -> list[str]:
        """The texts. Raises PanelError."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            message = _("input must be a text or a list of texts, none of them empty. Tokens are not supported here.")
            raise bad_field("input", "request_invalid", message)
        if len(texts) > MAX_INPUTS or max(map(len, texts)) > MAX_TEXT_CHARACTERS:
            message = _(
                "input must have at most {n} texts of at most {length} characters.",
                n=MAX_INPUTS,
                length=MAX_TEXT_CHARACTERS,
            )
            raise bad_field("input", "prompt_too_large", message, 413)
        return texts


@router.post("/embeddings")
async def create(request: Request, principal: Submitter, body: EmbeddingsRequest) -> Response:
    """Turn texts into vectors."""
    texts = body.texts()
    vectors: list[list[float]] = []
    num_tokens = 0
    for start in range(0, len(texts), MAX_TEXTS):
        try:
            model, task = await to_thread.run_sync(_start, principal, body.model, texts[start : start + MAX_TEXTS])
            answer = await collect_while_connected(request, task)
        except PanelError as error:
            raise as_openai(error, RENAMED) from None
        if isinstance(answer, Response):  # the client has disconnected
            return answer
        result = json.loads(answer["result"])
        vectors += result["embeddings"]
        num_tokens += sum(result["num_tokens"])
    if body.dimensions not in (None, len(vectors[0])):
        raise unsupported("dimensions", _("The vectors of this model have {n} dimensions.", n=len(vectors[0])))
    return JSONResponse(_answer(model, vectors, num_tokens, is_base64=body.encoding_format == "base64"))


def _start(principal: Principal, name: str, texts: Sequence[str]) -> tuple[Model, GenerationTask]:
    with db.transaction() as session:
        model = models.resolve(session, principal=principal, name=name)
        request = EmbedRequest(checkpoint=model.source_id, texts=list(texts))
        task = inspection.begin(session, principal=principal, task_name="embed", request=request)
    service.enqueue(task)
    return model, task


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
