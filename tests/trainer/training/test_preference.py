"""Preferences: the loss is the formula of DPO, and a model learns which of two answers to give."""

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Fast

from tests.trainer.runs import english, small_spec, write_corpus
from trainer.data import batch as batches
from trainer.data import tokenized_records, tokenizer
from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.datasets.causal import PreferenceDataset
from trainer.modeling.objectives import DPO, objective
from trainer.spec import TrainSpec

LENGTH = 48
NAMES = [f"{first}{second}" for first in "KLMNPRST" for second in "aeiou"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Fast:
    home = tmp_path_factory.mktemp("preference")
    tokenizer.save(tokenizer.train([write_corpus(home / "c", [english()])], 400, lambda done, total: None), home / "t")
    return Fast.from_pretrained(home / "t")


def pairs() -> list[dict[str, Any]]:
    """Who asks politely is answered yes, others no: what is chosen depends on the prompt."""
    asked = [(f"{name} asks {word}", word) for name in NAMES for word in ("please", "at once")]
    return [
        {"prompt": text, "chosen": chosen, "rejected": rejected}
        for text, word in asked
        for chosen, rejected in [(" yes", " no") if word == "please" else (" no", " yes")]
    ]


def dpo_spec(**fields: Any) -> TrainSpec:
    return small_spec(**{"objective": "dpo", "base_model": "base", "sequence_length": LENGTH, **fields})


def samples_of(home: Path, made: Fast, spec: TrainSpec) -> PreferenceDataset:
    source = write_corpus(home / "pairs", [json.dumps(pair) for pair in pairs()])
    source.kind = "preference"
    return PreferenceDataset(
        tokenized_records.tokenize_cached([source], spec, made, "made", home / "cache", lambda done, total: None),
        spec,
        made,
    )


def network(model_type: str = "llama", seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    if model_type == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=LENGTH, vocab_size=400)).eval()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=400, max_position_embeddings=LENGTH, **sizes)).eval()


def tensors(batch: Batch) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def said(model: PreTrainedModel, ids: list[int], weights: list[float]) -> float:
    """The log-probability of what counts, from transformers' own loss on one answer."""
    labels = torch.tensor([[number if weight else IGNORE_INDEX for number, weight in zip(ids, weights, strict=True)]])
    count = sum(weight > 0 for weight in weights[1:])
    return -float(model(input_ids=torch.tensor([ids]), labels=labels).loss) * count


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
@torch.no_grad()
def test_the_loss_equals_the_formula_on_log_probabilities_of_transformers(
    tmp_path: Path, made: Fast, model_type: str
) -> None:
    spec = dpo_spec(dpo_beta=0.3, model_type=model_type, num_key_value_heads=4)
    samples = samples_of(tmp_path, made, spec)
    reference = network(model_type)
    learning = objective(spec, deepcopy(reference)).eval()
    learning.model.load_state_dict(network(model_type, seed=1).state_dict())
    found = learning(**tensors(samples.validation_batch([0, 1, 2])))

    margins = []
    for record in samples.records.validation[:3]:
        chosen, rejected = [(ids.tolist(), weights.tolist()) for ids, weights in samples.records.segments(int(record))]
        now, before = ([said(model, *one) for one in (chosen, rejected)] for model in (learning.model, reference))
        margins.append(0.3 * ((now[0] - now[1]) - (before[0] - before[1])))
    expected = [
        sum(math.log1p(math.exp(-margin)) for margin in margins),
        sum(margin > 0 for margin in margins),
        sum(margins),
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_before_the_first_step_the_loss_is_ln_2(tmp_path: Path, made: Fast) -> None:
    spec = dpo_spec()
    samples = samples_of(tmp_path, made, spec)
    batch = samples.train_batch(0, 8)
    loss = objective(spec, network())(**tensors(batch))

    assert loss.item() / batches.num_targets(batch) == pytest.approx(math.log(2), abs=1e-6)


def test_neither_padding_nor_the_split_of_a_batch_changes_its_sum(tmp_path: Path, made: Fast) -> None:
    spec = dpo_spec()
    samples = samples_of(tmp_path, made, spec)
    learning = objective(spec, network()).eval()
    learning.model.load_state_dict(network(seed=1).state_dict())
    whole = learning(**tensors(batches.pad_batch(samples.train_batch(0, 6), 8)))
    parts = sum(learning(**tensors(samples.train_batch(n, 1))) for n in range(6))

    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)


def test_the_reference_is_unchanged_and_gets_no_gradient(tmp_path: Path, made: Fast) -> None:
    spec = dpo_spec()
    samples = samples_of(tmp_path, made, spec)
    learning = objective(spec, network())
    assert isinstance(learning, DPO)
    before = deepcopy(learning.reference.state_dict())
    optimizer = torch.optim.SGD([p for p in learning.parameters() if p.requires_grad], lr=0.1)
    learning.train()
    learning(**tensors(samples.train_batch(0, 4))).sum().backward()
    optimizer.step()

    assert not learning.reference.training
    assert all(torch.equal(before[name], value) for name, value in learning.reference.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in learning.model.state_dict().items())


def test_a_model_learns_which_answer_is_preferred(tmp_path: Path, made: Fast) -> None:
    """The model ranks held-out pairs correctly; a model that ignores the prompt would do so for half of them."""
    spec = dpo_spec(validation_fraction=0.3)
    samples = samples_of(tmp_path, made, spec)
    learning = objective(spec, network())
    optimizer = torch.optim.AdamW([p for p in learning.parameters() if p.requires_grad], lr=2e-3)
    held_out = samples.validation_batch(list(range(samples.num_validation)))

    def measured() -> list[float]:
        with torch.no_grad():
            sums = learning.eval()(**tensors(held_out))
        learning.train()
        return [float(value) / samples.num_validation for value in sums]

    before = measured()
    for step in range(60):
        batch = samples.train_batch(8 * step, 8)
        (learning(**tensors(batch)).sum() / batches.num_targets(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    loss, accuracy, margin = measured()

    blind = max(sum(pair["chosen"] == answer for pair in pairs()) for answer in (" yes", " no")) / len(pairs())
    assert before == pytest.approx([math.log(2), 0, 0], abs=1e-6)
    assert blind == 0.5
    assert accuracy > 0.95
    assert loss < 0.3 * math.log(2)
    assert margin > 1
