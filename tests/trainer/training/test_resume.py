"""Going on from a checkpoint: the same bits, or on other machines the same samples and nearly the same loss."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import checkpoint_of, english, make_run, of_kind, series, write_corpus
from trainer import events
from trainer.run_dir import RunDir, verify

STEPS, SAVED = 9, 3


def run(fork_server: GangForkServer, run_dir: RunDir, **env: str) -> int:
    return fork_server.run(run_dir, run_dir.spec().num_processes, **env)


def resume_run(home: Path, name: str, before: RunDir, step: int = SAVED, **fields: Any) -> RunDir:
    """A new run that resumes from the checkpoint of another."""
    run_dir = make_run(home, name, **fields)
    inputs = run_dir.inputs(1)
    inputs.resume = str(checkpoint_of(before, step))
    run_dir.create(run_dir.spec(), inputs, fence=1)
    return run_dir


def weights(run_dir: RunDir, step: int = STEPS) -> str:
    entries = verify(checkpoint_of(run_dir, step))["files"]
    return str(next(entry["sha256"] for entry in entries if entry["name"] == "model.safetensors"))


def shape(num_processes: int, zero_stage: int, **fields: Any) -> dict[str, Any]:
    given = {"max_steps": STEPS, "save_steps": SAVED, "num_processes": num_processes, "zero_stage": zero_stage}
    return {"eval_steps": STEPS, **given, **fields}


@pytest.fixture(scope="module")
def undisturbed(fork_server: GangForkServer, home: Path) -> dict[tuple[int, int], RunDir]:
    """Undisturbed runs by world size and ZeRO stage, made when they are first asked for."""

    class Runs(dict[tuple[int, int], RunDir]):
        def __missing__(self, key: tuple[int, int]) -> RunDir:
            run_dir = make_run(home, f"whole-{key[0]}-{key[1]}", **shape(*key))
            assert run(fork_server, run_dir) == 0, run_dir.log_path.read_text()
            self[key] = run_dir
            return run_dir

    return Runs()


@pytest.mark.parametrize("key", [(1, 0), (1, 1), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)])
def test_a_resumed_run_ends_with_the_same_bits(
    fork_server: GangForkServer, home: Path, undisturbed: dict[tuple[int, int], RunDir], key: tuple[int, int]
) -> None:
    whole = undisturbed[key]
    again = resume_run(home, f"again-{key[0]}-{key[1]}", whole, **shape(*key))

    assert run(fork_server, again) == 0, again.log_path.read_text()

    (resumed,) = of_kind(again, "resumed")
    assert (resumed.step, resumed.differs) == (SAVED, [])
    for name in ("loss", "grad_norm", "eval_loss"):
        rest = {step: value for step, value in series(whole, name).items() if step > SAVED}
        assert series(again, name) == rest
    assert weights(again) == weights(whole)


@pytest.mark.parametrize(("before", "after"), [((2, 1), (1, 0)), ((1, 0), (2, 3)), ((2, 3), (2, 2)), ((1, 1), (2, 0))])
def test_another_world_size_or_stage_gives_nearly_the_same_loss(
    fork_server: GangForkServer,
    home: Path,
    undisturbed: dict[tuple[int, int], RunDir],
    before: tuple[int, int],
    after: tuple[int, int],
) -> None:
    again = resume_run(home, f"moved-{before}-{after}", undisturbed[before], **shape(*after))

    assert run(fork_server, again) == 0, again.log_path.read_text()

    assert {"world_size", "zero_stage"} & set(of_kind(again, "resumed")[0].differs)
    straight = {step: loss for step, loss in series(undisturbed[before], "loss").items() if step > SAVED}
    assert list(straight) == list(range(SAVED + 1, STEPS + 1))
    assert series(again, "loss") == pytest.approx(straight, rel=1e-4)


def test_a_bf16_run_resumes_with_the_same_bits(fork_server: GangForkServer, home: Path) -> None:
    fields = {**shape(1, 0, precision="bf16", max_steps=4, save_steps=2, eval_steps=100), "warmup_steps": 0}
    whole = make_run(home, "whole-bf16", **fields)
    assert run(fork_server, whole) == 0, whole.log_path.read_text()
    again = resume_run(home, "again-bf16", whole, 2, **fields)

    assert run(fork_server, again) == 0, again.log_path.read_text()

    assert weights(again, 4) == weights(whole, 4)


def test_a_muon_run_resumes_with_the_same_bits(fork_server: GangForkServer, home: Path) -> None:
    fields = shape(2, 0, optimizer="muon", lr_scheduler_type="warmup_stable_decay", max_steps=8, save_steps=4)
    whole = make_run(home, "whole-muon", **fields)
    assert run(fork_server, whole) == 0, whole.log_path.read_text()
    again = resume_run(home, "again-muon", whole, 4, **fields)

    assert run(fork_server, again) == 0, again.log_path.read_text()

    assert weights(again, 8) == weights(whole, 8)


@pytest.mark.parametrize(("zero_stage", "more"), [(2, {}), (3, {"offload_parameters": True})])
def test_a_run_with_an_offloaded_optimizer_resumes_with_the_same_bits(
    fork_server: GangForkServer, home: Path, zero_stage: int, more: dict[str, bool]
) -> None:
    fields = shape(2, zero_stage, offload_optimizer=True, max_steps=8, save_steps=4, **more)
    whole = make_run(home, f"whole-offload-{zero_stage}", **fields)
    assert run(fork_server, whole) == 0, whole.log_path.read_text()
    again = resume_run(home, f"again-offload-{zero_stage}", whole, 4, **fields)

    assert run(fork_server, again) == 0, again.log_path.read_text()

    assert weights(again, 8) == weights(whole, 8)


@pytest.mark.parametrize("shares", [{"corpus_weights": [3, 1]}, {"corpus_temperature": 2.0}], ids=str)
def test_a_killed_run_on_a_mixture_resumes_with_the_same_bits(
    fork_server: GangForkServer, home: Path, shares: dict[str, Any]
) -> None:
    name = next(iter(shares))
    other = write_corpus(home / f"other-{name}", [english(90_000)[60_000:]]).model_copy(update={"id": "other"})
    fields = shape(1, 0, corpora=["corpus", "other"], other_corpora=[other], **shares)
    whole = make_run(home, f"whole-{name}", **fields)
    assert run(fork_server, whole) == 0, whole.log_path.read_text()
    killed = make_run(home, f"killed-{name}", **fields)
    assert run(fork_server, killed, ATHANOR_FAULT="kill@5") != 0
    assert list(series(killed, "loss"))[-1] < STEPS
    again = resume_run(home, f"again-{name}", killed, **fields)

    assert run(fork_server, again) == 0, again.log_path.read_text()

    assert [corpus.share for corpus in of_kind(again, "data")[0].corpora] != [0.5, 0.5]
    rest = {step: loss for step, loss in series(whole, "loss").items() if step > SAVED}
    assert series(again, "loss") == rest
    assert weights(again) == weights(whole)


def test_one_flipped_bit_shows_in_the_loss(
    fork_server: GangForkServer, home: Path, undisturbed: dict[tuple[int, int], RunDir]
) -> None:
    again = resume_run(home, "flipped", undisturbed[1, 0], **shape(1, 0))

    assert run(fork_server, again, ATHANOR_FAULT=f"flip@{SAVED}") == 0

    before = {step: value for step, value in series(undisturbed[1, 0], "grad_norm").items() if step > SAVED}
    assert series(again, "grad_norm") != before


def test_a_smaller_micro_batch_uses_the_same_samples(
    fork_server: GangForkServer, home: Path, undisturbed: dict[tuple[int, int], RunDir]
) -> None:
    halved = resume_run(home, "micro-2", undisturbed[1, 0], **shape(1, 0))
    halved.create(halved.spec().model_copy(update={"per_device_batch_size": 2}), halved.inputs(1), fence=1)

    assert run(fork_server, halved) == 0

    assert of_kind(halved, "resumed")[0].differs == ["per_device_batch_size"]
    straight = {step: loss for step, loss in series(undisturbed[1, 0], "loss").items() if step > SAVED}
    assert series(halved, "loss") == pytest.approx(straight, rel=1e-4)


def test_changed_text_is_rejected_before_the_first_step(
    fork_server: GangForkServer, home: Path, undisturbed: dict[tuple[int, int], RunDir]
) -> None:
    again = resume_run(
        home,
        "other-text",
        undisturbed[1, 0],
        documents=["Another text. " * 3000],
        **shape(1, 0),
        tokenizer_path=str(undisturbed[1, 0].tokenizer_path(1)),
    )

    assert run(fork_server, again) == 64

    (failure,) = of_kind(again, "failure")
    assert failure.code == "data_changed"
    assert series(again, "loss") == {}


def test_another_tokenizer_is_rejected(
    fork_server: GangForkServer, home: Path, undisturbed: dict[tuple[int, int], RunDir]
) -> None:
    other = [english(120_000)[60_000:]]
    again = resume_run(home, "other-tokenizer", undisturbed[1, 0], documents=other, **shape(1, 0))

    assert run(fork_server, again) == 64

    assert of_kind(again, "failure")[0].code == "tokenizer_mismatch"


def test_a_non_finite_loss_ends_the_run_and_names_the_step(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "nan", **shape(1, 0))

    assert run(fork_server, run_dir, ATHANOR_FAULT="nan@5") == 70

    (failure,) = of_kind(run_dir, "failure")
    assert (failure.code, failure.values["step"]) == ("nan_loss", 5)
    assert [event.step for event in of_kind(run_dir, "checkpoint")] == [SAVED]


def test_a_loss_spike_ends_the_run_if_the_spec_says_skip(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "leap", **shape(1, 0, on_divergence="skip", max_steps=26, save_steps=26))

    assert run(fork_server, run_dir, ATHANOR_FAULT="spike@25") == 70

    (failure,) = of_kind(run_dir, "failure")
    assert (failure.code, failure.values["step"]) == ("loss_diverged", 25)


def test_a_single_loss_spike_does_not_end_a_run_that_stops_on_divergence(
    fork_server: GangForkServer, home: Path
) -> None:
    run_dir = make_run(home, "one-leap", **shape(1, 0, max_steps=26, save_steps=26))

    assert run(fork_server, run_dir, ATHANOR_FAULT="spike@25") == 0

    assert "the loss jumped" in run_dir.log_path.read_text()


def test_a_skipped_step_changes_no_weights(
    fork_server: GangForkServer, home: Path, undisturbed: dict[tuple[int, int], RunDir]
) -> None:
    again = resume_run(
        home,
        "skipped",
        undisturbed[1, 0],
        **shape(1, 0, max_steps=4, warmup_steps=1),
    )
    inputs = again.inputs(1)
    inputs.skipped_steps = [4]
    again.create(again.spec(), inputs, fence=1)

    assert run(fork_server, again) == 0, again.log_path.read_text()

    assert weights(again, 4) == weights(undisturbed[1, 0], SAVED)


def test_a_run_with_a_skipped_step_resumes_with_the_same_bits(fork_server: GangForkServer, home: Path) -> None:
    fields = shape(1, 0, on_divergence="skip")
    whole = make_run(home, "skips", **fields)
    inputs = whole.inputs(1)
    inputs.skipped_steps = [2]
    whole.create(whole.spec(), inputs, fence=1)
    assert run(fork_server, whole) == 0, whole.log_path.read_text()
    again = resume_run(home, "skips-again", whole, **fields)

    assert run(fork_server, again) == 0, again.log_path.read_text()

    assert weights(again) == weights(whole)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_full_disk_loses_a_checkpoint_but_not_the_run(
    fork_server: GangForkServer, home: Path, num_processes: int
) -> None:
    run_dir = make_run(home, f"full-{num_processes}", **shape(num_processes, 0))

    assert run(fork_server, run_dir, ATHANOR_FAULT="full@3") == 0, run_dir.log_path.read_text()

    (failed,) = of_kind(run_dir, "save_failed")
    assert (failed.step, failed.free) == (SAVED, 0)
    assert failed.needed > 0
    assert [event.step for event in of_kind(run_dir, "checkpoint")] == [6, 9]
    assert not checkpoint_of(run_dir, SAVED).exists()


def test_a_state_without_a_tensor_is_rejected(
    fork_server: GangForkServer, home: Path, undisturbed: dict[tuple[int, int], RunDir]
) -> None:
    copy = home / "copy"
    shutil.copytree(checkpoint_of(undisturbed[1, 0], SAVED), copy)
    for path in (copy / "resume").iterdir():
        path.unlink()
    again = resume_run(home, "stateless", undisturbed[1, 0], **shape(1, 0))
    inputs = again.inputs(1)
    inputs.resume = str(copy)
    again.create(again.spec(), inputs, fence=1)

    assert run(fork_server, again) == 64

    assert of_kind(again, "failure")[0].code == "checkpoint_unreadable"


def test_a_checkpoint_stores_the_state_of_the_loop(undisturbed: dict[tuple[int, int], RunDir]) -> None:
    known = json.loads((checkpoint_of(undisturbed[1, 0], STEPS) / "trainer_state.json").read_text())

    assert known["recent_losses"] == list(series(undisturbed[1, 0], "loss").values())
    assert known["metrics"]["eval_loss"] == series(undisturbed[1, 0], "eval_loss")[STEPS]


LARGE = {"hidden_size": 512, "intermediate_size": 1536}  # so much that a checkpoint is written beside the training


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_large_checkpoint_is_written_while_training_continues(
    fork_server: GangForkServer, home: Path, num_processes: int
) -> None:
    fields = shape(num_processes, 0, max_steps=6, **LARGE)
    whole = make_run(home, f"large-{num_processes}", **fields)
    assert run(fork_server, whole) == 0, whole.log_path.read_text()
    again = resume_run(home, f"large-again-{num_processes}", whole, **fields)

    assert run(fork_server, again) == 0, again.log_path.read_text()

    assert [event.step for event in of_kind(whole, "checkpoint")] == [3, 6]
    assert weights(again, 6) == weights(whole, 6)
    said = [event for event, _end in events.read(whole.events_path(1), 0)]
    order = [(event.kind, event.step) for event in said if event.kind in ("points", "checkpoint")]
    assert order.index(("checkpoint", 3)) > order.index(("points", 4))


def test_a_killed_writer_loses_its_checkpoint_but_not_the_run(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "lost-writer", **shape(1, 0, max_steps=4, warmup_steps=1, save_steps=2, **LARGE))

    assert run(fork_server, run_dir, ATHANOR_FAULT="writer@2") == 0, run_dir.log_path.read_text()

    (failed,) = of_kind(run_dir, "save_failed")
    assert (failed.step, failed.why) == (2, "the process that wrote it ended with -9")
    assert [event.step for event in of_kind(run_dir, "checkpoint")] == [4]
    assert not (run_dir.attempt_path(1) / "step-2").exists()


def test_a_failing_run_keeps_the_checkpoint_being_written(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "fails-while-saving", **shape(1, 0, max_steps=4, warmup_steps=1, save_steps=2, **LARGE))

    assert run(fork_server, run_dir, ATHANOR_FAULT="nan@3") == 70

    assert [event.step for event in of_kind(run_dir, "checkpoint")] == [2]


def test_epochs_become_steps_once_and_resume_with_the_same_bits(fork_server: GangForkServer, home: Path) -> None:
    batch = {"train_batch_size": 8, "save_steps": 3, "eval_steps": 100}
    asked = make_run(home, "epochs", [english(4_000)], **batch, max_steps=None, num_train_epochs=0.8)
    assert run(fork_server, asked) == 0, asked.log_path.read_text()
    data = of_kind(asked, "data")[0]
    # Counted by hand: sequences of 32 tokens with one token more, 5 % of them held out.
    num_sequences = (data.num_tokens - 1) // 32
    num_train = num_sequences - max(1, int(num_sequences * 0.05))
    steps = math.ceil(0.8 * num_train / 8)
    assert (data.num_train_sequences, data.max_steps) == (num_train, steps)
    assert len(series(asked, "loss")) == steps > 3
    assert data.num_epochs == pytest.approx(0.8, abs=8 / num_train)

    in_steps = make_run(home, "epochs-steps", [english(4_000)], **batch, max_steps=steps)
    assert run(fork_server, in_steps) == 0
    resumed = resume_run(
        home, "epochs-resumed", asked, 3, documents=[english(4_000)], **batch, max_steps=None, num_train_epochs=0.8
    )
    assert run(fork_server, resumed) == 0, resumed.log_path.read_text()
    assert series(asked, "learning_rate") == series(in_steps, "learning_rate")
    assert weights(asked, steps) == weights(in_steps, steps) == weights(resumed, steps)
