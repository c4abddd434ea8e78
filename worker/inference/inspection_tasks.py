"""What the inference process does to look inside a model: each task takes a model and the fields of a request of
app/playground/inspection/schemas.py, and returns its answer.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from app.playground.inspection import schemas
from trainer.data.record_refused import RecordRefused
from trainer.families import ENCODERS
from trainer.inference import inspection
from worker.inference.models import GenerationRefused, SandboxedModel

Answer = dict[str, Any]
DIGITS = 7  # of weights and probabilities after the point


def _tokens(model: SandboxedModel, text: str, limit: int, *, with_special_tokens: bool = True) -> list[Answer]:
    """The tokens of a text: at least one, and no more than `limit`."""
    tokens: list[Answer] = _call(model, "tokens", text, with_special_tokens)
    if not tokens:
        raise GenerationRefused("text_refused", why="it has no tokens")
    return _limited(tokens, limit)


def _call(model: SandboxedModel, name: str, *arguments: Any) -> Any:
    try:
        return model.call(name, *arguments)
    except RecordRefused as error:
        raise GenerationRefused("text_refused", why=str(error)) from None


def _limited(tokens: list[Answer], limit: int) -> list[Answer]:
    if len(tokens) > limit:
        raise GenerationRefused("text_too_long", num_tokens=len(tokens), limit=limit)
    return tokens


def _ids(tokens: Sequence[Answer]) -> list[int]:
    return [token["id"] for token in tokens]


def _predictions(model: SandboxedModel, rows: Sequence[Sequence[inspection.PredictedToken]]) -> list[list[Answer]]:
    """Predictions with their texts, which are asked for at once."""
    ids = sorted({choice.id for row in rows for choice in row})
    texts = dict(zip(ids, _call(model, "token_texts", ids), strict=True))
    return [
        [{"id": p.id, "text": texts[p.id], "probability": round(p.probability, DIGITS)} for p in row] for row in rows
    ]


def _tokenize(model: SandboxedModel, text: str) -> Answer:
    tokens = _tokens(model, text, schemas.MAX_TEXT_CHARACTERS)
    return {"tokens": tokens, "vocab_size": _call(model, "vocab_size")}


def _score(model: SandboxedModel, text: str, top_k: int, source: str) -> Answer:
    is_pseudo = model.model.config.model_type in ENCODERS
    if model.model.config.is_encoder_decoder:
        tokens, scored = _answer_scores(model, source, text, top_k)
    elif source:
        raise GenerationRefused("source_unfit", model_type=model.model.config.model_type)
    else:
        tokens, scored = _pseudo_scores(model, text, top_k) if is_pseudo else _scores(model, text, top_k)
    tops = _predictions(model, [token.top for token in scored.values()])
    rows: list[Answer] = [{"log_prob": None, "rank": None, "top": []} for _token in tokens]
    for (place, token), top in zip(scored.items(), tops, strict=True):
        rows[place] = {"log_prob": round(token.log_prob, DIGITS), "rank": token.rank, "top": top}
    loss_sum = -math.fsum(token.log_prob for token in scored.values())
    num_bytes = sum(tokens[place]["num_bytes"] for place in scored)
    return {
        "tokens": [{**token, **row} for token, row in zip(tokens, rows, strict=True)],
        "is_pseudo": is_pseudo,
        "num_scored": len(scored),
        "loss": loss_sum / len(scored) if scored else None,
        "perplexity": math.exp(loss_sum / len(scored)) if scored else None,
        "bits_per_byte": loss_sum / math.log(2) / num_bytes if num_bytes else None,
    }


def _scores(model: SandboxedModel, text: str, top_k: int) -> tuple[list[Answer], dict[int, inspection.TokenScore]]:
    """The tokens of a text, and by its place what a decoder thinks of each but the first one."""
    tokens = _tokens(model, text, min(model.context, schemas.MAX_SCORED_TOKENS))
    return tokens, dict(enumerate(inspection.score(model.model, _ids(tokens), top_k), 1))


def _answer_scores(
    model: SandboxedModel, source: str, text: str, top_k: int
) -> tuple[list[Answer], dict[int, inspection.TokenScore]]:
    """The tokens of an answer, and by its place what an encoder-decoder that reads a source thinks of each."""
    tokens = _tokens(model, text, schemas.MAX_ANSWER_TOKENS)
    ids = _call(model, "source", source)
    if len(ids) > model.context:
        raise GenerationRefused("source_too_long", num_tokens=len(ids), limit=model.context)
    return tokens, dict(enumerate(inspection.answer_score(model.model, ids, _ids(tokens), top_k)))


def _pseudo_scores(
    model: SandboxedModel, text: str, top_k: int
) -> tuple[list[Answer], dict[int, inspection.TokenScore]]:
    """The tokens of a text, and by its place what an encoder thinks of each that is no special token."""
    if model.model.get_output_embeddings() is None:
        raise GenerationRefused("score_unfit", model_type=model.model.config.model_type)
    encoded = _call(model, "masked_tokens", text)
    tokens = _limited(encoded["tokens"], min(model.context, schemas.MAX_PSEUDO_SCORED_TOKENS))
    places = [place for place, token in enumerate(tokens) if not token["is_special"]]
    scored: dict[int, inspection.TokenScore] = {}
    scores = inspection.pseudo_score(model.model, _ids(tokens), places, encoded["mask_id"], top_k)
    for place, token in zip(places, scores, strict=True):
        scored[place] = token
        model.pause()
    return tokens, scored


def _attention(model: SandboxedModel, text: str, layer: int) -> Answer:
    num_layers = int(model.model.config.num_hidden_layers)
    if layer >= num_layers:
        raise GenerationRefused("layer_unknown", number=layer, limit=num_layers)
    tokens = _tokens(model, text, min(model.context, schemas.MAX_ATTENTION_TOKENS))
    weights = inspection.attention(model.model, _ids(tokens), layer)
    rounded = [[[round(weight, DIGITS) for weight in row] for row in head] for head in weights.tolist()]
    return {
        "tokens": tokens,
        "layer": layer,
        "num_layers": num_layers,
        "num_heads": len(rounded),
        "weights": rounded,
    }


def _neighbors(model: SandboxedModel, text: str, position: int | None, top_k: int) -> Answer:
    tokens = _tokens(model, text, schemas.MAX_TEXT_CHARACTERS, with_special_tokens=False)
    place = len(tokens) - 1 if position is None else position
    if place >= len(tokens):
        raise GenerationRefused("position_unknown", number=place, limit=len(tokens))
    vocab_size = _call(model, "vocab_size")
    neighbors = inspection.neighbors(model.model, tokens[place]["id"], top_k, vocab_size)
    texts = _call(model, "token_texts", [number for number, _similarity in neighbors])
    return {
        "tokens": tokens,
        "position": place,
        "neighbors": [
            {"id": number, "text": text, "similarity": round(similarity, DIGITS)}
            for (number, similarity), text in zip(neighbors, texts, strict=True)
        ],
        "vocab_size": vocab_size,
        "hidden_size": int(model.model.get_input_embeddings().weight.shape[1]),
    }


def _fill_mask(model: SandboxedModel, text: str, top_k: int) -> Answer:
    if model.model.get_output_embeddings() is None:
        raise GenerationRefused("fill_mask_unfit", model_type=model.model.config.model_type)
    encoded = _call(model, "masked_tokens", text)
    tokens = _limited(encoded["tokens"], model.context)
    places = [place for place, token in enumerate(tokens) if token["id"] == encoded["mask_id"]]
    if not places:
        raise GenerationRefused("mask_missing")
    filled = inspection.fill_mask(model.model, _ids(tokens), encoded["mask_id"], top_k)
    tops = _predictions(model, filled)
    return {
        "tokens": tokens,
        "masks": [{"position": place, "top": top} for place, top in zip(places, tops, strict=True)],
    }


def _classify(model: SandboxedModel, text: str) -> Answer:
    ids = _ids(_tokens(model, text, model.context))
    labels = inspection.classify(model.model, ids)
    return {
        "labels": [{"label": label, "probability": round(value, DIGITS)} for label, value in labels],
        "num_tokens": len(ids),
    }


def _embed(model: SandboxedModel, texts: list[str | list[int]]) -> Answer:
    """`texts` may be given as their tokens."""
    token_ids = [_embedded_ids(model, text) for text in texts]
    vectors = torch.stack([_vector(model, ids) for ids in token_ids])
    return {
        "embeddings": _rounded(vectors),
        "similarity": _rounded(vectors @ vectors.T),
        "num_tokens": [len(ids) for ids in token_ids],
    }


def _vector(model: SandboxedModel, ids: list[int]) -> torch.Tensor:
    vector = inspection.embed(model.model, ids)
    model.pause()
    return vector


def _embedded_ids(model: SandboxedModel, text: str | list[int]) -> list[int]:
    if isinstance(text, str):
        return _ids(_tokens(model, text, model.context))
    unknown = next((number for number in text if number >= model.model.config.vocab_size), None)
    if unknown is not None:
        raise GenerationRefused("token_unknown", token=unknown, limit=model.model.config.vocab_size)
    if len(text) > model.context:
        raise GenerationRefused("text_too_long", num_tokens=len(text), limit=model.context)
    return text


def _rounded(matrix: torch.Tensor) -> list[list[float]]:
    return [[round(value, DIGITS) for value in row] for row in matrix.tolist()]


def num_tokens_read(answer: Answer) -> int:
    """The tokens of the text, or of all texts, that an answer is about."""
    if "tokens" in answer:
        return len(answer["tokens"])
    num_tokens = answer["num_tokens"]
    return sum(num_tokens) if isinstance(num_tokens, list) else num_tokens


INSPECTIONS: dict[str, Callable[..., Answer]] = {
    "tokenize": _tokenize,
    "score": _score,
    "attention": _attention,
    "neighbors": _neighbors,
    "fill_mask": _fill_mask,
    "classify": _classify,
    "embed": _embed,
}
