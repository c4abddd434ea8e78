"""Case files from the reader of uploads to the data that a run trains on: labels, lengths, weights, control tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, make_run, of_kind, write_corpus
from trainer.data import tokenizer
from trainer.data.chat_template import job_template
from trainer.data.record_encoding import RecordEncoder
from trainer.datasets import prepare
from trainer.datasets.base import RecordDataset
from trainer.datasets.factory import open_dataset
from trainer.events import DataEvent, Journal
from trainer.failure import Failure
from trainer.report import Reporter
from trainer.run_dir import RunDir

CASES = Path(__file__).parents[2] / "fixtures/cases/data"
LABELS = {"kind": "classification", "objective": "classification", "model_type": "bert", "num_key_value_heads": 4}
CHAT = {"kind": "chat", "objective": "chat", "sequence_length": 128}


def lines(name: str) -> list[str]:
    return (CASES / f"{name}.jsonl").read_text().splitlines()


def run_on(home: Path, name: str, validation: str = "", **fields: Any) -> RunDir:
    """A run on a case file, perhaps with another one for validation."""
    others = [write_corpus(home / validation, lines(validation), fields["kind"])] if validation else []
    others = [other.model_copy(update={"id": validation}) for other in others]
    names = [other.id for other in others]
    return make_run(home, f"run-{name}", lines(name), held_out=others, validation_corpora=names, **fields)


def prepared(run_dir: RunDir) -> tuple[DataEvent, RecordDataset]:
    """What a prepared run reports of its data, and its dataset."""
    done = prepare.prepare(run_dir, 1, Reporter(Journal(run_dir.events_path(1))))
    (event,) = of_kind(run_dir, "data")
    loaded = PreTrainedTokenizerFast.from_pretrained(done.tokenizer)
    dataset = open_dataset(Path(done.tokens), run_dir.spec(), loaded)
    assert isinstance(dataset, RecordDataset)
    return event, dataset


def test_a_validation_corpus_may_lack_labels(tmp_path: Path) -> None:
    event, dataset = prepared(run_on(tmp_path, "D14-train", "D14-validation-fewer-labels", **LABELS))
    assert list(dataset.labels) == ["a", "b"]
    assert event.held_out["D14-validation-fewer-labels"].num_sequences == len(lines("D14-validation-fewer-labels"))


def test_a_label_of_a_validation_corpus_that_is_not_trained_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure) as failure:
        prepared(run_on(tmp_path, "D14-train", "D14-validation-new-label", **LABELS))
    assert (failure.value.code, failure.value.values["label"]) == ("label_unknown", "c")


def test_one_record_trains_with_a_validation_corpus(tmp_path: Path) -> None:
    event, dataset = prepared(run_on(tmp_path, "D19-one-record", "D19-validation", **CHAT))
    assert (event.num_train_sequences, event.num_validation_sequences, dataset.records.train.tolist()) == (1, 0, [0])
    assert event.held_out["D19-validation"].num_sequences > 0


def test_copies_on_both_sides_of_the_split_are_counted(tmp_path: Path) -> None:
    event, dataset = prepared(run_on(tmp_path, "D21-duplicates", **CHAT))
    records = lines("D21-duplicates")
    trained = {records[number] for number in dataset.records.train}
    assert event.num_validation_in_training == sum(records[n] in trained for n in dataset.records.validation) > 0


def test_weights_of_answers_are_those_of_the_file(tmp_path: Path) -> None:
    records = [json.loads(line)["messages"] for line in lines("D20-weights")]
    _event, dataset = prepared(run_on(tmp_path, "D20-weights", **CHAT))
    weights = {
        dataset.records.document_of(n).number: set(dataset.records.segments(n)[0][1].tolist()) - {0.0}
        for n in (*dataset.records.train.tolist(), *dataset.records.validation.tolist())
    }
    expected = [{m.get("weight", 1) for m in messages if m["role"] == "assistant"} - {0} for messages in records]
    assert {weight for kept in expected for weight in kept} == {0.5, 1}
    assert weights == {number: kept for number, kept in enumerate(expected) if kept}


@pytest.mark.parametrize("name", ["D13-special-text", "D13-llama3-marks"])
def test_marks_in_texts_become_no_control_tokens(tmp_path: Path, name: str) -> None:
    trained = tokenizer.train([write_corpus(tmp_path / "c", [english()])], 400, lambda done, total: None)
    tokenizer.save(trained, tmp_path / "t")
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path / "t")
    marks = [
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        "<|im_start|>",
        "<|im_end|>",
    ]
    loaded.add_special_tokens({"additional_special_tokens": marks})
    loaded.chat_template = job_template("llama-3", loaded)
    encoder = RecordEncoder("chat", loaded)

    def controls(messages: list[dict[str, str]]) -> list[int]:
        return [number for number in encoder.encode_conversation(messages).ids if number in loaded.all_special_ids]

    conversations = [json.loads(line)["messages"] for line in lines(name)]
    assert any(mark in message["content"] for messages in conversations for message in messages for mark in marks)
    for messages in conversations:
        assert controls(messages) == controls([{**message, "content": "word"} for message in messages])
