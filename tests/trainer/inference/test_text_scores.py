"""Bits per byte of texts, against transformers' own logits on the windows of tokens of lm-evaluation-harness."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.utils import get_rolling_token_windows
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.bases import random_checkpoint
from tests.trainer.runs import english
from tests.trainer.tokenizers_of_bases import fast, unigram
from trainer.inference import generation, text_scores
from trainer.inference.generation import LoadedModel
from trainer.inference.text_scores import TextScorer

TEXTS = [
    "A horse near the river.",
    english(2_000),  # many times the context
    "天地玄黄，宇宙洪荒。Größe, naïve, ελληνικά",
    "It ends <|endoftext|> and goes on.",
    "zq xv wk jj",
]


def loss_of(model: Any, ids: list[int], start: int, context: int) -> float:
    """The summed loss of tokens after the one that begins a text, each of the harness's windows by a forward pass."""
    total = 0.0
    for inputs, targets in get_rolling_token_windows(ids, start, context, context_len=1):
        with torch.no_grad():
            logits = model(torch.tensor([inputs])).logits[0, -len(targets) :]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="sum"))
    return total


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a Llama with random weights."""
    return random_checkpoint(tmp_path_factory.mktemp("llama"), "llama", "causal")[0]


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2"])
def test_perplexities_are_those_of_transformers(tmp_path: Path, llama: Path, model_type: str) -> None:
    path = llama if model_type == "llama" else random_checkpoint(tmp_path, model_type, "causal")[0]
    oracle = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    context = oracle.config.max_position_embeddings
    scores = TextScorer(generation.load(path, "cpu")).score(TEXTS)
    for text, score in zip(TEXTS, scores, strict=True):
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert score is not None
        assert (score.num_tokens, score.num_bytes) == (len(ids), len(text.encode()))
        expected = loss_of(oracle, ids, tokenizer.eos_token_id, context)
        assert math.exp(score.loss_sum / score.num_tokens) == pytest.approx(math.exp(expected / len(ids)), rel=1e-4)
        assert score.bits_per_byte == pytest.approx(expected / math.log(2) / len(text.encode()), rel=1e-4)
    assert max(score.num_tokens for score in scores if score is not None) > 4 * context


def test_texts_of_fewer_than_two_tokens_have_no_score(llama: Path) -> None:
    scores = TextScorer(generation.load(llama, "cpu")).score(["", "a", "two words", "\n"])
    assert [score is None for score in scores] == [True, True, False, True]


def test_a_special_token_that_a_text_spells_is_ordinary_text_of_unigram_tokenizers(llama: Path) -> None:
    loaded = generation.load(llama, "cpu")
    scorer = TextScorer(LoadedModel(loaded.model, fast(unigram())))
    (score,) = scorer.score(["the end </s> goes on"])
    assert score is not None
    without = fast(unigram(("<s>", "<end>")), eos_token="<end>", pad_token="<end>")  # no token is spelled "</s>"
    assert score.num_tokens == len(without("the end </s> goes on", add_special_tokens=False)["input_ids"])


def test_only_the_beginning_of_a_long_text_counts(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, tokenizer = TextScorer(generation.load(llama, "cpu")), AutoTokenizer.from_pretrained(llama)
    text = english(2_000)
    monkeypatch.setattr(text_scores, "MAX_TOKENS", 10)
    (score,) = scorer.score([text])
    assert score is not None
    beginning = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:10])
    assert text.startswith(beginning)
    assert (score.num_tokens, score.num_bytes) == (10, len(beginning.encode()))
