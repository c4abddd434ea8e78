"""Packing over 10,000 random samples: nobody sees another's record, what counts is what the template says."""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.masking_utils import create_causal_mask

from tests.trainer.runs import small_spec, write_corpus
from trainer.data import tokenized_records, tokenizer
from trainer.data.batch import IGNORE_INDEX, Batch, num_targets
from trainer.data.record_encoding import CHAT_TEMPLATE
from trainer.data.tokenized_text import Document
from trainer.datasets.causal import SFTDataset
from trainer.modeling.objectives import objective

LENGTH, RECORDS, SAMPLES = 96, 10_000, 10_000
WORDS = ["light", "darkness", "day", "night", "water", "earth", "heaven", "天", "地", "😀", "évening", "\n", "7"]
Talk = list[dict[str, Any]]


SIZES = {"num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": LENGTH + 1, "vocab_size": 400}
NETWORKS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(hidden_size=32, intermediate_size=64, num_key_value_heads=2, attn_implementation="sdpa", **SIZES)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(hidden_size=32, intermediate_size=64, num_key_value_heads=2, attn_implementation="sdpa", **SIZES)
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=LENGTH + 1, vocab_size=400, attn_implementation="sdpa")
    ),
}


@dataclass
class Packed:
    """Random conversations, and the samples made from them."""

    talks: list[Talk]
    samples: SFTDataset
    tokenizer: PreTrainedTokenizerFast

    def rows(self) -> Iterator[tuple[list[Document], Batch]]:
        """The first SAMPLES samples of the run: of each its documents and its arrays."""
        for first in range(0, SAMPLES, 100):
            batch = self.samples.train_batch(first, 100)
            for row in range(100):
                documents = self.samples.documents_of(first + row)
                yield documents, {name: values[row] for name, values in batch.items()}


def random_talks(count: int) -> list[Talk]:
    """One to three turns each, some answers with a weight, some that only are read."""
    random = np.random.default_rng(0)

    def words() -> str:
        return " ".join(random.choice(WORDS, random.integers(1, 5)))

    def answer() -> dict[str, Any]:
        weight = random.choice([None, None, 0.0, 0.5, 2.0])
        return {"role": "assistant", "content": words(), **({} if weight is None else {"weight": float(weight)})}

    talks = []
    for _ in range(count):
        talk = [{"role": "system", "content": words()}] if random.random() < 0.2 else []
        for _ in range(random.integers(1, 4)):
            talk += [{"role": "user", "content": words()}, answer()]
        talks.append(talk)
    return talks


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    home = tmp_path_factory.mktemp("packing")
    talks = random_talks(RECORDS)
    texts = write_corpus(home / "text", [expected(talk)[0].replace("<|endoftext|>", "") for talk in talks[:500]])
    tokenizer.save(tokenizer.train([texts], 320, lambda done, total: None), home / "tokenizer")
    made = PreTrainedTokenizerFast.from_pretrained(home / "tokenizer")
    made.chat_template = CHAT_TEMPLATE
    source = write_corpus(home / "chat", [json.dumps({"messages": talk}) for talk in talks])
    source.kind = "chat"
    spec = small_spec(objective="chat", sequence_length=LENGTH)
    directory = tokenized_records.tokenize_cached(
        [source], spec, made, "made", home / "cache", lambda done, total: None
    )
    return Packed(talks, SFTDataset(directory, spec, made), made)


def spans(row: Batch) -> list[slice]:
    """Where the records of a row stand, padding not counted."""
    used = int((row["labels"] != IGNORE_INDEX).sum())
    starts = [*np.flatnonzero(row["position_ids"][:used] == 0), used]
    return [slice(start, end) for start, end in itertools.pairwise(starts)]


def expected(talk: Talk) -> tuple[str, list[tuple[str, float]]]:
    """A conversation in ChatML, and what counts of it: written by hand, not by the template."""
    text, counts = "", []
    for message in talk:
        answers = message["role"] == "assistant"
        said = message["content"] + ("<|endoftext|>" if answers else "<|im_end|>")
        text += f"<|im_start|>{message['role']}\n{said}\n"
        if answers and message.get("weight", 1.0):
            counts.append((said, message.get("weight", 1.0)))
    return text, counts


def test_what_counts_of_10_000_samples_is_what_the_template_says(packed: Packed) -> None:
    known: dict[int, tuple[list[int], list[float]]] = {}
    num_cut = 0
    for documents, row in packed.rows():
        found = spans(row)
        assert len(found) == len(documents)
        assert not row["weights"][found[-1].stop :].any()
        for span, document in zip(found, documents, strict=True):
            ids = [int(row["input_ids"][span.start]), *row["labels"][span].tolist()]
            weights = [0.0, *row["weights"][span].tolist()]
            assert row["input_ids"][span].tolist() == ids[:-1]
            if document.number in known:
                assert known[document.number] == (ids, weights)
                continue
            known[document.number] = ids, weights
            text, counts = expected(packed.talks[document.number])
            whole, learnt = packed.tokenizer.decode(ids), list(runs(packed.tokenizer, ids, weights))
            if len(ids) <= LENGTH:
                assert (whole, learnt) == (text, counts)
            else:  # too long, and cut, maybe inside a character
                num_cut += 1
                assert text.startswith(whole.rstrip("\ufffd"))
                for (said, weight), (wanted, wanted_weight) in zip(learnt, counts, strict=False):
                    assert weight == wanted_weight
                    assert wanted.startswith(said.rstrip("\ufffd"))
    assert 0 < num_cut < 1000


