"""Splits by documents: who is held out, in text and in records."""

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, make_run, small_spec, write_corpus
from trainer.data import tokenized_text, tokenizer
from trainer.data.splits import Split, count_repeated, hold_out, split_documents
from trainer.data.tokenized_text import TokenizedText
from trainer.datasets import prepare
from trainer.datasets.base import Dataset, RecordDataset
from trainer.datasets.factory import open_dataset
from trainer.failure import Failure
from trainer.formats.corpus_kinds import GROUPS_FILE, group_hash
from trainer.report import Reporter
from trainer.run_dir import CorpusInput, RunDir
from trainer.spec import TrainSpec
from trainer.spec_errors import SpecError


def no_progress(done: int, total: int) -> None:
    pass


def split_of(sources: Sequence[CorpusInput], spec: TrainSpec) -> Split:
    split = split_documents(sources, spec)
    assert split is not None
    return split


def held_out(source: CorpusInput, documents: list[str], **fields: object) -> set[str]:
    mask = split_of([source], small_spec(**fields)).is_held_out
    return {document for document, is_out in zip(documents, mask, strict=True) if is_out}


def with_groups(source: CorpusInput, groups: Sequence[str]) -> CorpusInput:
    hashes = [group_hash([group.encode()]) if group else 0 for group in groups]
    np.asarray(hashes, dtype="<u8").tofile(Path(source.path) / GROUPS_FILE)
    return source


def test_documents_stay_on_their_side_in_later_versions_and_with_other_seeds(tmp_path: Path) -> None:
    documents = [f"document {n}" for n in range(1000)]
    first = held_out(write_corpus(tmp_path / "1", documents), documents, split="document", validation_fraction=0.2)
    later = [*documents[500:], *(f"new {n}" for n in range(500)), *documents[:400]]
    second = held_out(write_corpus(tmp_path / "2", later), later, split="document", validation_fraction=0.2, seed=5)
    assert first == {text for text in documents if group_hash([text.encode()]) < 0.2 * 2**64}
    assert 160 < len(first) < 240  # three standard deviations of 1000 draws
    assert second & set(documents) == first & set(later)


def test_copies_of_a_document_are_on_one_side(tmp_path: Path) -> None:
    documents = [f"document {n % 100}" for n in range(300)]
    split = split_of([write_corpus(tmp_path, documents)], small_spec(split="document", validation_fraction=0.3))
    texts = np.asarray([group_hash([document.encode()]) for document in documents], dtype=np.uint64)
    assert count_repeated(texts, split.is_held_out) == 0


def test_a_group_is_never_on_both_sides_and_its_copies_are_counted(tmp_path: Path) -> None:
    documents = [f"text {n % 40}" for n in range(200)]  # the same 40 texts of five authors each
    authors = [f"author {n // 8}" for n in range(200)]
    source = with_groups(write_corpus(tmp_path, documents), authors)
    split = split_of([source], small_spec(split="group", validation_fraction=0.3))
    sides = {
        author: {bool(out) for other, out in zip(authors, split.is_held_out, strict=True) if other == author}
        for author in authors
    }
    assert all(len(side) == 1 for side in sides.values())
    out = [text for text, is_out in zip(documents, split.is_held_out, strict=True) if is_out]
    trained = {text for text, is_out in zip(documents, split.is_held_out, strict=True) if not is_out}
    texts = np.asarray([group_hash([document.encode()]) for document in documents], dtype=np.uint64)
    assert count_repeated(texts, split.is_held_out) == sum(text in trained for text in out) > 0


def test_a_document_without_a_group_is_one_of_its_own(tmp_path: Path) -> None:
    documents = [f"document {n}" for n in range(50)]
    source = with_groups(write_corpus(tmp_path, documents), [""] * 50)
    by_group, by_document = (
        held_out(source, documents, split=split, validation_fraction=0.3) for split in ("group", "document")
    )
    assert by_group == by_document


def test_a_column_names_the_sides(tmp_path: Path) -> None:
    documents = ["a", "b", "c", "d"]
    source = with_groups(write_corpus(tmp_path, documents), ["train", "validation", "training", "dev"])
    assert held_out(source, documents, split="column") == {"b", "d"}
    assert held_out(source, documents, split="column", validation_fraction=0) == {"b", "d"}
    with_groups(source, ["train", "validation", "other", ""])
    with pytest.raises(Failure) as unnamed:
        split_documents([source], small_spec(split="column"))
    assert (unnamed.value.code, unnamed.value.values) == ("split_unnamed", {"documents": 2})


def test_each_label_has_its_share(tmp_path: Path) -> None:
    labels = ["a"] * 100 + ["b"] * 25 + ["c"] * 3 + ["d"]
    records = [json.dumps({"text": f"text {n}", "label": label}) for n, label in enumerate(labels)]
    source = write_corpus(tmp_path, records, "classification")
    spec = small_spec(
        recipe="classifier", objective="classification", split="label", validation_fraction=0.1, num_key_value_heads=4
    )
    mask = split_of([source], spec).is_held_out
    counts = {name: sum(out for label, out in zip(labels, mask, strict=True) if label == name) for name in "abcd"}
    assert counts == {"a": 10, "b": 2, "c": 1, "d": 0}


