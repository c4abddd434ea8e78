"""How an attempt ended, from what its processes said and how they exited."""

from typing import Any

import pytest

from trainer.events import FailureEvent
from worker.supervisor.outcome import Ending, judge

NAN = FailureEvent(seq=9, at=1.0, code="nan_loss", values={"series": "loss", "value": "nan", "step": 3})
FULL = FailureEvent(seq=9, at=1.0, code="disk_full", values={"step": 3, "free": 1, "needed": 2})
STRANGE = FailureEvent(seq=9, at=1.0, code="of tomorrow", values={})


@pytest.mark.parametrize(
    ("ending", "verb", "code", "values"),
    [
        (Ending(code=0, exits={0: 0}, is_finished=True), "finish", "", {}),
        (Ending(code=0, is_finished=True, stopped_for="cancel"), "finish", "", {}),
        (Ending(code=70, exits={0: 70}, failure=NAN), "fail", "nan_loss", NAN.values),
        (Ending(code=64, failure=STRANGE), "fail", "internal", {}),
        (Ending(code=71, exits={0: -15, 1: 71}, step=4), "fail", "oom_host", {"step": 5}),
        (Ending(code=71, exits={0: 71}, step=4, has_gpus=True), "fail", "oom_gpu", {"step": 5}),
        (Ending(code=75, exits={0: 75}, stopped_for="cancel"), "release", "cancelled", {}),
        (Ending(code=75, exits={0: 75}, stopped_for="shutdown"), "release", "shutdown", {}),
        (Ending(code=None, stopped_for="cancel"), "release", "cancelled", {}),
        (Ending(code=None, is_hung=True, step=6), "release", "hang", {"step": 7}),
        (Ending(code=75, exits={0: 75}, stopped_for="pause"), "release", "paused", {}),
        (
            Ending(code=-11, exits={0: -11}, is_out_of_memory=True),
            "release",
            "trainer_segfault",
            {"how": "rank 0: SIGSEGV"},
        ),
        (Ending(code=-9, exits={0: 76, 1: -9}), "release", "trainer_killed", {"how": "rank 1: SIGKILL"}),
        (Ending(code=76, exits={0: 76, 1: 76}), "release", "gang_rank_died", {"how": "exit code 76"}),
        (Ending(code=77, exits={1: 77}), "fail", "trainer_bug", {"error": "?"}),
        (Ending(code=-9, is_out_of_memory=True, step=6), "fail", "oom_host", {"step": 7}),
        (Ending(code=69), "release", "gpu_busy", {}),
        (Ending(code=75, failure=FULL), "release", "disk_full", FULL.values),
        (Ending(code=-11, exits={0: -11}), "release", "trainer_segfault", {"how": "rank 0: SIGSEGV"}),
        (Ending(code=3, exits={0: 3}), "release", "trainer_exit", {"how": "rank 0: exit code 3"}),
        (Ending(code=-9, exits={0: -15, 1: -9}), "release", "trainer_killed", {"how": "rank 1: SIGKILL"}),
        (
            Ending(code=1, exits={0: 1, 1: -6}),
            "release",
            "trainer_abort",
            {"how": "rank 0: exit code 1, rank 1: SIGABRT"},
        ),
        (Ending(code=75, exits={0: 75}), "release", "gang_rank_died", {"how": "exit code 75"}),
        (Ending(code=None), "release", "gang_rank_died", {"how": "no answer"}),
        (Ending(code=0, exits={0: 0}), "release", "gang_rank_died", {"how": "exit code 0"}),
        (
            Ending(code=0, is_finished=True, unpublished=(40, "No space left on device")),
            "release",
            "checkpoint_failed",
            {"step": 40, "why": "No space left on device"},
        ),
    ],
)
def test_an_ending_is_judged(ending: Ending, verb: str, code: str, values: dict[str, Any]) -> None:
    outcome = judge(ending)
    assert (outcome.verb, outcome.code, outcome.values) == (verb, code, values)
