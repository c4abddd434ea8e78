"""F47, F62, F66: cancels that race with the end, text that is too short, and a long queue whose scheduler dies."""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults import invariants
from tests.faults.runs import SPEC, Run, Submit, upload
from tests.faults.stack import Installation
from tests.row_table import Report
from tests.waiting import until


@pytest.mark.row("F47-1", "cancel clicked twice at once, while it runs")
@pytest.mark.faults_core
def test_a_double_click_on_cancel_cancels_once(submit: Submit, report: Report) -> None:
    run = submit(max_steps=100_000, save_steps=1_000_000)
    run.until_step(10)
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: run.post("cancel").status_code, range(2)))
    assert answers == [202, 202]
    run.until("cancelling", "cancelled")
    visible_after = time.monotonic() - begin
    run.until("cancelled")
    over_after = time.monotonic() - begin
    assert run.post("cancel").status_code in (202, 409)
    assert [entry["to"] for entry in run.history()].count("cancelled") == 1
    invariants.check(run)
    report(f"visible after {visible_after:.2f} s, every process gone after {over_after:.1f} s")


@pytest.mark.row("F47-2", "cancel at the moment of success, 20 times")
def test_a_cancel_at_the_last_moment_ends_cancelled_or_succeeded(submit: Submit, report: Report) -> None:
    ends = []
    for number in range(20):
        run = submit(max_steps=20, save_steps=1000)
        run.until_step(15 + number // 4)
        answer = run.post("cancel")
        end = run.until("succeeded", "cancelled")["state"]
        assert answer.status_code in (202, 409)
        if answer.status_code == 409:
            assert end == "succeeded"
            assert answer.json()["title"].endswith(".")
        invariants.moves_are_in_the_table(run)
        invariants.no_process_is_left(run)
        ends.append(end)
    report(f"{ends.count('cancelled')} cancelled, {ends.count('succeeded')} succeeded, nothing else")


@pytest.mark.row("F62", "text shorter than one sequence; one document; no validation part")
def test_text_that_is_too_short_is_rejected_with_both_numbers(installation: Installation, report: Report) -> None:
    short = upload(installation, b"one sheep. " * 4)
    answer = installation.post("/api/v1/jobs", json={**SPEC, "corpora": [short], "vocab_size": None})
    assert answer.status_code == 422
    message = answer.json()["title"]
    assert "44 bytes" in message
    one = upload(installation, b"sheep " * 2000)
    run = Run(installation, one, vocab_size=None, max_steps=10)
    job = run.until("succeeded", "failed")
    assert job["state"] == "succeeded" or job["failure"]["code"] == "data_short"
    invariants.every_cause_is_a_sentence(run)
    report(message)


@pytest.mark.row("F66", "500 queued jobs, a scheduler killed five times")
def test_a_long_queue_keeps_its_order_when_the_scheduler_is_killed(
    installation: Installation, corpus: str, submit: Submit, report: Report
) -> None:
    first = submit(max_steps=100_000, save_steps=1_000_000)
    first.until("running")
    body = {**SPEC, "corpora": [corpus], "max_steps": 5, "save_steps": 1000}
    ids: list[str] = []
    lock = threading.Lock()

    def send(_number: int) -> None:
        with lock:  # the order of submits is the order of ids
            ids.append(installation.post("/api/v1/jobs", json=body).raise_for_status().json()["id"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(500)))
    seconds = []
    for _ in range(40):
        begin = time.monotonic()
        assert len(installation.get("/api/v1/jobs", params={"limit": 50}).json()["data"]) == 50
        seconds.append(time.monotonic() - begin)
    first.post("cancel")
    first.until("cancelled")
    for num_kills in range(1, 6):
        installation.kill9("scheduler")
        installation.restart("scheduler")
        until(lambda n=2 * num_kills: num_started(installation, ids) >= n, 60, "a job of the line")  # type: ignore[misc]
    order = installation.rows(
        "SELECT id FROM job WHERE started_at IS NOT NULL AND id = ANY(%s) ORDER BY started_at", ids
    )
    assert [row["id"] for row in order] == ids[: len(order)]
    installation.suspend("scheduler")
    for job_id in ids[len(order) :]:
        installation.post(f"/api/v1/jobs/{job_id}/cancel")
    installation.resume("scheduler")
    slowest = statistics.quantiles(seconds, n=20)[-1]
    report(f"{len(order)} started, in order; 95 % of list pages within {slowest * 1000:.0f} ms")


def num_started(stack: Installation, ids: list[str]) -> int:
    """How many of the jobs were started."""
    query = "SELECT count(*) AS number FROM job WHERE id = ANY(%s) AND started_at IS NOT NULL"
    return int(stack.rows(query, ids)[0]["number"])
