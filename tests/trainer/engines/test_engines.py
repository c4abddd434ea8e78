"""The engine alone: the learning rate, and steps that do not depend on DeepSpeed's configuration."""

import importlib
import json

import numpy as np
import pytest

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import small_spec
from trainer.engines.optimizers import learning_rate

PEAK = 0.01


def rates(**fields: object) -> list[float]:
    spec = small_spec(learning_rate=PEAK, warmup_steps=10, max_steps=100, **fields)
    return [learning_rate(spec, step) for step in range(1, 101)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_rises_over_the_warmup_from_the_first_step(schedule: str) -> None:
    assert rates(lr_scheduler_type=schedule)[:10] == pytest.approx([PEAK * step / 10 for step in range(1, 11)])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_falls_every_step_and_is_never_zero(schedule: str) -> None:
    falling = rates(lr_scheduler_type=schedule)[9:]

    assert falling == sorted(falling, reverse=True)
    assert len(set(falling)) == len(falling)
    assert 0 < falling[-1] < PEAK / 50


def test_a_constant_rate_stays() -> None:
    assert set(rates(lr_scheduler_type="constant")[9:]) == {PEAK}


def test_the_cosine_is_at_half_after_half_of_the_steps() -> None:
    assert rates(lr_scheduler_type="cosine")[54] == pytest.approx(PEAK / 2, rel=0.02)


def test_without_warmup_the_rate_starts_at_the_peak() -> None:
    spec = small_spec(learning_rate=PEAK, warmup_steps=0, max_steps=1)

    assert learning_rate(spec, 1) == PEAK


def test_a_stable_rate_decays_over_the_last_steps_only() -> None:
    found = rates(lr_scheduler_type="warmup_stable_decay", decay_steps=40)

    assert set(found[9:60]) == {PEAK}
    assert found[60:] == sorted(found[60:], reverse=True)
    assert 0 < found[-1] == pytest.approx(PEAK / 41)


def test_the_rate_decays_over_a_fifth_of_the_steps_by_default() -> None:
    found = rates(lr_scheduler_type="warmup_stable_decay")

    assert set(found[9:80]) == {PEAK}
    assert found[80] < PEAK


def test_every_precision_and_zero_stage_takes_the_same_steps(fork_server: GangForkServer) -> None:
    done = fork_server.command("tests.trainer.precisions").result()
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    assert len(runs) == 10
    for run in runs:
        expected = {"fp32": 1e-4, "bf16": 1e-2}[run["precision"]]
        assert np.array(run["steps"]) == pytest.approx(np.array(runs[0]["steps"]), rel=expected)


def test_deepspeed_does_not_import_mlflow() -> None:
    importlib.import_module("trainer.engines.base")
    assert not importlib.import_module("deepspeed.autotuning.autotuner").has_mlflow
