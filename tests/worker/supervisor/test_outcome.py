"""How an attempt ended, from what its processes said and how they exited."""

from typing import Any

import pytest

from trainer.events import FailureEvent
from worker.supervisor.outcome import AttemptEvidence, classify_outcome

NAN = FailureEvent(seq=9, at=1.0, code="nan_loss", values={"series": "loss", "value": "nan", "step": 3})
FULL = FailureEvent(seq=9, at=1.0, code="disk_full", values={"step": 3, "free": 1, "needed": 2})
STRANGE = FailureEvent(seq=9, at=1.0, code="of tomorrow", values={})


@pytest.mark.parametrize(
    ("ending", "verb", "code", "values"),
    [
        (AttemptEvidence(code=0, exits={0: 0}, is_finished=True), "finish", "", {}),
        (AttemptEvidence(code=0, is_finished=True, stopped_for="cancel"), "finish", "", {}),
        (AttemptEvidence(code=70, exits={0: 70}, failure=NAN), "fail", "nan_loss", NAN.values),
        (AttemptEvidence(code=64, failure=STRANGE), "fail", "internal", {}),
        (AttemptEvidence(code=71, exits={0: -15, 1: 71}, step=4), "fail", "oom_host", {"step": 5}),
        (AttemptEvidence(code=71, exits={0: 71}, step=4, has_gpus=True), "fail", "oom_gpu", {"step": 5}),
        (AttemptEvidence(code=75, exits={0: 75}, stopped_for="cancel"), "release", "cancelled", {}),
        (AttemptEvidence(code=75, exits={0: 75}, stopped_for="shutdown"), "release", "shutdown", {}),
        (AttemptEvidence(code=None, stopped_for="cancel"), "release", "cancelled", {}),
        (AttemptEvidence(code=None, is_hung=True, step=6), "release", "hang", {"step": 7}),
        (AttemptEvidence(code=75, exits={0: 75}, stopped_for="pause"), "release", "paused", {}),
        (
            AttemptEvidence(code=-11, exits={0: -11}, is_out_of_memory=True),
            "release",
            "trainer_segfault",
            {"how": "rank 0: SIGSEGV"},
        ),
        (AttemptEvidence(code=-9, exits={0: 76, 1: -9}), "release", "trainer_killed", {"how": "rank 1: SIGKILL"}),
        (AttemptEvidence(code=76, exits={0: 76, 1: 76}), "release", "gang_rank_died", {"how": "exit code 76"}),
        (AttemptEvidence(code=77, exits={1: 77}), "fail", "trainer_bug", {"error": "?"}),
        (AttemptEvidence(code=-9, is_out_of_memory=True, step=6), "fail", "oom_host", {"step": 7}),
        (AttemptEvidence(code=69), "release", "gpu_busy", {}),
        (AttemptEvidence(code=75, failure=FULL), "release", "disk_full", FULL.values),
        (AttemptEvidence(code=-11, exits={0: -11}), "release", "trainer_segfault", {"how": "rank 0: SIGSEGV"}),
        (AttemptEvidence(code=3, exits={0: 3}), "release", "trainer_exit", {"how": "rank 0: exit code 3"}),
        (AttemptEvidence(code=-9, exits={0: -15, 1: -9}), "release", "trainer_killed", {"how": "rank 1: SIGKILL"}),
        (
            AttemptEvidence(code=1, exits={0: 1, 1: -6}),
            "release",
            "trainer_abort",
            {"how": "rank 0: exit code 1, rank 1: SIGABRT"},
        ),
        (AttemptEvidence(code=75, exits={0: 75}), "release", "gang_rank_died", {"how": "exit code 75"}),
        (AttemptEvidence(code=None), "release", "gang_rank_died", {"how": "no answer"}),
        (AttemptEvidence(code=0, exits={0: 0}), "release", "gang_rank_died", {"how": "exit code 0"}),
        (
            AttemptEvidence(code=0, is_finished=True, unpublished=(40, "No space left on device")),
            "release",
            "checkpoint_failed",
            {"step": 40, "why": "No space left on device"},
        ),
    ],
)
def test_an_exit_is_classified(ending: AttemptEvidence, verb: str, code: str, values: dict[str, Any]) -> None:
    outcome = classify_outcome(ending)
    assert (outcome.verb, outcome.code, outcome.values) == (verb, code, values)
