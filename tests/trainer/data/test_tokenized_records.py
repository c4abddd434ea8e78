"""Records of a run: each learnt once an epoch, packed without waste, held out by chance."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, small_spec, write_corpus
from trainer.data import tokenized_records, tokenizer
from trainer.data.batch import IGNORE_INDEX
from trainer.data.tokenized_records import TokenizedRecords, pack_best_fit
from trainer.data.tokenized_text import Document
from trainer.datasets.causal import SFTDataset
from trainer.datasets.labelled import ClassificationDataset
from trainer.failure import Failure
from trainer.run_dir import CorpusInput
from trainer.spec import TrainSpec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    home = tmp_path_factory.mktemp("records")
    tokenizer.save(tokenizer.train([write_corpus(home / "c", [english()])], 400, lambda done, total: None), home / "t")
    return PreTrainedTokenizerFast.from_pretrained(home / "t")


def sums(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{n} + {n * n} = ", "completion": str(n + n * n)} for n in range(count)]


def write(home: Path, kind: str, found: list[dict[str, Any]]) -> CorpusInput:
    return write_corpus(home / kind, [json.dumps(record) for record in found]).model_copy(update={"kind": kind})


def tokenised(
    home: Path, made: PreTrainedTokenizerFast, spec: TrainSpec, kind: str, found: list[dict[str, Any]], **more: Any
) -> Path:
    source = write(home, kind, found)
    return tokenized_records.tokenize_cached(
        [source], spec, made, "made", home / "cache", lambda done, total: None, **more
    )


@given(lengths=st.lists(st.integers(1, 40), max_size=200))
def test_packing_puts_everything_once_and_overfills_no_box(lengths: list[int]) -> None:
    boxes = pack_best_fit(lengths, 40)

    assert sorted(number for box in boxes for number in box) == list(range(len(lengths)))
    assert all(0 < sum(lengths[number] for number in box) <= 40 for box in boxes)
    # No two boxes that are half empty: such could share one.
    assert sum(2 * sum(lengths[number] for number in box) <= 40 for box in boxes) <= 1


def test_every_record_is_trained_on_once_an_epoch_or_held_out(tmp_path: Path, made: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="completion", sequence_length=48, validation_fraction=0.2)
    samples = SFTDataset(tokenised(tmp_path, made, spec, "completion", sums(50)), spec, made)

    for epoch in range(2):
        drawn = range(epoch * samples.num_train, (epoch + 1) * samples.num_train)
        seen = [document for n in drawn for document in samples.documents_of(n)]
        assert len(seen) == len(set(seen)) == 40
    held_out = {samples.records.document_of(int(record)) for record in samples.records.validation}
    assert held_out | set(seen) == {Document(0, number) for number in range(50)}


def test_a_packed_sequence_starts_again_with_each_record(tmp_path: Path, made: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="completion", sequence_length=48, validation_fraction=0.2)
    samples = SFTDataset(tokenised(tmp_path, made, spec, "completion", sums(50)), spec, made)
    batch = samples.train_batch(0, samples.num_train)
    texts = {record["prompt"] + record["completion"] for record in sums(50)}

    found = set()
    for row in range(samples.num_train):
        starts = [*np.flatnonzero(batch["position_ids"][row] == 0), batch["labels"].shape[1]]
        for start, end in itertools.pairwise(starts):
            assert batch["position_ids"][row, start:end].tolist() == list(range(end - start))
            end -= int((batch["labels"][row, start:end] == IGNORE_INDEX).sum())  # padding goes on from the last record
            labels, weights = batch["labels"][row, start:end], batch["weights"][row, start:end]
            ids = [*batch["input_ids"][row, start:end], labels[-1]]
            assert batch["input_ids"][row, start + 1 : end].tolist() == labels[:-1].tolist()
            text = made.decode(ids)
            found.add(text.removesuffix("<|endoftext|>"))
            assert made.decode(labels[weights > 0]) == text.partition(" = ")[2]
    assert found <= texts
    assert len(found) == 40


def test_without_packing_a_sequence_has_one_record(tmp_path: Path, made: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="completion", sequence_length=48, packing=False)
    samples = SFTDataset(tokenised(tmp_path, made, spec, "completion", sums(20)), spec, made)

    assert samples.num_train == 19
    assert samples.train_batch(0, 4)["labels"].shape[1] < 48  # as wide as the longest needs


def test_a_batch_does_not_depend_on_how_it_is_split(tmp_path: Path, made: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="completion", sequence_length=48)
    samples = SFTDataset(tokenised(tmp_path, made, spec, "completion", sums(50)), spec, made)
    whole = samples.train_batch(0, 4)
    for n in range(4):
        part = samples.train_batch(n, 1)
        width = part["labels"].shape[1]
        assert all(np.array_equal(whole[name][n, :width], values[0]) for name, values in part.items())


def test_long_records_are_cut_and_those_without_an_answer_left_out(
    tmp_path: Path, made: PreTrainedTokenizerFast
) -> None:
    spec = small_spec(objective="completion", sequence_length=16)
    found = [
        *sums(4),
        {"prompt": "a", "completion": "In the beginning God created the heaven and the earth. " * 3},
        {"prompt": "In the beginning God created the heaven and the earth. " * 3, "completion": "a"},
        {"prompt": "<|endoftext|>", "completion": "a"},
    ]
    meta = TokenizedRecords(tokenised(tmp_path, made, spec, "completion", found), spec).meta

    assert (meta.num_records, meta.num_cut, meta.num_dropped) == ([5], 1, 2)


def test_too_few_records_are_refused(tmp_path: Path, made: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="completion", sequence_length=16)
    with pytest.raises(Failure) as few:
        TokenizedRecords(tokenised(tmp_path / "few", made, spec, "completion", sums(1)), spec)
    with pytest.raises(Failure) as none:
        tokenised(tmp_path / "none", made, spec, "completion", [{"prompt": "a " * 40, "completion": "b"}])

    assert (few.value.code, few.value.values) == ("records_few", {"found": 1, "dropped": 0})
    assert (none.value.code, none.value.values) == ("records_empty", {"dropped": 1})


def test_labels_are_numbered_by_name_and_a_held_out_corpus_has_the_same(
    tmp_path: Path, made: PreTrainedTokenizerFast
) -> None:
    spec = small_spec(objective="classification", model_type="bert", num_key_value_heads=4)
    found = [{"text": f"verse {n}", "label": "new" if n % 3 else "old"} for n in range(9)]
    trained = TokenizedRecords(tokenised(tmp_path, made, spec, "classification", found), spec)
    odd = [{"text": "verse", "label": "older"}]

    assert trained.meta.labels == ["new", "old"]
    assert trained.labels.tolist() == [1, 0, 0] * 3
    held_out = tokenised(tmp_path / "h", made, spec, "classification", found[:1], labels=trained.meta.labels)
    opened = ClassificationDataset(held_out, spec.model_copy(update={"validation_fraction": 1.0}), made)
    assert (opened.num_train, opened.validation_batch([0])["labels"].tolist()) == (0, [1])
    with pytest.raises(Failure, match="the label older is none of those that are trained on: new, old"):
        tokenised(tmp_path / "o", made, spec, "classification", odd, labels=trained.meta.labels)


def test_a_tokenizer_learns_from_the_texts_of_records_only(tmp_path: Path) -> None:
    talk = {"messages": [{"role": "user", "content": "light"}, {"role": "assistant", "content": "earth"}]}
    vocabulary = tokenizer.train([write(tmp_path, "chat", [talk] * 9)], None, lambda done, total: None).get_vocab()

    assert {"light", "earth"} <= set(vocabulary)
    assert not any("role" in token or "{" in token for token in vocabulary if len(token) > 1)