def test_one_long_label_among_many_takes_no_memory_for_each_record() -> None:
    hashes = np.arange(20_000, dtype=np.uint64)
    labels = ["a", "b"] * 9_999 + ["b", "c" * 5_000]
    tracemalloc.start()
    mask = hold_out("label", 0.1, hashes, hashes, labels)
    _size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000  # an array of fixed width has 400 MB
    assert np.flatnonzero(mask).tolist() == [*range(1_998), 1_999]  # 999 of a, 1000 of b


@pytest.mark.parametrize(
    ("split", "groups", "code"),
    [("group", None, "groups_missing"), ("group", ["x", "x"], "split_empty"), ("column", ["train"] * 2, "split_empty")],
)
def test_a_split_that_is_impossible_is_refused(tmp_path: Path, split: str, groups: list[str] | None, code: str) -> None:
    source = write_corpus(tmp_path, ["a", "b"])
    if groups is not None:
        with_groups(source, groups)
    with pytest.raises(Failure) as refused:
        split_documents([source], small_spec(split=split))
    assert refused.value.code == code


def test_the_fraction_0_needs_validation_corpora() -> None:
    with pytest.raises(SpecError) as refused:
        small_spec(validation_fraction=0)
    assert [problem.field for problem in refused.value.problems] == ["validation_fraction"]
    assert small_spec(validation_fraction=0, validation_corpora=["other"]).validation_fraction == 0


def test_a_default_split_leaves_the_hash_of_a_spec_as_it_was() -> None:
    spec = small_spec()
    assert spec.sha256() == "69f19e26ad79b712735e621180dec2f9a90ddbffd81e5b4118679e30b676c211"
    assert small_spec(split="document").sha256() != spec.sha256()


# ---- text -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    home = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(tokenizer.train([write_corpus(home / "c", [english()])], 400, no_progress), home / "t")
    return tokenizer.load(home / "t")


def tokenize(home: Path, bpe: Tokenizer, sources: list[CorpusInput], spec: TrainSpec) -> Path:
    split = split_documents(sources, spec)
    return tokenized_text.tokenize_cached(sources, bpe, "made", home / "cache", no_progress, split=split)


def test_training_and_validation_sequences_share_no_document(tmp_path: Path, bpe: Tokenizer) -> None:
    documents = [f"In the beginning God created {n} heavens and {n} earths. " * 5 for n in range(60)]
    sources = [write_corpus(tmp_path / "a", documents[:35]), write_corpus(tmp_path / "b", documents[35:])]
    spec = small_spec(split="document", validation_fraction=0.3)
    mask = split_of(sources, spec).is_held_out
    text = TokenizedText(tokenize(tmp_path, bpe, sources, spec), spec, bpe)
    end = bpe.token_to_id("<|endoftext|>")
    train, validation = (
        [token for n in np.flatnonzero(mask == side) for token in [*bpe.encode(documents[n]).ids, end]]
        for side in (False, True)
    )
    assert (text.num_train, text.num_validation) == ((len(train) - 1) // 32, (len(validation) - 1) // 32)
    expected = sorted(train[at : at + 33] for at in range(0, 32 * text.num_train, 32))
    assert sorted(text.train_rows(0, text.num_train).tolist()) == expected
    rows = text.validation_rows(list(range(text.num_validation))).tolist()
    assert rows == [validation[at : at + 33] for at in range(0, 32 * text.num_validation, 32)]
    for n in range(text.num_train):
        for place in text.documents_of(n):
            assert not mask[place.number + 35 * place.corpus]


def test_the_fraction_0_trains_on_all_sequences(tmp_path: Path, bpe: Tokenizer) -> None:
    source = write_corpus(tmp_path / "a", [english()])
    spec = small_spec(validation_fraction=0, validation_corpora=["other"])
    directory = tokenize(tmp_path, bpe, [source], spec)
    text, before = TokenizedText(directory, spec, bpe), TokenizedText(directory, small_spec(), bpe)
    assert (text.num_train, text.num_validation) == (before.num_train + before.num_validation, 0)


# ---- a whole preparation --------------------------------------------------------------------------------------------


def prepared_dataset(run_dir: RunDir) -> Dataset:
    done = prepare.prepare(run_dir, 1, Reporter(None))
    spec = run_dir.spec()
    return open_dataset(Path(done.tokens), spec, PreTrainedTokenizerFast.from_pretrained(done.tokenizer))


def test_records_are_trained_on_or_held_out_by_the_same_hashes(tmp_path: Path) -> None:
    records = [json.dumps({"prompt": f"Count {n % 90}:", "completion": f" it is {n % 90}."}) for n in range(120)]
    run_dir = make_run(
        tmp_path,
        "split",
        records,
        kind="completion",
        recipe="completion",
        objective="completion",
        split="document",
        validation_fraction=0.25,
        packing=False,
        vocab_size=None,
        base_model=None,
    )
    dataset = prepared_dataset(run_dir)
    assert isinstance(dataset, RecordDataset)
    expected = {n for n, record in enumerate(records) if group_hash([record.encode()]) < 0.25 * 2**64}
    assert set(dataset.records.validation.tolist()) == expected
    assert dataset.num_train == len(records) - len(expected)
    assert dataset.count_trained_on([dataset]) == [0]


def test_a_run_that_holds_nothing_out_is_validated_on_its_corpus(tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", [english(20_000)]).model_copy(update={"id": "other"})
    fields = {"validation_fraction": 0, "validation_corpora": ["other"], "held_out": [other]}
    dataset = prepared_dataset(make_run(tmp_path, "all", [english(20_000)], **fields))
    assert (dataset.num_train > 0, dataset.num_validation) == (True, 0)
