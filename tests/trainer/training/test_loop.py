"""Complete runs: what they learn, what they report and which files they leave."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import SAMPLES, checkpoint_of, english, journal, make_run, of_kind, series, write_corpus
from trainer.data import tokenizer
from trainer.data.tokenized_text import TokenizedText
from trainer.datasets import prepare
from trainer.planning.counts import num_parameters
from trainer.report import Reporter
from trainer.run_dir import RunDir, verify
from trainer.spec import TrainSpec


def open_dataset(run_dir: RunDir) -> TokenizedText:
    prepared = prepare.read(run_dir, 1)
    return TokenizedText(Path(prepared.tokens), run_dir.spec(), tokenizer.load(Path(prepared.tokenizer)))


def unigram_loss(run_dir: RunDir) -> float:
    """The loss of always giving each token its share of the training text, on the validation text."""
    dataset = open_dataset(run_dir)
    counts = Counter(dataset.train_rows(0, dataset.num_train)[:, 1:].flatten().tolist())
    vocab_size = of_kind(run_dir, "tokenizer")[0].vocab_size
    total = counts.total() + vocab_size  # add one to each, as some tokens occur in the validation text only
    targets = dataset.validation_rows(list(range(dataset.num_validation)))[:, 1:].flatten().tolist()
    return -sum(math.log((counts[token] + 1) / total) for token in targets) / len(targets)


def test_the_validation_loss_falls_below_a_unigram_baseline(trained: RunDir) -> None:
    losses = series(trained, "eval_loss")

    assert list(losses) == [0, 50, 100, 150]
    assert losses[0] > unigram_loss(trained) > losses[150]


def test_chinese_is_learned_and_sampled_without_broken_characters(fork_server: GangForkServer, home: Path) -> None:
    lines = (SAMPLES / "song-lyrics.jsonl").read_text(encoding="utf-8").splitlines()[:400]
    verses = [json.loads(line)["text"] for line in lines]
    run_dir = make_run(home, "chinese", verses, vocab_size=1024, max_steps=150, learning_rate=0.01)

    assert fork_server.run(run_dir) == 0

    assert series(run_dir, "eval_loss")[150] < unigram_loss(run_dir)
    last = of_kind(run_dir, "sample")[-1]
    assert any("\u4e00" <= character <= "\u9fff" for character in last.text)


def test_every_step_reports_its_series(trained: RunDir) -> None:
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "bits_per_byte"):
        assert list(series(trained, name)) == list(range(1, 151))


def test_bits_per_byte_is_the_loss_over_the_bytes_of_the_same_text(trained: RunDir) -> None:
    dataset = open_dataset(trained)
    num_bytes = dataset.num_bytes(dataset.train_rows(0, 8)[:, 1:])
    loss = series(trained, "loss")[1]

    assert series(trained, "bits_per_byte")[1] == pytest.approx(loss * 8 * 32 / math.log(2) / num_bytes)


def test_phases_are_in_order_and_each_reaches_its_total(trained: RunDir) -> None:
    phases = of_kind(trained, "phase")
    order = list(dict.fromkeys(event.phase for event in phases))

    assert order == ["prepare", "tokenise", "load", "evaluate", "train", "save"]
    for name in order:
        last = [event for event in phases if event.phase == name][-1]
        assert last.done == last.total


def test_the_journal_names_tokenizer_data_samples_checkpoints_and_the_end(trained: RunDir) -> None:
    (made,) = of_kind(trained, "tokenizer")
    assert (made.vocab_size, made.trained, made.path) == (384, True, "attempts/1/tokenizer")
    (found,) = of_kind(trained, "data")
    assert found.num_train_sequences + found.num_validation_sequences == (found.num_tokens - 1) // 32
    assert [sample.step for sample in of_kind(trained, "sample")] == [0, 50, 100, 150]
    assert [saved.step for saved in of_kind(trained, "checkpoint")] == [100, 150]
    assert journal(trained)[-1].kind == "finished"


def test_the_log_has_the_key_numbers_every_ten_steps(trained: RunDir) -> None:
    log = trained.log_path.read_text()

    assert "step 10/150 loss " in log
    assert "tok/s" in log
    assert "Traceback" not in log
    assert "Warning" not in log


def test_a_checkpoint_has_the_reported_loss_in_transformers(trained: RunDir) -> None:
    directory = checkpoint_of(trained, 150)
    model = AutoModelForCausalLM.from_pretrained(directory)
    loaded_tokenizer = AutoTokenizer.from_pretrained(directory)
    dataset = open_dataset(trained)
    rows = torch.from_numpy(dataset.validation_rows(list(range(dataset.num_validation))))
    with torch.no_grad():
        loss = model(input_ids=rows, labels=rows).loss.item()

    assert dataset.num_validation <= 64  # so that the run measured all of it
    assert loss == pytest.approx(series(trained, "eval_loss")[150], rel=1e-5)
    assert loaded_tokenizer.decode(loaded_tokenizer("In the beginning 天地").input_ids) == "In the beginning 天地"
    assert model.num_parameters() == num_parameters(trained.spec(), 384)


def test_a_checkpoint_is_complete_and_records_its_origin(trained: RunDir) -> None:
    directory = checkpoint_of(trained, 100)
    manifest = verify(directory)
    state = json.loads((directory / "trainer_state.json").read_text())

    names = {entry["name"] for entry in manifest["files"]}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert manifest["spec_sha256"] == trained.spec().sha256()
    assert (manifest["step"], manifest["world_size"]) == (100, 1)
    assert state["num_tokens"] == 100 * 8 * 32
    assert state["metrics"]["eval_loss"] == series(trained, "eval_loss")[100]


def facts(run_dir: RunDir, steps: int) -> tuple[Any, ...]:
    entry = {entry["name"]: entry["sha256"] for entry in verify(checkpoint_of(run_dir, steps))["files"]}
    samples = [sample.text for sample in of_kind(run_dir, "sample")]
    return series(run_dir, "loss"), series(run_dir, "grad_norm"), samples, entry["model.safetensors"]


def test_the_bits_are_determined_by_spec_and_seed(fork_server: GangForkServer, home: Path) -> None:
    runs = [make_run(home, f"bits-{number}", seed=seed) for number, seed in enumerate((7, 7, 8))]
    for run_dir in runs:
        assert fork_server.run(run_dir) == 0
    first, second, third = (facts(run_dir, 20) for run_dir in runs)

    assert first == second
    assert first[0] != third[0]


@pytest.fixture(scope="module")
def one_rank(fork_server: GangForkServer, home: Path) -> RunDir:
    run_dir = make_run(home, "one-rank", max_steps=10)
    assert fork_server.run(run_dir) == 0
    return run_dir


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_two_ranks_use_the_same_samples_as_one(
    fork_server: GangForkServer, home: Path, one_rank: RunDir, zero_stage: int
) -> None:
    two_ranks = make_run(home, f"two-ranks-{zero_stage}", max_steps=10, num_processes=2, zero_stage=zero_stage)

    assert fork_server.run(two_ranks, 2) == 0, two_ranks.log_path.read_text()

    for name in ("loss", "grad_norm"):
        assert series(two_ranks, name) == pytest.approx(series(one_rank, name), rel=1e-4)
    assert series(two_ranks, "eval_loss") == pytest.approx(series(one_rank, "eval_loss"), rel=1e-4)
    mine, theirs = (AutoModelForCausalLM.from_pretrained(checkpoint_of(run, 10)) for run in (two_ranks, one_rank))
    for name, weights in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], weights, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "gpt2", "num_key_value_heads": 4},
        {"gradient_checkpointing": True, "tie_word_embeddings": False, "zero_stage": 2},
        {"per_device_batch_size": 8, "max_grad_norm": 0.0, "lr_scheduler_type": "linear", "zero_stage": 1},
    ],
    ids=["gpt2", "checkpointing", "unclipped"],
)
def test_other_specs_train_too(fork_server: GangForkServer, home: Path, fields: dict[str, Any]) -> None:
    run_dir = make_run(home, "-".join(["shape", *fields]), max_steps=30, learning_rate=0.01, **fields)

    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()

    assert series(run_dir, "eval_loss")[30] < series(run_dir, "eval_loss")[0] - 0.5
    assert min(series(run_dir, "grad_norm").values()) > 0
    spec: TrainSpec = run_dir.spec()
    model = AutoModelForCausalLM.from_pretrained(checkpoint_of(run_dir, 30))
    assert model.num_parameters() == num_parameters(spec, 384)


def test_an_imported_tokenizer_and_a_custom_prompt_are_used(
    fork_server: GangForkServer, home: Path, trained: RunDir
) -> None:
    given = str(trained.tokenizer_path(1))
    fields = {"tokenizer_path": given, "sample_prompt": "And God said", "max_steps": 2, "warmup_steps": 0}
    run_dir = make_run(home, "reuse", [english(20_000)], **fields)

    assert fork_server.run(run_dir) == 0

    (used,) = of_kind(run_dir, "tokenizer")
    assert (used.trained, used.sha256) == (False, of_kind(trained, "tokenizer")[0].sha256)
    assert of_kind(run_dir, "sample")[0].prompt == "And God said"


# ---- early stopping ------------------------------------------------------------------------------------------------


EARLY = {"max_steps": 12, "eval_steps": 2, "save_steps": 4, "early_stopping_patience": 2}
VALIDATED = {"validation_fraction": 0, "validation_corpora": ["digits"]}


@pytest.fixture(scope="module")
def converged(fork_server: GangForkServer, home: Path) -> RunDir:
    """A run that learns letters and is validated on digits, of which it knows less and less."""
    digits = write_corpus(home / "digits", [" ".join(str(n**3) for n in range(2_000))])
    run_dir = make_run(home, "converged", held_out=[digits], **EARLY, **VALIDATED)
    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()
    return run_dir


def last_step(run_dir: RunDir) -> int:
    return max(series(run_dir, "loss"))


def test_a_run_ends_after_evaluations_without_a_better_loss(converged: RunDir) -> None:
    losses = series(converged, "eval_loss")
    best = min(losses, key=lambda step: losses[step])
    assert list(losses) == list(range(0, best + 5, 2))
    assert best + 4 < EARLY["max_steps"]
    assert [event.step for event in of_kind(converged, "finished")] == [best + 4]
    assert [saved.step for saved in of_kind(converged, "checkpoint")][-1] == last_step(converged) == best + 4
    assert f"step {best + 4} is the last" in converged.log_path.read_text()


def test_a_run_that_may_end_early_saves_the_best_of_its_steps(fork_server: GangForkServer, home: Path) -> None:
    fields = {"max_steps": 7, "eval_steps": 3, "save_steps": 5}
    for patience, saved in ((None, [5, 7]), (3, [3, 5, 6, 7])):
        run_dir = make_run(home, f"best-{patience}", **fields, early_stopping_patience=patience)
        assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()
        losses = series(run_dir, "eval_loss")
        assert list(losses.values()) == sorted(losses.values(), reverse=True), "it learns"
        assert [checkpoint.step for checkpoint in of_kind(run_dir, "checkpoint")] == saved


def test_a_run_that_ended_early_and_is_resumed_trains_no_further_step(
    fork_server: GangForkServer, converged: RunDir, home: Path
) -> None:
    step = last_step(converged)
    inputs = converged.inputs(1)
    inputs.resume = str(checkpoint_of(converged, step))
    other = make_run(home, "continued", held_out=inputs.validation, **EARLY, **VALIDATED)
    other.create(other.spec(), other.inputs(1).model_copy(update={"resume": inputs.resume}), fence=1)
    assert fork_server.run(other) == 0, other.log_path.read_text()
    assert last_step(other) > step, "another job continues"

    before = len(of_kind(converged, "points"))
    converged.create(converged.spec(), inputs, fence=1)
    assert fork_server.run(converged) == 0, converged.log_path.read_text()
    assert len(of_kind(converged, "points")) == before
    assert [event.step for event in of_kind(converged, "finished")] == [step, step]


def test_samples_open_with_a_sentence_and_those_of_an_older_run_stay(trained: RunDir, tmp_path: Path) -> None:
    prompts = {sample.prompt for sample in of_kind(trained, "sample")}
    assert len(prompts) == 1
    (opening,) = prompts
    before, _, after = english().partition(opening[:30])
    assert opening[0].isupper()
    assert after, opening
    assert not before or before.rstrip()[-1] in ".!?:\n" or before.endswith("\n")

    older = RunDir(tmp_path / "older")
    shutil.copytree(trained.path, older.path)
    older.create(older.spec(), older.inputs(1), 2)
    file = older.attempt_path(1) / "prepared.json"
    prepared = prepare.read(older, 1)
    for value, text in (
        ("opening", prepared.model_dump_json()),
        (None, prepared.model_dump_json(exclude={"sample_prompt"})),
    ):
        file.write_text(text)
        assert prepare.prepare(older, 2, Reporter(None)).sample_prompt == value
        (older.attempt_path(2) / "prepared.json").unlink()
