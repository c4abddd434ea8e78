"""The invariants I1 to I10 that hold after every fault: assertions on the database, the files and the responses."""

import json
import re
from itertools import pairwise
from pathlib import Path

import psutil

from app.core.models import TERMINAL
from app.jobs.lifecycle.transitions import TRANSITIONS
from tests.faults.runs import Run, repeated_steps
from tests.faults.stack import CANARY
from tests.waiting import until
from trainer.run_dir import verify

EXIT_SECONDS = 15


def check(run: Run, golden: str | None = None, intervals: int = 1) -> None:
    """Check all invariants of a job that has ended.

    `golden` is the hash that its weights must have; an attempt may repeat the steps of so many checkpoint `intervals`.
    """
    one_point_a_step(run)
    fences_rise(run)
    moves_are_in_the_table(run)
    if golden is not None:
        assert run.weights() == golden, "I4: the weights are not those of the undisturbed run"
    checkpoints_are_complete(run)
    no_process_is_left(run)
    few_steps_are_repeated(run, intervals)
    no_response_is_a_bare_error(run)
    every_cause_is_a_sentence(run)
    no_secret_is_exposed(run)


def one_point_a_step(run: Run) -> None:
    """I1: each step has exactly one live point."""
    job = run.stack.rows("SELECT state, step FROM job WHERE id = %s", run.id)[0]
    live = "SELECT step FROM metric_point WHERE job_id = %s AND series = 'loss' AND NOT archived ORDER BY step"
    steps = [row["step"] for row in run.stack.rows(live, run.id)]
    last = run.spec["max_steps"] if job["state"] == "succeeded" else job["step"]
    assert steps == list(range(1, last + 1)), f"I1: {len(steps)} points up to step {last}: {gaps(steps)}"


def gaps(steps: list[int]) -> list[tuple[int, int]]:
    """The pairs of neighbors in a list of steps that do not differ by one."""
    return [(a, b) for a, b in pairwise([0, *steps]) if b != a + 1]


def fences_rise(run: Run) -> None:
    """I2: the fencing number rises by one at each claim and never otherwise, and no job is claimed twice at once."""
    events = run.stack.rows("SELECT * FROM job_event WHERE job_id = %s ORDER BY seq", run.id)
    is_claimed = False
    for before, now in pairwise(events):
        is_claim = now["to_state"] == "starting" and now["from_state"] == "queued"
        assert now["fence"] == before["fence"] + is_claim, f"I2: {before} {now}"
        assert not (is_claim and is_claimed), "I2: two attempts have the job"
        is_claimed = now["to_state"] in ("starting", "running", "pausing", "cancelling")


def moves_are_in_the_table(run: Run) -> None:
    """I3: each transition is in the table, made by an allowed actor, and no job leaves a terminal state."""
    events = run.stack.rows("SELECT * FROM job_event WHERE job_id = %s ORDER BY seq", run.id)
    assert events[0]["from_state"] is None
    for before, now in pairwise(events):
        assert now["from_state"] == before["to_state"], f"I3: {before} {now}"
        if now["from_state"] != now["to_state"]:
            assert now["actor"] in TRANSITIONS[(now["from_state"], now["to_state"])], f"I3: {now}"
            assert now["from_state"] not in TERMINAL, f"I3: {now}"


def checkpoints_are_complete(run: Run) -> None:
    """I5: each ready checkpoint verifies, and each directory has a row or belongs to a superseded attempt."""
    rows = run.checkpoints()
    for row in rows:
        path = run.stack.data / row["path"]
        if row["state"] == "ready":
            assert verify(path)["step"] == row["step"], f"I5: {path}"
        elif row["state"] == "deleted":
            assert not path.exists(), f"I5: {path} is still there"
    paths_of_rows = {str(run.stack.data / row["path"]) for row in rows}
    newest = max(attempt["fence"] for attempt in run.attempts())
    orphans = [
        path
        for path in run.dir.path.glob("checkpoints/*")
        if str(path) not in paths_of_rows and json.loads((path / "SIGNATURE").read_text())["fence"] >= newest
    ]
    assert not orphans, f"I5: directories without a row: {orphans}"


def no_process_is_left(run: Run) -> None:
    """I6: all processes of the job exit within EXIT_SECONDS after its end."""
    until(lambda: not run.gang() and run.supervisor() is None, EXIT_SECONDS, "I6: the end of every process")


def few_steps_are_repeated(run: Run, intervals: int = 1) -> None:
    """I7: no attempt repeats more steps than lie between so many checkpoints."""
    most = repeated_steps(run.attempts())
    assert most <= intervals * run.spec["save_steps"] + 1, f"I7: {most} steps were trained again"


def no_response_is_a_bare_error(run: Run) -> None:
    """I8: no response has a 5xx status, except 503 with Retry-After while a part is down."""
    bare = [
        (path, status, retry_after)
        for path, status, retry_after in run.stack.responses
        if status >= 500 and not (status == 503 and retry_after)
    ]
    assert not bare, f"I8: {bare[:3]}"


def every_cause_is_a_sentence(run: Run) -> None:
    """I9: each entry of the history and a failure are complete sentences with all values filled in."""
    sentences = [entry["message"] for entry in run.history() if entry["reason"]]
    failure = run.job().get("failure")
    if failure:
        sentences += [failure["cause"], failure["next_step"]]
    for sentence in sentences:
        assert sentence, f"I9: {sentences}"
        assert re.match(r"^[A-Z\d].*[.?!]$", sentence, re.DOTALL), f"I9: {sentence!r}"
        assert not re.search(r"\?[ ,.)]|\{|Traceback", sentence), f"I9: {sentence!r}"


def no_secret_is_exposed(run: Run) -> None:
    """I10: neither the database's password nor an API token is in a log, in the run's files or in the history."""
    secrets = (CANARY.encode(), run.stack.token.encode())
    for path in [*run.stack.data.glob("logs/*.log"), *files_of(run.dir.path)]:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), f"I10: a secret is in {path}"
    assert CANARY not in str(run.history()), "I10: the database's password is in the history"


def trainers_have_no_secrets(run: Run) -> None:
    """I10, during training: no address, secret or setting of Athanor is in the environment of the job's processes."""
    for process in run.gang():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        assert not [name for name in environment if name.startswith("ATHANOR_") or name.endswith("_URL")], "I10"
        assert CANARY not in str(environment), "I10"


def files_of(directory: Path) -> list[Path]:
    """The text files of a run: journals, logs and JSON files."""
    return [path for path in directory.rglob("*") if path.suffix in (".jsonl", ".json", ".txt", ".log")]
