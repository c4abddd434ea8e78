"""JSON routes that look inside a model: tokens, log-probabilities, attention, embeddings, masks and labels."""

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.core.principal import Principal
from app.playground import failures
from app.playground.api import collect_while_connected
from app.playground.deployments import calls
from app.playground.inspection import schemas, service
from app.playground.schemas import GenerationTask
from app.playground.service import enqueue
from app.web.auth import Submitter
from app.web.idempotency import ApiRoute
from app.web.problem_types import errors

router = APIRouter(prefix="/inspect", route_class=ApiRoute, tags=["inspection"])


def _documented(answer: type[BaseModel], *codes: str) -> dict[str, Any]:
    """What a route says of its answer. The answer is the node's JSON as it comes: it can have 10^5 numbers."""
    return {
        "response_model": answer,
        "responses": errors("checkpoint_unknown", "deployment_limit", *failures.INSPECTION_CODES, *codes),
    }


@router.post(
    "/tokenize",
    summary="Split a text into tokens",
    description="As AutoTokenizer does, with the special tokens that it adds.",
    **_documented(schemas.TokenizeAnswer),
)
async def tokenize(request: Request, body: schemas.TokenizeRequest, principal: Submitter) -> Response:
    return await _inspect(request, principal, "tokenize", body)


@router.post(
    "/score",
    summary="Log-probability of each token of a text",
    description="By a decoder, in one forward pass over the tokens that `tokenize` gives. By an encoder, each token "
    f"with a mask in its place (pseudo-log-likelihood), of at most {schemas.MAX_PSEUDO_SCORED_TOKENS} tokens. By an "
    f"encoder-decoder, as the answer to `source`, of at most {schemas.MAX_ANSWER_TOKENS} tokens.",
    **_documented(schemas.ScoreAnswer, "score_unfit", "source_unfit", "source_too_long", "tokens_missing"),
)
async def score(request: Request, body: schemas.ScoreRequest, principal: Submitter) -> Response:
    return await _inspect(request, principal, "score", body)


@router.post(
    "/attention",
    summary="Attention weights of a layer",
    description=f"By head, for a text of at most {schemas.MAX_ATTENTION_TOKENS} tokens. Of an encoder-decoder those "
    "of its encoder.",
    **_documented(schemas.AttentionAnswer, "layer_unknown"),
)
async def attention(request: Request, body: schemas.AttentionRequest, principal: Submitter) -> Response:
    return await _inspect(request, principal, "attention", body)


@router.post(
    "/neighbors",
    summary="Nearest neighbors of a token",
    description="By cosine similarity of the input embeddings.",
    **_documented(schemas.NeighborsAnswer, "position_unknown"),
)
async def neighbors(request: Request, body: schemas.NeighborsRequest, principal: Submitter) -> Response:
    return await _inspect(request, principal, "neighbors", body)


@router.post(
    "/fill-mask",
    summary="Fill the masks of a text",
    description="By an encoder: the likeliest tokens for each mask.",
    **_documented(schemas.FillMaskAnswer, "fill_mask_unfit", "tokens_missing", "mask_missing"),
)
async def fill_mask(request: Request, body: schemas.FillMaskRequest, principal: Submitter) -> Response:
    return await _inspect(request, principal, "fill_mask", body)


@router.post(
    "/classify",
    summary="Classify a text",
    description="All labels with their probabilities.",
    **_documented(schemas.ClassifyAnswer, "classify_unfit"),
)
async def classify(request: Request, body: schemas.ClassifyRequest, principal: Submitter) -> Response:
    return await _inspect(request, principal, "classify", body)


@router.post(
    "/embed",
    summary="Embed texts",
    description="The mean of the last hidden states of each text, normalized.",
    **_documented(schemas.EmbedAnswer),
)
async def embed(request: Request, body: schemas.EmbedRequest, principal: Submitter) -> Response:
    return await _inspect(request, principal, "embed", body)


async def _inspect(
    request: Request, principal: Principal, task_name: str, body: schemas.InspectRequest | schemas.EmbedRequest
) -> Response:
    task = await to_thread.run_sync(_enqueue, principal, task_name, body)
    answer = await collect_while_connected(request, task)
    return answer if isinstance(answer, Response) else Response(answer["result"], media_type="application/json")


def _enqueue(
    principal: Principal, task_name: str, body: schemas.InspectRequest | schemas.EmbedRequest
) -> GenerationTask:
    with calls.placing() as session:
        task = service.begin(session, principal=principal, task_name=task_name, request=body)
    enqueue(task)
    return task
