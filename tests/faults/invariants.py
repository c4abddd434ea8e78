"""What must hold after every fault: I1 to I10, each a function over the database, the files and the answers seen."""

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

GONE_SECONDS = 15


def check(run: Run, golden: str | None = None, intervals: int = 1) -> None:
    """All of them, for a job that has ended. `golden` is the hash that its weights must have."""
    one_point_a_step(run)
    fences_rise(run)
    moves_are_in_the_table(run)
    if golden is not None:
        assert run.weights() == golden, "I4: the weights are not those of the undisturbed run"
    checkpoints_are_whole(run)
    no_process_is_left(run)
    little_was_repeated(run, intervals)
    nobody_got_a_bare_error(run)
    every_cause_is_a_sentence(run)
    no_secret_is_anywhere(run)


def one_point_a_step(run: Run) -> None:
    """I1: one live point for each step, none missing, none twice."""
    job = run.stack.rows("SELECT state, step FROM job WHERE id = %s", run.id)[0]
    live = "SELECT step FROM metric_point WHERE job_id = %s AND series = 'loss' AND NOT archived ORDER BY step"
    steps = [row["step"] for row in run.stack.rows(live, run.id)]
    last = run.spec["max_steps"] if job["state"] == "succeeded" else job["step"]
    assert steps == list(range(1, last + 1)), f"I1: {len(steps)} points up to step {last}: {odd(steps)}"


def odd(steps: list[int]) -> list[tuple[int, int]]:
    """Where a row of steps does not go up by one."""
    return [(a, b) for a, b in pairwise([0, *steps]) if b != a + 1]


def fences_rise(run: Run) -> None:
    """I2: the number only rises, by one at each claim, and nobody claims what is held."""
    events = run.stack.rows("SELECT * FROM job_event WHERE job_id = %s ORDER BY seq", run.id)
    held = False
    for before, now in pairwise(events):
        is_claim = now["to_state"] == "starting" and now["from_state"] == "queued"
        assert now["fence"] == before["fence"] + is_claim, f"I2: {before} {now}"
        assert not (is_claim and held), "I2: two hold the job"
        held = now["to_state"] in ("starting", "running", "pausing", "cancelling")


def moves_are_in_the_table(run: Run) -> None:
    """I3: each move is one of the table's, by who may make it, and nothing leaves an end."""
    events = run.stack.rows("SELECT * FROM job_event WHERE job_id = %s ORDER BY seq", run.id)
    assert events[0]["from_state"] is None
    for before, now in pairwise(events):
        assert now["from_state"] == before["to_state"], f"I3: {before} {now}"
        if now["from_state"] != now["to_state"]:
            assert now["actor"] in TRANSITIONS[(now["from_state"], now["to_state"])], f"I3: {now}"
            assert now["from_state"] not in TERMINAL, f"I3: {now}"


def checkpoints_are_whole(run: Run) -> None:
    """I5: every published row verifies, and every directory has its row, or is of an attempt that was superseded."""
    rows = run.checkpoints()
    for row in rows:
        path = run.stack.data / row["path"]
        if row["state"] == "ready":
            assert verify(path)["step"] == row["step"], f"I5: {path}"
        elif row["state"] == "deleted":
            assert not path.exists(), f"I5: {path} is still there"
    known = {str(run.stack.data / row["path"]) for row in rows}
    newest = max(attempt["fence"] for attempt in run.attempts())
    strays = [
        path
        for path in run.dir.path.glob("checkpoints/*")
        if str(path) not in known and json.loads((path / "SIGNATURE").read_text())["fence"] >= newest
    ]
    assert not strays, f"I5: directories without a row: {strays}"


def no_process_is_left(run: Run) -> None:
    """I6: soon after the end no process of the job is left."""
    until(lambda: not run.gang() and run.supervisor() is None, GONE_SECONDS, "I6: the end of every process")


def little_was_repeated(run: Run, intervals: int = 1) -> None:
    """I7: no attempt trained more again than lies between so many checkpoints."""
    most = repeated_steps(run.attempts())
    assert most <= intervals * run.spec["save_steps"] + 1, f"I7: {most} steps were trained again"


def nobody_got_a_bare_error(run: Run) -> None:
    """I8: no 5xx, but 503 with Retry-After while a part is away."""
    bare = [seen for seen in run.stack.seen if seen[1] >= 500 and not (seen[1] == 503 and seen[2])]
    assert not bare, f"I8: {bare[:3]}"


def every_cause_is_a_sentence(run: Run) -> None:
    """I9: every line of the history and a failure are told in whole sentences, with their numbers."""
    told = [entry["message"] for entry in run.history() if entry["reason"]]
    failure = run.job().get("failure")
    if failure:
        told += [failure["cause"], failure["next_step"]]
    for sentence in told:
        assert sentence, f"I9: {told}"
        assert re.match(r"^[A-Z\d].*[.?!]$", sentence, re.DOTALL), f"I9: {sentence!r}"
        assert not re.search(r"\?[ ,.)]|\{|Traceback", sentence), f"I9: {sentence!r}"


def no_secret_is_anywhere(run: Run) -> None:
    """I10: neither the database's password nor a token is in a log, a run's files or a trainer's environment."""
    secrets = (CANARY.encode(), run.stack.token.encode())
    places = [*run.stack.data.glob("logs/*.log"), *files_of(run.dir.path)]
    for path in places:
        found = [secret for secret in secrets if secret in path.read_bytes()]
        assert not found, f"I10: a secret is in {path}"
    assert CANARY not in str(run.history()), "I10: the database's password is in the history"


def trainer_is_told_nothing(run: Run) -> None:
    """I10, while it trains: no address, no secret and no setting of ours is in its environment."""
    for process in run.gang():
        try:
            told = process.environ()
        except psutil.Error:
            continue
        assert not [name for name in told if name.startswith("ATHANOR_") or name.endswith("_URL")], "I10"
        assert CANARY not in str(told), "I10"


def files_of(directory: Path) -> list[Path]:
    """The small files of a run: journals, logs, notes."""
    return [path for path in directory.rglob("*") if path.suffix in (".jsonl", ".json", ".txt", ".log")]
