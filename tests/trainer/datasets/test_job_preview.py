"""The preview of a job that is not submitted is what its trainer will read, or a sample that says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.chat_fixtures import chats
from tests.trainer.datasets.test_batch_view import RUNS, prepared, records, run_command
from tests.trainer.runs import english, make_run, write_corpus
from trainer.batch_shapes import JOB_PREVIEW
from trainer.datasets.batch_view import view_batch
from trainer.datasets.job_preview import preview, take_sample
from trainer.run_dir import CorpusInput, RunDir

__all__ = ["prepared"]  # a fixture
ALL = 1 << 30


def unprepared(run_dir: RunDir, home: Path, **changes: Any) -> RunDir:
    """A directory for the preview of a run."""
    draft = RunDir(home / f"draft-{run_dir.path.name}")
    draft.path.mkdir(parents=True)
    spec = run_dir.spec().model_copy(update=changes)
    draft.create(spec, run_dir.inputs(1), 1)
    return draft


@pytest.mark.parametrize("objective", RUNS)
def test_the_preview_of_all_documents_is_the_batch_of_the_run(
    prepared: Callable[[str], RunDir], tmp_path: Path, objective: str
) -> None:
    run_dir = prepared(objective)
    shown = preview(unprepared(run_dir, tmp_path), 2, 3, 4, ALL)
    assert shown.failure is None
    assert shown.is_complete
    assert shown.batch == view_batch(run_dir, 2, 3, 4)


def test_epochs_that_are_not_counted_yet_do_not_matter(home: Path, tmp_path: Path) -> None:
    fields = {"num_train_epochs": 0.5, "max_steps": None, "warmup_steps": 0}
    run_dir = make_run(home, "preview-epochs", [english(20_000)])
    shown = preview(unprepared(run_dir, tmp_path, **fields), 1, 0, 2, ALL)
    assert shown.batch is not None
    assert len(shown.batch.samples) == 2


def test_of_a_large_corpus_a_sample_of_documents_is_shown_by_their_numbers(home: Path, tmp_path: Path) -> None:
    conversations = records(chats) * 40
    run_dir = make_run(home, "preview-large", conversations, kind="chat", objective="chat", sequence_length=96)
    size = sum(len(record.encode()) for record in conversations)
    shown = preview(unprepared(run_dir, tmp_path), 1, 0, 8, size // 4)
    assert shown.batch is not None
    assert not shown.is_complete
    assert 0 < shown.num_documents[0] <= len(conversations) // 4 + 1
    numbers = {document.number for sample in shown.batch.samples for document in sample.documents}
    assert max(numbers) > len(conversations) // 2  # from everywhere
    for sample in shown.batch.samples:
        for segment in sample.segments:
            assert segment.document is not None
            record = json.loads(conversations[segment.document.number])
            text = "".join(token.text for token in segment.tokens)
            assert record["messages"][0]["content"][:20] in text


def test_records_that_are_cut_or_left_out_are_counted(home: Path, tmp_path: Path) -> None:
    long = {"messages": [{"role": "user", "content": "x y z " * 400}, {"role": "assistant", "content": "never seen"}]}
    cut = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a b c d " * 400}]}
    run_dir = make_run(
        home,
        "preview-cut",
        [*records(chats), json.dumps(long), json.dumps(cut)],
        kind="chat",
        objective="chat",
        vocab_size=300,
    )
    shown = preview(unprepared(run_dir, tmp_path, sequence_length=128), 1, 0, 1, ALL)
    count = len(records(chats))
    assert (shown.num_dropped, shown.num_cut) == (1, 1)
    assert {remark.record: remark.kind for remark in shown.remarks} == {count + 1: "empty", count + 2: "cut"}


def test_the_tail_that_a_sequence_cuts_is_counted_beside_its_tokens(home: Path, tmp_path: Path) -> None:
    long = {"prompt": "Count:", "completion": " 1 2 3 4 5 6 7 8 9" * 40}
    documents = [json.dumps(long)] * 4
    fields = {"kind": "completion", "objective": "completion", "vocab_size": 300, "train_batch_size": 2}
    fields |= {"per_device_batch_size": 2, "packing": False}
    run_dir = make_run(home, "preview-tail", documents, **fields)
    whole, cut = (
        preview(unprepared(run_dir, tmp_path / str(length), sequence_length=length), 1, 0, 1, ALL).batch
        for length in (1024, 64)
    )
    assert whole is not None
    assert cut is not None
    ((all_tokens,), (kept,)) = (view.samples[0].segments for view in (whole, cut))
    assert (all_tokens.num_cut, kept.num_cut) == (0, len(all_tokens.tokens) - len(kept.tokens))
    assert kept.num_cut > 0


def test_records_that_are_left_out_of_a_sample_are_named_by_their_numbers(home: Path, tmp_path: Path) -> None:
    long = json.dumps({"prompt": "x y z " * 400, "completion": "never seen"})
    short = [json.dumps({"prompt": f"Count {n}:", "completion": f" it is {n}."}) for n in range(200)]
    documents = [*short, *[long] * 20]
    fields = {"kind": "completion", "objective": "completion", "vocab_size": 300, "sequence_length": 64}
    size = sum(map(len, documents))
    shown = preview(unprepared(make_run(home, "preview-names", documents, **fields), tmp_path), 1, 0, 1, size // 2)
    assert not shown.is_complete
    assert shown.remarks
    assert all(documents[remark.record - 1] == long for remark in shown.remarks)


def test_copies_that_are_held_out_are_counted(home: Path, tmp_path: Path) -> None:
    pairs = [json.dumps({"prompt": f"Count {n}:", "completion": f" it is {n}."}) for n in range(20)]
    fields = {"kind": "completion", "objective": "completion", "vocab_size": 300, "validation_fraction": 0.5}
    shown = preview(unprepared(make_run(home, "preview-copies", pairs * 2, **fields), tmp_path), 1, 0, 1, ALL)
    assert shown.num_in_training > 0


def labeled(*labels: str) -> list[str]:
    return [json.dumps({"text": f"A bottle of {label}, number {n}", "label": label}) for n, label in enumerate(labels)]


def test_validation_corpora_are_read_too(home: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", [english(20_000)]).model_copy(update={"id": "other"})
    fields = {"validation_fraction": 0, "validation_corpora": ["other"], "held_out": [other]}
    run_dir = make_run(home, "preview-validation", [english(20_000)], **fields)
    shown = preview(unprepared(run_dir, tmp_path), 1, 0, 1, ALL)
    assert shown.failure is None
    assert shown.num_validation > 0
    assert (len(shown.num_documents), shown.is_complete) == (1, True)
    long = write_corpus(tmp_path / "long", [english(200) for _n in range(500)]).model_copy(update={"id": "other"})
    run_dir = make_run(home, "preview-long-validation", [english(20_000)], **{**fields, "held_out": [long]})
    shown = preview(unprepared(run_dir, tmp_path), 1, 0, 1, 30_000)
    assert shown.num_validation > 0
    assert not shown.is_complete


@pytest.mark.parametrize("is_whole", [True, False])
def test_labels_of_validation_corpora_are_compared_with_whole_corpora_only(
    home: Path, tmp_path: Path, is_whole: bool
) -> None:
    other = write_corpus(tmp_path / "other", labeled("gin", "port"), "classification")
    records = labeled(*["rum", "gin"] * 200)
    fields = {"objective": "classification", "validation_corpora": ["other"], "vocab_size": 270}
    held_out = [other.model_copy(update={"id": "other"})]
    run_dir = make_run(home, f"preview-labels-{is_whole}", records, kind="classification", held_out=held_out, **fields)
    size = sum(len(record.encode()) for record in records)
    shown = preview(unprepared(run_dir, tmp_path), 1, 0, 1, ALL if is_whole else size * 2 // 5)
    assert (shown.failure.code if shown.failure else None) == ("label_unknown" if is_whole else None)


def test_what_does_not_fit_is_answered_as_the_failure_of_the_run(home: Path, tmp_path: Path) -> None:
    run_dir = make_run(home, "preview-short", [english(3_000)], vocab_size=None, num_key_value_heads=4)
    shown = preview(unprepared(run_dir, tmp_path, sequence_length=4096), 1, 0, 8, ALL)
    assert shown.batch is None
    assert shown.failure is not None
    assert shown.failure.code == "data_short"


def test_the_command_prints_it(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = unprepared(make_run(home, "preview-command", [english(20_000)]), tmp_path)
    assert run_command(["job-preview", str(draft.path), "--count=1"]) == 0
    shown = JOB_PREVIEW.validate_json(capsys.readouterr().out.splitlines()[-1])
    assert shown.batch is not None
    assert len(shown.batch.samples) == 1


def test_a_long_document_is_cut_between_characters(tmp_path: Path) -> None:
    text = "长" * 1_000
    (tmp_path / "text.bin").write_bytes(text.encode())
    np.asarray([len(text.encode())], dtype="<u8").tofile(tmp_path / "index.bin")
    sample = take_sample(CorpusInput(id="a", path=str(tmp_path), sha256="", kind="text"), tmp_path / "sample", 1_000)
    assert (tmp_path / "sample" / "text.bin").read_text() == "长" * 333
    assert (sample.num_documents, sample.is_complete) == (1, False)
