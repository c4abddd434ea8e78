"""Runs on several corpora with shares: what each batch is made of, and what the run reports."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, make_run, of_kind, write_corpus
from trainer.datasets import prepare
from trainer.datasets.base import Dataset, RecordDataset
from trainer.datasets.batch_view import view_batch
from trainer.datasets.factory import open_dataset
from trainer.events import Journal
from trainer.failure import Failure
from trainer.report import Reporter
from trainer.run_dir import RunDir

pytestmark = pytest.mark.usefixtures("encodes_in_process")

RECORDS = {
    "kind": "completion",
    "recipe": "completion",
    "objective": "completion",
    "vocab_size": None,
    "base_model": None,
    "validation_fraction": 0.1,
}


def mixed_run(home: Path, documents: tuple[list[str], list[str]], **fields: Any) -> RunDir:
    home.mkdir(exist_ok=True)
    kind = fields.get("kind", "text")
    other = write_corpus(home / "other", documents[1], kind).model_copy(update={"id": "other"})
    return make_run(home, "run", documents[0], corpora=["corpus", "other"], other_corpora=[other], **fields)


def prepared(run_dir: RunDir) -> Dataset:
    done = prepare.prepare(run_dir, 1, Reporter(Journal(run_dir.events_path(1))))
    return open_dataset(Path(done.tokens), run_dir.spec(), PreTrainedTokenizerFast.from_pretrained(done.tokenizer))


def corpora_seen(dataset: Dataset, count: int) -> Counter[int]:
    """By corpus, the samples that begin in it."""
    return Counter(dataset.documents_of(n)[0].corpus for n in range(count))


@pytest.mark.parametrize("split", ["default", "document"])
def test_text_is_seen_in_the_shares_of_the_weights(tmp_path: Path, split: str) -> None:
    paragraphs = [english(60_000)[at : at + 600] for at in range(0, 60_000, 600)]
    documents = paragraphs[:20], paragraphs[20:]
    fields = {"split": split, "max_steps": 30, "train_batch_size": 8, "validation_fraction": 0.2}
    run_dir = mixed_run(tmp_path, documents, corpus_weights=[3, 1], **fields)
    dataset = prepared(run_dir)
    assert corpora_seen(dataset, 240) == {0: 180, 1: 60}

    first, other = of_kind(run_dir, "data")[0].corpora
    assert (first.corpus, other.corpus) == ("corpus", "other")
    assert (first.share, other.share) == (0.75, 0.25)
    assert first.num_tokens + other.num_tokens == 32 * dataset.num_train
    assert first.num_epochs == pytest.approx(180 * 32 / first.num_tokens)
    assert other.num_epochs == pytest.approx(60 * 32 / other.num_tokens)
    assert {n for step in range(1, 4) for n in sample_corpora(run_dir, step)} == {0, 1}


def sample_corpora(run_dir: RunDir, step: int) -> list[int]:
    """The corpus that each sample of a batch begins in, as the page shows it; six of eight are of the first."""
    corpora = [sample.documents[0].corpus for sample in view_batch(run_dir, step).samples]
    assert Counter(corpora) == {0: 6, 1: 2}
    return corpora


@pytest.mark.parametrize("packing", [True, False])
def test_records_are_seen_in_the_shares_of_the_weights(tmp_path: Path, packing: bool) -> None:
    short = [json.dumps({"prompt": f"{n}:", "completion": f" {n}."}) for n in range(60)]
    long = [json.dumps({"prompt": f"Say {n}:", "completion": f" it is {n} and {n + 1}."}) for n in range(90)]
    run_dir = mixed_run(tmp_path, (short, long), packing=packing, corpus_weights=[1, 4], max_steps=20, **RECORDS)
    dataset = prepared(run_dir)
    assert isinstance(dataset, RecordDataset)
    assert corpora_seen(dataset, 160) == {0: 32, 1: 128}
    assert all(len({place.corpus for place in dataset.documents_of(n)}) == 1 for n in range(160))

    first, other = of_kind(run_dir, "data")[0].corpora
    seen = [use.num_tokens * use.num_epochs for use in (first, other)]
    assert [first.share, other.share] == pytest.approx([tokens / sum(seen) for tokens in seen])
    if not packing:
        assert first.share < 0.2  # its records are shorter
        kept = Counter(dataset.records.document_of(int(record)).corpus for record in dataset.records.train)
        assert [first.num_epochs, other.num_epochs] == pytest.approx([32 / kept[0], 128 / kept[1]])


def test_without_weights_each_corpus_is_seen_by_its_size(tmp_path: Path) -> None:
    run_dir = mixed_run(tmp_path, ([english(20_000)], [english(40_000)]), max_steps=10)
    dataset = prepared(run_dir)
    uses = of_kind(run_dir, "data")[0].corpora
    assert [use.num_epochs for use in uses] == [80 / dataset.num_train] * 2
    assert [use.share for use in uses] == pytest.approx([use.num_tokens / (32 * dataset.num_train) for use in uses])


def test_a_temperature_shows_the_smaller_corpus_more_often(tmp_path: Path) -> None:
    documents = [english(10_000)], [english(60_000)[10_000:]]
    run_dir = mixed_run(tmp_path, documents, corpus_temperature=2, max_steps=100)
    prepared(run_dir)
    first, other = of_kind(run_dir, "data")[0].corpora
    ratio = (first.num_tokens / other.num_tokens) ** 0.5
    assert first.share / other.share == pytest.approx(ratio, rel=0.01)


def test_a_corpus_without_a_training_sample_cannot_have_a_share(tmp_path: Path) -> None:
    documents = [english(20_000)], ["In the beginning."]  # the last sequence, which is held out
    with pytest.raises(Failure) as refused:
        prepared(mixed_run(tmp_path / "weights", documents, corpus_weights=[1, 1]))
    assert (refused.value.code, refused.value.values) == ("corpus_short", {"corpus": "other"})
