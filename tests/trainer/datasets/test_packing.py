"""Packing over 10,000 random samples: attention does not cross records, and exactly the answers have weight."""

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
from trainer.batch_shapes import Document
from trainer.data import tokenized_records, tokenizer
from trainer.data.batch import IGNORE_INDEX, Batch, num_targets
from trainer.data.chat_template import preset
from trainer.datasets.causal import SFTDataset
from trainer.modeling.objectives import objective

pytestmark = pytest.mark.usefixtures("encodes_in_process")

LENGTH, RECORDS, SAMPLES = 96, 10_000, 10_000
WORDS = ["light", "darkness", "day", "night", "water", "earth", "heaven", "天", "地", "😀", "évening", "\n", "7"]
Conversation = list[dict[str, Any]]


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
    """Random conversations, and the dataset of them."""

    conversations: list[Conversation]
    dataset: SFTDataset
    tokenizer: PreTrainedTokenizerFast

    def rows(self) -> Iterator[tuple[list[Document], Batch]]:
        """The documents and the arrays of each of the first SAMPLES samples of the run."""
        for first in range(0, SAMPLES, 100):
            batch = self.dataset.train_batch(first, 100)
            for row in range(100):
                documents = self.dataset.documents_of(first + row)
                yield documents, {name: values[row] for name, values in batch.items()}


def random_conversations(count: int) -> list[Conversation]:
    """Conversations of one to three turns, with answers of different weights."""
    random = np.random.default_rng(0)

    def words() -> str:
        return " ".join(random.choice(WORDS, random.integers(1, 5)))

    def answer() -> dict[str, Any]:
        weight = random.choice([None, None, 0.0, 0.5, 2.0])
        return {"role": "assistant", "content": words(), **({} if weight is None else {"weight": float(weight)})}

    conversations = []
    for _ in range(count):
        conversation = [{"role": "system", "content": words()}] if random.random() < 0.2 else []
        for _ in range(random.integers(1, 4)):
            conversation += [{"role": "user", "content": words()}, answer()]
        conversations.append(conversation)
    return conversations


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    home = tmp_path_factory.mktemp("packing")
    conversations = random_conversations(RECORDS)
    texts = write_corpus(
        home / "text", [expected(conversation)[0].replace("<|endoftext|>", "") for conversation in conversations[:500]]
    )
    tokenizer.save(tokenizer.train([texts], 320, lambda done, total: None), home / "tokenizer")
    hf_tokenizer = PreTrainedTokenizerFast.from_pretrained(home / "tokenizer")
    hf_tokenizer.chat_template = preset("chatml", hf_tokenizer)
    source = write_corpus(home / "chat", [json.dumps({"messages": conversation}) for conversation in conversations])
    source.kind = "chat"
    spec = small_spec(objective="chat", sequence_length=LENGTH)
    directory = tokenized_records.tokenize_cached(
        [source], spec, hf_tokenizer, "made", home / "cache", lambda done, total: None
    )
    return Packed(conversations, SFTDataset(directory, spec, hf_tokenizer), hf_tokenizer)


def spans(row: Batch) -> list[slice]:
    """The slices of the records in a row, without padding."""
    used = int((row["labels"] != IGNORE_INDEX).sum())
    starts = [*np.flatnonzero(row["position_ids"][:used] == 0), used]
    return [slice(start, end) for start, end in itertools.pairwise(starts)]


def expected(conversation: Conversation) -> tuple[str, list[tuple[str, float]]]:
    """A conversation in ChatML and its weighted parts, written by hand instead of by the template."""
    text, counts = "", []
    for message in conversation:
        answers = message["role"] == "assistant"
        content = message["content"] + ("<|endoftext|>" if answers else "<|im_end|>")
        text += f"<|im_start|>{message['role']}\n{content}\n"
        if answers and message.get("weight", 1.0):
            counts.append((content, message.get("weight", 1.0)))
    return text, counts


def test_the_weighted_tokens_of_10_000_samples_are_the_answers(packed: Packed) -> None:
    tokens_by_record: dict[int, tuple[list[int], list[float]]] = {}
    num_cut = 0
    for documents, row in packed.rows():
        records = spans(row)
        assert len(records) == len(documents)
        assert not row["weights"][records[-1].stop :].any()
        for span, document in zip(records, documents, strict=True):
            ids = [int(row["input_ids"][span.start]), *row["labels"][span].tolist()]
            weights = [0.0, *row["weights"][span].tolist()]
            assert row["input_ids"][span].tolist() == ids[:-1]
            if document.number in tokens_by_record:
                assert tokens_by_record[document.number] == (ids, weights)
                continue
            tokens_by_record[document.number] = ids, weights
            text, counts = expected(packed.conversations[document.number])
            decoded, weighted = packed.tokenizer.decode(ids), list(runs(packed.tokenizer, ids, weights))
            if len(ids) <= LENGTH:
                assert (decoded, weighted) == (text, counts)
            else:  # too long and truncated, maybe inside a character
                num_cut += 1
                assert text.startswith(decoded.rstrip("\ufffd"))
                for (content, weight), (wanted, wanted_weight) in zip(weighted, counts, strict=False):
                    assert weight == wanted_weight
                    assert wanted.startswith(content.rstrip("\ufffd"))
    assert 0 < num_cut < 1000


def runs(hf_tokenizer: PreTrainedTokenizerFast, ids: list[int], weights: list[float]) -> Iterator[tuple[str, float]]:
    """The runs of weighted tokens as text, each with its weight."""
    for weight, run in itertools.groupby(zip(ids, weights, strict=True), lambda pair: pair[1]):
        if weight:
            yield hf_tokenizer.decode([number for number, _ in run]), weight


