"""Looks inside a model: log-probabilities, attention, embeddings, masks and labels. Imports torch and transformers.

All functions take token ids, so that the tokenizer may be in another process, and one text at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from trainer.inference.shared_weights import copy_sharing_weights

LOGITS_ROWS = 64  # of logits that exist at once
MASKED_LOGITS = 2**24  # that exist at once where each token of a text is masked in turn
EMBEDDING_ROWS = 8_192  # of the embedding matrix that are copied at once


@dataclass(frozen=True)
class PredictedToken:
    """A token that a model might have chosen."""

    id: int
    probability: float


@dataclass(frozen=True)
class TokenScore:
    """What a model thought of a token: a decoder from those before it, an encoder-decoder from the source too, an
    encoder from all others.
    """

    log_prob: float  # in nats
    rank: int  # 1: the model's first choice
    top: list[PredictedToken]


@torch.inference_mode()
def score(model: PreTrainedModel, ids: Sequence[int], top_k: int = 5) -> list[TokenScore]:
    """For each token but the first, which nothing comes before: its log-probability, its rank, and the likeliest tokens
    in its place.
    """
    head: Any = model.get_output_embeddings()
    scored: list[TokenScore] = []
    hidden = _hidden(model, ids)[:-1]
    for start in range(0, len(ids) - 1, LOGITS_ROWS):
        log_probs = head(hidden[start : start + LOGITS_ROWS]).float().log_softmax(-1).cpu()
        targets = ids[start + 1 : start + 1 + LOGITS_ROWS]
        scored += [_scored(row, target, top_k) for row, target in zip(log_probs, targets, strict=True)]
    return scored


@torch.inference_mode()
def answer_score(model: PreTrainedModel, source: Sequence[int], ids: Sequence[int], top_k: int = 5) -> list[TokenScore]:
    """The same for all tokens of an answer, which an encoder-decoder predicts from the source and those before."""
    before = [model.config.decoder_start_token_id, *ids[:-1]]
    logits = model(input_ids=_batch(model, source), decoder_input_ids=_batch(model, before)).logits[0]
    log_probs = logits.float().log_softmax(-1).cpu()
    return [_scored(row, target, top_k) for row, target in zip(log_probs, ids, strict=True)]


@torch.inference_mode()
def pseudo_score(
    model: PreTrainedModel, ids: Sequence[int], places: Sequence[int], mask_id: int, top_k: int = 5
) -> Iterator[TokenScore]:
    """For some tokens of a text, what an encoder thinks of each when a mask stands in its place.

    The sum of the log-probabilities is the text's pseudo-log-likelihood (https://arxiv.org/abs/1910.14659). A token
    costs a forward pass, so they are computed in parts as they are asked for.
    """
    num_rows = max(1, MASKED_LOGITS // (len(ids) * model.config.vocab_size))
    for start in range(0, len(places), num_rows):
        masked = places[start : start + num_rows]
        rows = torch.tensor([list(ids)] * len(masked))
        rows[range(len(masked)), list(masked)] = mask_id
        logits = model(input_ids=rows.to(model.device)).logits[range(len(masked)), list(masked)]
        log_probs = logits.float().log_softmax(-1).cpu()
        yield from (_scored(row, ids[place], top_k) for row, place in zip(log_probs, masked, strict=True))


def _scored(log_probs: Tensor, target: int, top_k: int) -> TokenScore:
    """log_probs (vocab_size)."""
    own = log_probs[target]
    return TokenScore(float(own), 1 + int((log_probs > own).sum()), _top(log_probs, top_k))


def _top(log_probs: Tensor, top_k: int) -> list[PredictedToken]:
    """The likeliest tokens, by log-probabilities (vocab_size)."""
    values, ids = log_probs.topk(min(top_k, len(log_probs)))
    return [PredictedToken(number, value) for number, value in zip(ids.tolist(), values.exp().tolist(), strict=True)]


@torch.inference_mode()
def attention(model: PreTrainedModel, ids: Sequence[int], layer: int) -> Tensor:
    """The attention weights of a layer (heads, tokens, tokens) in fp32. Each row sums to 1: how much a token reads of
    each other. Of an encoder-decoder those of its encoder.
    """
    # Its weights exist only where attention is computed step by step.
    output = _encoded(model, ids, "eager", output_attentions=True)
    weights: Tensor = output.attentions[layer][0]
    return weights.float().cpu()


@torch.inference_mode()
def neighbors(model: PreTrainedModel, token_id: int, top_k: int, vocab_size: int) -> list[tuple[int, float]]:
    """The other tokens whose input embeddings have the largest cosine similarity with that of a token, and these.

    Only ids below `vocab_size` count: a model may have more rows than its tokenizer has tokens.
    """
    table: Any = model.get_input_embeddings().weight[:vocab_size]
    query = F.normalize(table[token_id].float(), dim=0)
    chunks = table.split(EMBEDDING_ROWS)
    similarity = torch.cat([F.normalize(chunk.float(), dim=1) @ query for chunk in chunks])
    similarity[token_id] = -torch.inf
    values, ids = similarity.topk(min(top_k, len(table) - 1))
    return list(zip(ids.tolist(), values.tolist(), strict=True))


@torch.inference_mode()
def embed(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """The mean of the last hidden states (hidden_size), normalized, in fp32. Of an encoder-decoder its encoder's."""
    return F.normalize(_hidden(model, ids).float().mean(0), dim=0).cpu()


@torch.inference_mode()
def fill_mask(model: PreTrainedModel, ids: Sequence[int], mask_id: int, top_k: int) -> list[list[PredictedToken]]:
    """The likeliest tokens for each mask of a text, in order."""
    logits = _logits(model, ids)
    rows = logits[[place for place, number in enumerate(ids) if number == mask_id]].float().log_softmax(-1).cpu()
    return [_top(row, top_k) for row in rows]


@torch.inference_mode()
def classify(model: PreTrainedModel, ids: Sequence[int]) -> list[tuple[str, float]]:
    """All labels of a classifier with their probabilities, the likeliest first.

    Labels that exclude each other share one probability; others, or a single one, have one each, as in transformers.
    """
    logits = _logits(model, ids).float().cpu()
    is_independent = model.config.problem_type == "multi_label_classification" or len(logits) == 1
    probabilities = (logits.sigmoid() if is_independent else logits.softmax(-1)).tolist()
    labels = [str(model.config.id2label[number]) for number in range(len(probabilities))]
    return sorted(zip(labels, probabilities, strict=True), key=lambda pair: -pair[1])


def _hidden(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """The last hidden states of a text (tokens, hidden_size)."""
    hidden: Tensor = _encoded(model, ids).last_hidden_state[0]
    return hidden


def _encoded(model: PreTrainedModel, ids: Sequence[int], attention: str = "", **options: Any) -> Any:
    """The output of the model without its head; of an encoder-decoder that of its encoder."""
    own = _with_attention(model, attention) if attention else model
    backbone: Any = own.get_encoder() if model.config.is_encoder_decoder else own.base_model
    return backbone(input_ids=_batch(model, ids), **options)


def _logits(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """The output of the head for a text, without the dimension of the batch."""
    logits: Tensor = model(input_ids=_batch(model, ids)).logits[0]
    return logits


def _with_attention(model: PreTrainedModel, attention: str) -> PreTrainedModel:
    """The model with another implementation of attention; others may use it at the same time."""
    own = copy_sharing_weights(model)
    own.set_attn_implementation(attention)
    return own


def _batch(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    return torch.tensor([list(ids)], device=model.device)
