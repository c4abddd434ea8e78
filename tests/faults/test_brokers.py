"""F40 to F42, F45, F46: messages that arrive twice, late or never, and requests that are interrupted."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis
from celery import Celery

from app.core import queue
from tests.faults import invariants
from tests.faults.runs import SPEC, Golden, Run, Submit
from tests.faults.stack import Installation
from tests.row_table import Report
from tests.waiting import until


def celery_of(stack: Installation) -> Celery:
    """A Celery application that sends messages to the installation's workers."""
    app = Celery("hurt", broker=queue.broker_url(stack.valkey.url))
    app.conf.update(broker_transport_options={"global_keyprefix": "athanor:"}, task_ignore_result=True)
    return app


@pytest.mark.row("F40", "the same message 50 times")
@pytest.mark.faults_core
def test_a_message_delivered_fifty_times_starts_one_attempt(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden()
    installation.suspend("worker")
    run = submit()
    until(lambda: run.column("node"), what="a placed job")
    sender = celery_of(installation)
    for _ in range(50):
        sender.send_task(queue.START_JOB, args=[run.id], queue=queue.node_queue("ada"))
    installation.resume("worker")
    run.end()
    with redis.Redis.from_url(installation.valkey.url) as client:
        until(lambda: client.llen("athanor:node.ada") == 0, what="the last message taken")
    assert len(run.attempts()) == 1
    invariants.check(run, expected)
    report("1 attempt, 0 messages left")


@pytest.mark.parametrize("state", ["queued", "placed", "starting", "running"])
@pytest.mark.row("F41-1", "FLUSHALL")
def test_an_emptied_broker_delays_jobs_but_loses_none(
    installation: Installation, submit: Submit, golden: Golden, report: Report, state: str
) -> None:
    expected = golden()
    if state == "queued":
        installation.suspend("scheduler")
    elif state == "placed":
        installation.suspend("worker")
    run = submit()
    if state == "placed":
        until(lambda: run.column("node"), what="a placed job")
    else:
        run.until(state)
    installation.flushall()
    installation.resume("scheduler")
    installation.resume("worker")
    run.end()
    assert len(run.attempts()) == 1
    invariants.check(run, expected)
    report(f"{state}: 1 attempt")


@pytest.mark.row("F41-2", "no broker from before the submit until after the start of training")
def test_a_job_submitted_without_a_broker_starts_once_it_is_back(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden()
    installation.kill9("valkey")
    run = submit()
    until(lambda: run.column("hinted_at"), what="a hint")
    assert installation.get("/readyz").json()["broker"] == "degraded"
    installation.restart("valkey")
    run.end()
    assert len(run.attempts()) == 1
    invariants.check(run, expected)
    report("submit answered 201, readyz says degraded, started after")


@pytest.mark.row("F41-3", "the broker takes no writes")
def test_a_read_only_broker_delays_a_job(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden()
    with redis.Redis.from_url(installation.valkey.url) as client:
        client.replicaof("127.0.0.1", 1)  # a replica is read-only, and its primary is nowhere
        try:
            run = submit()
            until(lambda: run.column("hinted_at"))
        finally:
            client.replicaof("NO", "ONE")

    def is_over() -> bool:
        # Celery's consumer exits when its broker becomes a replica; `athanor up` would restart it.
        installation.restart("worker")
        return run.state() == "succeeded"

    until(is_over, 60, "its end")
    assert len(run.attempts()) == 1
    invariants.check(run, expected)
    report("submit answered 201, started after")


@pytest.mark.row("F42", "training outlasts any visibility timeout")
def test_a_message_is_acknowledged_before_training_starts(
    installation: Installation, submit: Submit, report: Report
) -> None:
    run = submit()
    run.until("running")
    with redis.Redis.from_url(installation.valkey.url) as client:
        until(lambda: client.hlen("athanor:unacked") == 0, what="no message that could be delivered again")
    run.end()
    assert len(run.attempts()) == 1
    invariants.check(run)
    report("no message is unacknowledged while it trains: none can come again")


@pytest.mark.row("F45", "web killed between the commit of a submit and its message")
@pytest.mark.faults_core
def test_a_job_starts_even_if_its_submitter_got_no_response(
    installation: Installation, corpus: str, golden: Golden, report: Report
) -> None:
    expected = golden()
    installation.arm("submitted")
    body = {**SPEC, "corpora": [corpus], "name": "unheard"}
    with pytest.raises(httpx.HTTPError):
        installation.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "f45"})
    assert installation.reached("submitted")
    installation.programs["web"].signal(9)  # type: ignore[arg-type]
    installation.restart("web")
    until(installation.is_ready, 60, "web")
    answer = installation.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "f45"})
    assert answer.status_code == 200  # the key's job, again
    run = Run.of_job(installation, answer.json())
    run.end()
    assert len(installation.rows("SELECT id FROM job WHERE name = 'unheard'")) == 1
    invariants.check(run, expected)
    report("the same key answers the same job; it ran once")


@pytest.mark.row("F46-1", "the client leaves during a submit and tries again with the same key")
def test_an_interrupted_and_repeated_submit_creates_one_job(
    installation: Installation, corpus: str, report: Report
) -> None:
    body: dict[str, Any] = {**SPEC, "corpora": [corpus], "name": "broken-off", "max_steps": 9}
    headers = {**installation.client.headers, "Idempotency-Key": "f46"}
    request = httpx.Request("POST", installation.url("/api/v1/jobs"), json=body, headers=headers)
    lines = [f"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{installation.port}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name.lower() != "host"]
    with socket.create_connection(("127.0.0.1", installation.port)) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + request.content)
    answer = installation.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "f46"})
    assert answer.status_code in (200, 201)
    run = Run.of_job(installation, answer.json())
    run.end()
    assert len(installation.rows("SELECT id FROM job WHERE name = 'broken-off'")) == 1
    invariants.check(run)
    report("1 job")


@pytest.mark.row("F46-2", "100 submits at once with the same key")
def test_a_hundred_submits_with_one_key_create_one_job(installation: Installation, corpus: str, report: Report) -> None:
    body = {**SPEC, "corpora": [corpus], "name": "hundred", "max_steps": 9}
    barrier = threading.Barrier(16)

    def send(number: int) -> tuple[int, str]:
        if number < 16:
            barrier.wait()
        answer = installation.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "f46-2"})
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(100)))
    assert sorted(status for status, _id in answers) == [200] * 99 + [201]
    assert len({job_id for _status, job_id in answers}) == 1
    assert len(installation.rows("SELECT id FROM job WHERE name = 'hundred'")) == 1
    Run.of_job(installation, installation.get(f"/api/v1/jobs/{answers[0][1]}").json()).end()
    report("one 201, ninety-nine 200, 1 job")