def test_every_conversation_is_trained_on_once_in_each_of_two_epochs(packed: Packed) -> None:
    dataset = packed.dataset
    for epoch in range(2):
        drawn = range(epoch * dataset.num_train, (epoch + 1) * dataset.num_train)
        seen = [document for n in drawn for document in dataset.documents_of(n)]
        assert len(seen) == len(set(seen)) == len(dataset.records.train)
    held_out = {dataset.records.document_of(int(record)) for record in dataset.records.validation}
    assert not held_out & set(seen)
    assert len(held_out) + len(seen) == RECORDS - dataset.num_dropped


def attention_mask(model_type: str, position_ids: torch.Tensor) -> torch.Tensor:
    """The mask that transformers derives from position ids: (samples, queries, keys)."""
    config = NETWORKS[model_type]().config
    embedded = torch.zeros(*position_ids.shape, 1)
    mask = create_causal_mask(config, embedded, None, None, position_ids)
    if mask is None:
        return torch.ones(position_ids.shape[1], position_ids.shape[1]).tril().bool().expand(len(position_ids), -1, -1)
    return mask[:, 0]


def test_attention_in_10_000_samples_does_not_cross_records(packed: Packed) -> None:
    records = packed.dataset.records
    record_of = {records.document_of(record).number: record for record in range(sum(records.meta.num_records))}
    below = torch.ones(LENGTH, LENGTH).tril().bool()
    for first in range(0, SAMPLES, 500):
        batch = packed.dataset.train_batch(first, 500)
        width = batch["labels"].shape[1]
        owners = np.zeros((500, width), dtype=np.int64)
        for row in range(500):
            documents = packed.dataset.documents_of(first + row)
            ends = np.cumsum(records.lengths(np.asarray([record_of[document.number] for document in documents])) - 1)
            owners[row] = np.searchsorted(ends, np.arange(width), side="right").clip(max=len(ends) - 1)
        own = torch.from_numpy(owners)
        wanted = (own[:, :, None] == own[:, None, :]) & below[:width, :width]
        assert torch.equal(attention_mask("llama", torch.from_numpy(batch["position_ids"])), wanted)


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("model_type", list(NETWORKS))
def test_a_packed_record_has_the_same_logits_and_gradients_as_on_its_own(
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
    batch = {name: torch.from_numpy(values) for name, values in packed.dataset.train_batch(0, 4).items()}
    spec = small_spec(objective="chat", model_type=model_type, num_key_value_heads=4)
    learner = objective(spec, model)
    learner(**batch).sum().backward()
    together = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    model.zero_grad()

    for row in range(4):
        for span in spans({name: values[row].numpy() for name, values in batch.items()}):
            single = {name: batch[name][row : row + 1, span] for name in ("input_ids", "labels", "weights")}
            learner(**single).sum().backward()
            separate = model(input_ids=single["input_ids"], use_cache=False).logits[0]
            torch.testing.assert_close(logits[row, span], separate, rtol=0, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_sequences_of_one_record_need_no_mask(tmp_path: Path, packed: Packed) -> None:
    source = write_corpus(
        tmp_path / "chat", [json.dumps({"messages": conversation}) for conversation in packed.conversations[:40]]
    )
    source.kind = "chat"
    spec = small_spec(objective="chat", sequence_length=LENGTH, packing=False)
    directory = tokenized_records.tokenize_cached(
        [source], spec, packed.tokenizer, "made", tmp_path / "cache", lambda done, total: None
    )
    batch = SFTDataset(directory, spec, packed.tokenizer).train_batch(0, 16)
    positions = torch.from_numpy(batch["position_ids"])

    assert any((row == IGNORE_INDEX).any() for row in batch["labels"])
    config = NETWORKS["llama"]().config
    assert create_causal_mask(config, torch.zeros(*positions.shape, 1), None, None, positions) is None


@pytest.mark.parametrize("model_type", list(NETWORKS))
@torch.no_grad()
def test_the_loss_is_that_of_transformers_on_the_same_packed_records(packed: Packed, model_type: str) -> None:
    """transformers shifts the labels itself and has no weights, so its loss is computed for each weight."""
    torch.manual_seed(0)
    model = NETWORKS[model_type]().eval()
    spec = small_spec(objective="chat", model_type=model_type, num_key_value_heads=4)
    numbers = list(range(8))
    batch = packed.dataset.validation_batch(numbers)
    loss = objective(spec, model)(**{name: torch.from_numpy(values) for name, values in batch.items()})

    loss_sum = total = 0.0
    for row in ({name: values[number] for name, values in batch.items()} for number in numbers):
        ids, weights, positions = [], [], []
        for span in spans(row):
            ids += [int(row["input_ids"][span.start]), *row["labels"][span].tolist()]
            weights += [0.0, *row["weights"][span].tolist()]
            positions += range(span.stop - span.start + 1)
        inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions])}
        for weight in set(weights) - {0.0}:
            labels = [number if own == weight else IGNORE_INDEX for number, own in zip(ids, weights, strict=True)]
            count = sum(label != IGNORE_INDEX for label in labels)
            loss_sum += weight * count * float(model(labels=torch.tensor([labels]), **inputs).loss)
            total += weight * count
    assert float(loss) / num_targets(batch) == pytest.approx(loss_sum / total, rel=1e-5)
