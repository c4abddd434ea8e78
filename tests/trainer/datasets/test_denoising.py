"""Masking and span corruption: as in BERT and T5, and the same for a sample however a batch is split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast as Fast

from tests.trainer.runs import english, small_spec, write_corpus
from trainer.data import tokenized_text, tokenizer
from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.datasets import masking
from trainer.datasets.denoising import MaskedLMDataset, SpanCorruptionDataset, sentinel_ids
from trainer.planning.counts import span_lengths
from trainer.spec import TrainSpec


def no_progress(done: int, total: int) -> None:
    """A progress callback that does nothing."""


def tokenized_corpus(home: Path, model_type: str) -> tuple[Path, Fast]:
    """Tokenized text of many short documents, and the tokenizer of a model family."""
    source = write_corpus(home / "c", english(40_000).split("\n"))
    directory = tokenizer.train_cached([source], 600, home / "cache", no_progress, model_type)
    fast = Fast.from_pretrained(directory)
    tokens = tokenized_text.tokenize_cached(
        [source], tokenizer.load(directory), "made", home / "cache", no_progress, tokenizer.document_separator_id(fast)
    )
    return tokens, fast


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fast]:
    return tokenized_corpus(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fast]:
    return tokenized_corpus(tmp_path_factory.mktemp("t5"), "t5")


def masked_spec(**fields: Any) -> TrainSpec:
    return small_spec(objective="masked", model_type="bert", num_key_value_heads=4, **fields)


def spans_spec(**fields: Any) -> TrainSpec:
    return small_spec(
        **{"objective": "span_corruption", "model_type": "t5", "num_key_value_heads": 4, "vocab_size": None, **fields}
    )


def is_concatenation(batch: Batch, parts: list[Batch]) -> bool:
    return all(np.array_equal(values, np.concatenate([part[name] for part in parts])) for name, values in batch.items())


def test_of_ten_selected_tokens_eight_are_masked_one_is_replaced_and_one_stays(bert: tuple[Path, Fast]) -> None:
    tokens, fast = bert
    dataset = MaskedLMDataset(tokens, masked_spec(), fast)
    batch = dataset.train_batch(0, 2000)
    hidden = batch["labels"] != IGNORE_INDEX
    inputs, labels = batch["input_ids"][hidden], batch["labels"][hidden]

    assert (hidden.sum(axis=1) >= 1).all()
    assert hidden.mean() == pytest.approx(0.15 * 30 / 32, abs=0.02)
    assert (inputs == fast.mask_token_id).mean() == pytest.approx(0.8, abs=0.02)
    others = (inputs != fast.mask_token_id) & (inputs != labels)
    assert others.mean() == pytest.approx(0.1, abs=0.02)
    assert not np.isin(inputs[others], fast.all_special_ids).any()
    assert not np.isin(labels, fast.all_special_ids).any()


def test_a_masked_sample_is_text_between_cls_and_sep_tokens(bert: tuple[Path, Fast]) -> None:
    tokens, fast = bert
    dataset = MaskedLMDataset(tokens, masked_spec(), fast)
    batch = dataset.train_batch(0, 8)
    text = dataset.text.train_rows(0, 8)

    assert batch["input_ids"].shape == (8, 32)
    assert (batch["input_ids"][:, 0] == fast.cls_token_id).all()
    assert (batch["input_ids"][:, -1] == fast.sep_token_id).all()
    restored = np.where(batch["labels"] == IGNORE_INDEX, batch["input_ids"], batch["labels"])[:, 1:-1]
    assert np.array_equal(restored, text)


def test_noise_depends_only_on_seed_and_sample_number(bert: tuple[Path, Fast], t5: tuple[Path, Fast]) -> None:
    for dataset, other in (
        (MaskedLMDataset(bert[0], masked_spec(), bert[1]), MaskedLMDataset(bert[0], masked_spec(seed=7), bert[1])),
        (SpanCorruptionDataset(t5[0], spans_spec(), t5[1]), SpanCorruptionDataset(t5[0], spans_spec(seed=7), t5[1])),
    ):
        assert is_concatenation(dataset.train_batch(40, 8), [dataset.train_batch(n, 1) for n in range(40, 48)])
        assert is_concatenation(dataset.validation_batch([0, 3]), [dataset.validation_batch([n]) for n in (0, 3)])
        assert not np.array_equal(dataset.validation_batch([0])["labels"], other.validation_batch([0])["labels"])


def test_another_epoch_masks_other_tokens(bert: tuple[Path, Fast]) -> None:
    dataset = MaskedLMDataset(bert[0], masked_spec(), bert[1])
    batch = dataset.train_batch(0, 2 * dataset.num_train)
    texts = [
        tuple(row) for row in np.where(batch["labels"] == IGNORE_INDEX, batch["input_ids"], batch["labels"]).tolist()
    ]
    first, second = (sorted(range(at, at + dataset.num_train), key=lambda n: texts[n]) for at in (0, dataset.num_train))

    assert [texts[n] for n in first] == [texts[n] for n in second]
    assert sum(
        np.array_equal(batch["labels"][one], batch["labels"][two]) for one, two in zip(first, second, strict=True)
    ) < 0.05 * len(first)


def test_special_tokens_are_masked_only_if_there_are_no_others() -> None:
    ids, words = np.zeros(6, dtype=np.int64), np.arange(2, 9, dtype=np.int64)
    inputs, labels = masking.mask_tokens(ids, 0.15, 9, words, masking.sample_rng(1, 1))

    assert (labels != IGNORE_INDEX).sum() == 1
    assert len(inputs) == 6


@given(
    length=st.integers(8, 600),
    density=st.floats(0.05, 0.5),
    mean=st.floats(1.0, 20.0),
    number=st.integers(0, 2**62),
)
def test_source_and_target_together_are_the_text(length: int, density: float, mean: float, number: int) -> None:
    ids = np.arange(1000, 1000 + length, dtype=np.int64)
    marks = np.arange(100, 800, dtype=np.int64)
    source, target = masking.corrupt_spans(ids, density, mean, marks, 1, masking.sample_rng(3, number))

    assert source[-1] == target[-1] == 1
    count = int(np.isin(source, marks).sum())
    assert source[np.isin(source, marks)].tolist() == target[np.isin(target, marks)].tolist() == marks[:count].tolist()
    spans = np.split(target[:-1], np.flatnonzero(np.isin(target[:-1], marks)))[1:]
    rebuilt = [token for one in source[:-1] for token in (spans[one - 100][1:] if one < 1000 else [one])]
    assert rebuilt == ids.tolist()
    assert len(target) - 1 - count == min(max(round(length * density), 1), length - 1)


@pytest.mark.parametrize(
    ("length", "density", "mean", "raw", "target"),
    [(512, 0.15, 3.0, 568, 114), (256, 0.15, 3.0, 284, 58)],  # the first are T5's
)
def test_span_lengths_fill_the_sequence_as_in_t5(
    length: int, density: float, mean: float, raw: int, target: int
) -> None:
    assert span_lengths(length, density, mean) == (raw, target)


def test_decoder_inputs_are_the_labels_shifted_right(t5: tuple[Path, Fast]) -> None:
    dataset = SpanCorruptionDataset(t5[0], spans_spec(sequence_length=64), t5[1])
    batch = dataset.train_batch(0, 8)

    assert batch["input_ids"].shape == (8, 64)
    assert "attention_mask" not in batch
    assert (batch["decoder_input_ids"][:, 0] == t5[1].pad_token_id).all()
    assert np.array_equal(batch["decoder_input_ids"][:, 1:], batch["labels"][:, :-1])
    assert (batch["labels"][:, 0] == sentinel_ids(t5[1])[0]).all()


def test_a_sample_names_its_documents(bert: tuple[Path, Fast]) -> None:
    dataset = MaskedLMDataset(bert[0], masked_spec(), bert[1])
    documents = english(40_000).split("\n")
    sources = dataset.documents_of(5)
    text = bert[1].decode(dataset.text.train_rows(5, 1)[0])

    assert sources
    for piece in text.split("<|endoftext|>"):
        assert any(piece in documents[document.number] for document in sources)