def runs(made: PreTrainedTokenizerFast, ids: list[int], weights: list[float]) -> Iterator[tuple[str, float]]:
    """The runs of tokens that count, as text, each with its weight."""
    for weight, run in itertools.groupby(zip(ids, weights, strict=True), lambda pair: pair[1]):
        if weight:
            yield made.decode([number for number, _ in run]), weight


def test_every_conversation_is_learnt_once_in_each_of_two_epochs(packed: Packed) -> None:
    samples = packed.samples
    for epoch in range(2):
        drawn = range(epoch * samples.num_train, (epoch + 1) * samples.num_train)
        seen = [document for n in drawn for document in samples.documents_of(n)]
        assert len(seen) == len(set(seen)) == len(samples.records.train)
    held_out = {samples.records.document_of(int(record)) for record in samples.records.validation}
    assert not held_out & set(seen)
    assert len(held_out) + len(seen) == RECORDS - samples.num_dropped


def seen_by(model_type: str, position_ids: torch.Tensor) -> torch.Tensor:
    """The mask that transformers makes of positions: (samples, from, to)."""
    config = NETWORKS[model_type]().config
    embedded = torch.zeros(*position_ids.shape, 1)
    mask = create_causal_mask(config, embedded, None, None, position_ids)
    if mask is None:
        return torch.ones(position_ids.shape[1], position_ids.shape[1]).tril().bool().expand(len(position_ids), -1, -1)
    return mask[:, 0]


def test_no_token_of_10_000_samples_sees_another_record(packed: Packed) -> None:
    kept = packed.samples.records
    record_of = {kept.document_of(record).number: record for record in range(sum(kept.meta.num_records))}
    below = torch.ones(LENGTH, LENGTH).tril().bool()
    for first in range(0, SAMPLES, 500):
        batch = packed.samples.train_batch(first, 500)
        width = batch["labels"].shape[1]
        owners = np.zeros((500, width), dtype=np.int64)
        for row in range(500):
            documents = packed.samples.documents_of(first + row)
            ends = np.cumsum(kept.lengths(np.asarray([record_of[document.number] for document in documents])) - 1)
            owners[row] = np.searchsorted(ends, np.arange(width), side="right").clip(max=len(ends) - 1)
        own = torch.from_numpy(owners)
        wanted = (own[:, :, None] == own[:, None, :]) & below[:width, :width]
        assert torch.equal(seen_by("llama", torch.from_numpy(batch["position_ids"])), wanted)


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("model_type", list(NETWORKS))
def test_a_packed_record_has_the_logits_and_gradients_that_it_has_alone(
    packed: Packed, model_type: str, is_checkpointed: bool
) -> None:
    torch.manual_seed(0)
    model = NETWORKS[model_type]().eval()
    if is_checkpointed:
        model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    batch = {name: torch.from_numpy(values) for name, values in packed.samples.train_batch(0, 4).items()}
    spec = small_spec(objective="chat", model_type=model_type, num_key_value_heads=4)
    learning = objective(spec, model)
    learning(**batch).sum().backward()
    together = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    model.zero_grad()

    for row in range(4):
        for span in spans({name: values[row].numpy() for name, values in batch.items()}):
            alone = {name: batch[name][row : row + 1, span] for name in ("input_ids", "labels", "weights")}
            learning(**alone).sum().backward()
            found = model(input_ids=alone["input_ids"], use_cache=False).logits[0]
            torch.testing.assert_close(logits[row, span], found, rtol=0, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_where_a_sequence_holds_one_record_no_mask_is_made(tmp_path: Path, packed: Packed) -> None:
    source = write_corpus(tmp_path / "chat", [json.dumps({"messages": talk}) for talk in packed.talks[:40]])
    source.kind = "chat"
    spec = small_spec(objective="chat", sequence_length=LENGTH, packing=False)
    tokenised = tokenized_records.tokenize_cached(
        [source], spec, packed.tokenizer, "made", tmp_path / "cache", lambda done, total: None
    )
    batch = SFTDataset(tokenised, spec, packed.tokenizer).train_batch(0, 16)
    positions = torch.from_numpy(batch["position_ids"])

    assert any((row == IGNORE_INDEX).any() for row in batch["labels"])
    config = NETWORKS["llama"]().config
    assert create_causal_mask(config, torch.zeros(*positions.shape, 1), None, None, positions) is None


@pytest.mark.parametrize("model_type", list(NETWORKS))
@torch.no_grad()
def test_the_loss_is_that_of_transformers_on_the_same_packed_records(packed: Packed, model_type: str) -> None:
    """transformers takes whole records and shifts the labels itself; it knows no weights, so each is asked for."""
    torch.manual_seed(0)
    model = NETWORKS[model_type]().eval()
    spec = small_spec(objective="chat", model_type=model_type, num_key_value_heads=4)
    numbers = list(range(8))
    batch = packed.samples.validation_batch(numbers)
    found = objective(spec, model)(**{name: torch.from_numpy(values) for name, values in batch.items()})

    nats = total = 0.0
    for row in ({name: values[number] for name, values in batch.items()} for number in numbers):
        ids, weights, positions = [], [], []
        for span in spans(row):
            ids += [int(row["input_ids"][span.start]), *row["labels"][span].tolist()]
            weights += [0.0, *row["weights"][span].tolist()]
            positions += range(span.stop - span.start + 1)
        given = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions])}
        for weight in set(weights) - {0.0}:
            labels = [number if own == weight else IGNORE_INDEX for number, own in zip(ids, weights, strict=True)]
            count = sum(label != IGNORE_INDEX for label in labels)
            nats += weight * count * float(model(labels=torch.tensor([labels]), **given).loss)
            total += weight * count
    assert float(found) / num_targets(batch) == pytest.approx(nats / total, rel=1e-5)
