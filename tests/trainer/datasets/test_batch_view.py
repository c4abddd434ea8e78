"""The view of a batch holds what the tensors of the trainer hold: they are rebuilt from it, for every objective."""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer.bases import make_base, start_from
from tests.trainer.chat_fixtures import chats, completions, make_tokenizer, preferences
from tests.trainer.datasets.rebuilt_batch import counted_padding, differing_arrays
from tests.trainer.runs import english, make_run
from tests.trainer.tasks import sentences, spellings
from trainer.__main__ import main
from trainer.batch_shapes import BATCH_VIEW
from trainer.data.batch import IGNORE_INDEX, num_rows, take_rows
from trainer.datasets import prepare
from trainer.datasets.base import Dataset
from trainer.datasets.batch_view import BatchUnavailable, view_batch
from trainer.datasets.factory import DATASET_CLASSES
from trainer.report import Reporter
from trainer.run_dir import RunDir

SAMPLES = int(os.environ.get("VIEWED_SAMPLES", "2000"))  # of each objective
BATCH_SIZE = 200


def records(function: Callable[[], list[dict[str, Any]]]) -> list[str]:
    return [json.dumps(record) for record in function()]


RUNS: dict[str, tuple[Callable[[], list[str]], dict[str, Any]]] = {
    "causal": (lambda: [english(20_000), english(5_000)], {}),
    "masked": (lambda: [english(20_000)], {"model_type": "bert"}),
    "span_corruption": (lambda: [english(20_000)], {"model_type": "t5"}),
    "seq2seq": (spellings, {"model_type": "t5", "kind": "seq2seq"}),
    "classification": (sentences, {"model_type": "bert", "kind": "classification"}),
    "chat": (lambda: records(chats), {"kind": "chat", "sequence_length": 96}),
    "completion": (lambda: records(completions), {"kind": "completion", "packing": False}),
    "dpo": (lambda: records(preferences), {"kind": "preference", "sequence_length": 64, "base_model": "base"}),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDir]:
    """A prepared run of each objective, prepared once in each module."""
    home = tmp_path_factory.mktemp("prepared")

    @cache
    def run(objective: str) -> RunDir:
        documents, fields = RUNS[objective]
        sizes = {"vocab_size": None, "num_key_value_heads": 4, "sequence_length": 48, "train_batch_size": BATCH_SIZE}
        run_dir = make_run(home, f"view-{objective}", documents(), objective=objective, **{**sizes, **fields})
        if objective == "dpo":
            start_from(run_dir, make_base(home / "view-base", "llama", Path(make_tokenizer(home))))
        prepare.prepare(run_dir, 1, Reporter(None))
        return run_dir

    return run


def the_dataset(run_dir: RunDir) -> Dataset:
    """The samples of a run, as trainer/training/loop.py opens them."""
    files = prepare.read(run_dir, 1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(files.tokenizer)
    return DATASET_CLASSES[run_dir.spec().objective](Path(files.tokens), run_dir.spec(), tokenizer)


@pytest.mark.parametrize("objective", RUNS)
def test_the_tensors_of_the_trainer_are_rebuilt_from_the_view(
    prepared: Callable[[str], RunDir], objective: str
) -> None:
    run_dir = prepared(objective)
    dataset = the_dataset(run_dir)

    for step in range(1, SAMPLES // BATCH_SIZE + 1):
        batch = dataset.train_batch((step - 1) * BATCH_SIZE, BATCH_SIZE)
        view = view_batch(run_dir, step)
        assert len(view.samples) == num_rows(batch) == view.num_samples == BATCH_SIZE
        for number, sample in enumerate(view.samples):
            row = {name: values[0] for name, values in take_rows(batch, slice(number, number + 1)).items()}
            assert differing_arrays(sample, row, objective) == [], (step, number)
            assert sample.num_padding == counted_padding(row, objective)
            assert sample.documents == dataset.documents_of((step - 1) * BATCH_SIZE + number)


def test_the_counts_are_those_of_the_whole_batch(prepared: Callable[[str], RunDir]) -> None:
    run_dir = prepared("chat")
    batch = the_dataset(run_dir).train_batch(0, BATCH_SIZE)

    view = view_batch(run_dir, 1, first=2, count=3)

    assert [sample.number for sample in view.samples] == [2, 3, 4]
    assert view.num_positions == batch["input_ids"].size
    assert view.num_learned == (batch["weights"] > 0).sum()
    assert view.num_padding == (batch["labels"] == IGNORE_INDEX).sum()


def test_a_packed_sequence_is_shown_record_by_record(prepared: Callable[[str], RunDir]) -> None:
    samples = view_batch(prepared("chat"), 1, count=20).samples
    texts = records(chats)

    for segment in [segment for sample in samples for segment in sample.segments]:
        assert segment.document is not None
        messages = json.loads(texts[segment.document.number])["messages"]
        learned = "".join(token.text for token in segment.tokens if token.role == "learned")
        answers = "".join(f"{message['content']}" for message in messages if message["role"] == "assistant")
        assert answers.startswith(learned.replace("<|endoftext|>", ""))  # the last ones may be cut
        assert learned


def test_labels_read_as_their_names(prepared: Callable[[str], RunDir]) -> None:
    texts = sentences()
    for sample in view_batch(prepared("classification"), 3, count=50).samples:
        (document,) = sample.documents
        assert sample.segments[0].label == json.loads(texts[document.number])["label"]


def test_the_command_prints_a_batch(prepared: Callable[[str], RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = prepared("masked")
    arguments = ["batch", str(run_dir.path), "--step", "2", "--first", "1", "--count", "2"]
    assert run_command(arguments) == 0
    assert BATCH_VIEW.validate_json(capsys.readouterr().out) == view_batch(run_dir, 2, 1, 2)


def run_command(arguments: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["trainer", *arguments])
        return main()


def test_a_run_that_is_not_prepared_has_no_batches(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(home, "view-early")
    with pytest.raises(BatchUnavailable, match="not_prepared"):
        view_batch(run_dir, 1)
    assert run_command(["batch", str(run_dir.path), "--step", "1"]) == 64
    assert "trainer: not_prepared: the data of the run are not tokenized yet" in capsys.readouterr().err


def test_a_run_whose_tokens_are_deleted_has_no_batches(home: Path) -> None:
    run_dir = make_run(home, "view-late", [english(6_000)])
    files = prepare.prepare(run_dir, 1, Reporter(None))
    Path(files.tokens).rename(home / "elsewhere")
    with pytest.raises(BatchUnavailable, match="data_deleted"):
        view_batch(run_dir, 1)
