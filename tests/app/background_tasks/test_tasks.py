"""The mechanism of background tasks: who may start, what a lost, cancelled or deleted one leaves, and its limits."""

import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.testclient import TestClient

from app.background_tasks import outcomes
from app.core import background_tasks, db, disk, storage
from app.core.background_tasks import LANES, MAX_LOSSES, MAX_RUNNING_PER_USER, lane_of
from app.core.json_shapes import FailureReason, TaskOptions, TaskProgress
from app.core.models import TASK_KINDS, BackgroundTask, Corpus
from app.core.node_budget import node_budget
from app.core.settings import settings
from tests.background import NODE, claim, run_waiting
from tests.users import Person
from tests.waiting import until
from worker.background import export_and_evaluate, model_import, parse
from worker.background import lease as lease_module
from worker.background.lease import Lease
from worker.background.runner import WORK, TaskRunner


@pytest.fixture(autouse=True)
def empty_queue(database: str) -> Iterator[None]:
    """No task from another test."""
    yield
    with db.transaction() as session:
        session.execute(delete(BackgroundTask))


def upload(api: TestClient, name: str = "text.txt") -> str:
    """Upload a corpus; answers its ID."""
    answer = api.post(f"/api/v1/corpora?filename={name}", content=b"In the beginning")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def corpus_of(api: TestClient, corpus_id: str) -> dict[str, Any]:
    corpus: dict[str, Any] = api.get(f"/api/v1/corpora/{corpus_id}").json()
    return corpus


def row(task_id: str) -> BackgroundTask:
    with db.transaction() as session:
        return session.get_one(BackgroundTask, task_id)


def expire() -> None:
    """Let all leases run out and have the scheduler notice; end the pause before the next start."""
    with db.transaction() as session:
        session.execute(update(BackgroundTask).values(lease_until=func.now() - timedelta(seconds=1)))
        outcomes.expire_leases(session)
        session.execute(update(BackgroundTask).values(not_before=None))


# ---- lease and fence -------------------------------------------------------------------------------------------------


def test_a_superseded_start_writes_nothing(alice_api: TestClient) -> None:
    upload(alice_api)
    first = claim()
    assert first is not None
    expire()
    second = claim()
    assert second is not None
    assert (second.id, second.fence) == (first.id, first.fence + 1)
    with db.transaction() as session:
        late = {"task_id": first.id, "fence": first.fence}
        assert not background_tasks.renew(session, **late, progress=TaskProgress(done=1, total=1))
        assert background_tasks.finish(session, **late) is None
        assert background_tasks.fail(session, **late, failure=FailureReason(code="worker_lost")) is None
        assert not background_tasks.retry(session, **late)
        assert not outcomes.record_end(session, task=first, report={"failed": {"problems": [{"code": "empty"}]}})
    assert (row(first.id).state, row(first.id).progress) == ("running", TaskProgress())


def test_a_lease_in_time_is_left_alone(alice_api: TestClient) -> None:
    upload(alice_api)
    task = claim()
    assert task is not None
    with db.transaction() as session:
        assert outcomes.expire_leases(session) == 0
    assert row(task.id).state == "running"


def test_a_lost_task_pauses_and_fails_with_its_corpus_after_three_losses(alice_api: TestClient) -> None:
    corpus_id = upload(alice_api)
    for loss in range(MAX_LOSSES):
        task = claim()
        assert task is not None
        assert (task.num_losses, corpus_of(alice_api, corpus_id)["state"]) == (loss, "parsing")
        with db.transaction() as session:
            session.execute(update(BackgroundTask).values(lease_until=func.now() - timedelta(seconds=1)))
            outcomes.expire_leases(session)
        assert claim() is None  # the pause
        with db.transaction() as session:
            session.execute(update(BackgroundTask).values(not_before=None))
    answer = corpus_of(alice_api, corpus_id)
    assert (answer["state"], answer["problems"][0]["code"]) == ("failed", "reader_lost")
    assert answer["problems"][0]["message"].startswith("The worker was lost 3 times while it parsed this file.")
    lost = alice_api.get(f"/api/v1/tasks/{task.id}").json()
    assert (lost["state"], lost["failure"]["code"], lost["node"]) == ("failed", "worker_lost", NODE)

    assert alice_api.post(f"/api/v1/corpora/{corpus_id}/parse", json={}).status_code == 202
    assert run_waiting() == 1
    assert corpus_of(alice_api, corpus_id)["state"] == "ready"


def test_a_worker_that_starts_requeues_what_its_predecessor_ran(
    alice_api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(alice_api)
    task = claim()
    assert task is not None
    with db.transaction() as session:
        outcomes.lose_node(session, node="another node")
        assert session.get_one(BackgroundTask, task.id).state == "running"
        outcomes.lose_node(session, node=NODE)
    assert row(task.id).state == "queued"


def test_an_orderly_stop_of_the_worker_is_no_loss(alice_api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus_id = upload(alice_api)
    monkeypatch.setattr(parse, "command", lambda corpus: [sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr("worker.sandbox.runner.HEARTBEAT_SECONDS", 0.05)
    tasks = TaskRunner()
    tasks.start_waiting()
    task_id = corpus_of(alice_api, corpus_id)["task_id"]
    until(lambda: row(task_id).state == "running", 10, "its start")
    tasks.stop()
    assert (row(task_id).state, row(task_id).num_losses, corpus_of(alice_api, corpus_id)["state"]) == (
        "queued",
        0,
        "parsing",
    )
    monkeypatch.undo()
    run_waiting()
    assert corpus_of(alice_api, corpus_id)["state"] == "ready"


@pytest.mark.parametrize(
    "problem",
    [
        {"code": "hub_away", "endpoint": "https://mirror.example", "why": "timeout"},
        {"code": "download_away", "why": "timeout"},
    ],
    ids=["a model", "a corpus"],
)
def test_a_failure_that_may_pass_is_tried_again(alice_api: TestClient, problem: dict[str, Any]) -> None:
    corpus_id = upload(alice_api)
    report = {"failed": {"problems": [problem]}}
    for _try in range(MAX_LOSSES - 1):
        task = claim()
        assert task is not None
        with db.transaction() as session:
            assert not outcomes.record_end(session, task=task, report=report)
            session.execute(update(BackgroundTask).values(not_before=None))
        assert corpus_of(alice_api, corpus_id)["state"] == "parsing"
    task = claim()
    assert task is not None
    with db.transaction() as session:
        assert outcomes.record_end(session, task=task, report={"failed": {"problems": [{"code": "empty"}]}})
    assert corpus_of(alice_api, corpus_id)["state"] == "failed"


def test_an_outage_of_the_database_ends_a_process_only_with_its_lease(
    alice_api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(alice_api)
    task = claim()
    assert task is not None
    lease = Lease(task, threading.Event())

    def fail(*_arguments: Any, **_values: Any) -> bool:
        raise OperationalError("UPDATE", {}, ConnectionError())

    monkeypatch.setattr(lease_module.background_tasks, "renew", fail)
    assert lease.renew({"done": 1, "total": 2})
    assert not lease.is_outage
    lease._valid_until = 0.0
    assert not lease.renew({"done": 1, "total": 2})
    assert (lease.is_over, lease.is_outage) == (True, True)


@pytest.mark.parametrize("is_expired", [False, True])
def test_outages_of_the_database_are_no_losses_of_a_task(
    alice_api: TestClient, monkeypatch: pytest.MonkeyPatch, is_expired: bool
) -> None:
    """More of them than a task may be lost, each longer than a lease, noticed by the scheduler or not."""
    corpus_id = upload(alice_api)
    task_id = corpus_of(alice_api, corpus_id)["task_id"]
    monkeypatch.setitem(settings().__dict__, "lease_seconds", 0.01)
    tasks = TaskRunner()

    def lose_database(*_arguments: Any, **_values: Any) -> bool:
        raise OperationalError("UPDATE", {}, ConnectionError())

    with monkeypatch.context() as outage:
        outage.setattr(parse, "command", lambda corpus: [sys.executable, "-c", "import time; time.sleep(600)"])
        outage.setattr(lease_module.background_tasks, "renew", lose_database)
        for _outage in range(MAX_LOSSES + 1):
            outage.setattr(tasks, "start_waiting", lambda: None)  # so that the end of a task starts no other
            TaskRunner.start_waiting(tasks)
            assert row(task_id).state == "running"
            tasks.join(60)
            if is_expired:
                expire()
            with db.transaction() as session:
                session.execute(update(BackgroundTask).values(not_before=None))
    TaskRunner.start_waiting(tasks)
    assert row(task_id).num_losses == 0
    tasks.join(60)
    assert corpus_of(alice_api, corpus_id)["state"] == "ready"


def test_a_late_report_of_an_outage_takes_back_the_loss_of_its_own_start_only(alice_api: TestClient) -> None:
    upload(alice_api)
    first = claim()
    assert first is not None
    expire()
    second = claim()
    assert second is not None
    assert second.num_losses == 1
    with db.transaction() as session:
        background_tasks.report_outage(session, task_id=first.id, fence=first.fence)
    assert (row(first.id).state, row(first.id).num_losses) == ("running", 0)
    with db.transaction() as session:
        assert background_tasks.finish(session, task_id=second.id, fence=second.fence) is not None
        background_tasks.report_outage(session, task_id=second.id, fence=second.fence)
    assert row(first.id).state == "succeeded"


# ---- endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["cancel", "delete"])
def test_cancelling_a_task_or_deleting_its_corpus_ends_the_process(
    alice_api: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str
) -> None:
    corpus_id = upload(alice_api)
    directory, marker = storage.corpus(corpus_id), tmp_path / "pid"
    sleeper = (
        f"import os, pathlib, time; pathlib.Path({str(directory / 'text.bin.1')!r}).touch(); "
        f"pathlib.Path({str(marker)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    monkeypatch.setattr(parse, "command", lambda corpus: [sys.executable, "-c", sleeper])
    tasks = TaskRunner()
    tasks.start_waiting()
    pid = int(until(lambda: marker.exists() and marker.read_text(), 20, "the process"))
    child = psutil.Process(pid)
    task_id = corpus_of(alice_api, corpus_id)["task_id"]
    if ending == "cancel":
        assert alice_api.post(f"/api/v1/tasks/{task_id}/cancel").json()["state"] == "cancelled"
    else:
        assert alice_api.delete(f"/api/v1/corpora/{corpus_id}").status_code == 204
    child.wait(10)  # within two seconds where the machine is not busy: row F75 of the faults
    tasks.join(10)
    if ending == "cancel":
        answer = corpus_of(alice_api, corpus_id)
        assert (answer["state"], answer["problems"][0]["code"]) == ("failed", "reading_cancelled")
    assert {path.name for path in directory.iterdir()} <= {"upload", ".lock"}  # a deleted one is in the trash


@pytest.mark.parametrize("kind", ["parse", "import", "export"])
def test_a_disk_that_becomes_full_ends_the_process_and_says_so(
    alice_api: TestClient, alice_user: Person, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    subject_id = upload(alice_api) if kind == "parse" else model(alice_api, alice_user, kind)
    marker = tmp_path / "pid"
    sleeper = f"import os, pathlib, time; pathlib.Path({str(marker)!r}).write_text(str(os.getpid())); time.sleep(600)"
    for module, name in ((parse, "command"), (model_import, "validation_command"), (export_and_evaluate, "command")):
        monkeypatch.setattr(module, name, lambda _work: [sys.executable, "-c", sleeper])
    tasks = TaskRunner()
    tasks.start_waiting()
    until(lambda: marker.exists() and marker.read_text(), 20, "the process")
    task = alice_api.get("/api/v1/tasks").json()["data"][0]
    monkeypatch.setattr(disk, "is_full", lambda: True)
    tasks.join(10)
    assert not psutil.pid_exists(int(marker.read_text()))
    task = alice_api.get(f"/api/v1/tasks/{task['id']}").json()
    assert (task["kind"], task["state"]) == (kind, "failed")
    if kind == "export":
        assert "The disk of the data directory became full" in str(task)
        assert not storage.background_task(task["id"]).exists()
    else:
        subject = alice_api.get(f"/api/v1/{'corpora' if kind == 'parse' else 'models'}/{subject_id}").json()
        assert (subject["state"], subject["problems"][0]["code"]) == ("failed", "disk_filled_up")
        assert "The disk of the data directory became full" in subject["problems"][0]["message"]


def test_a_full_disk_ends_no_task_that_writes_no_user_data(
    alice_api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {kind: work.writes_user_data for kind, work in WORK.items()} == {
        "parse": True,
        "clean": True,
        "import": True,
        "tokenizer": True,
        "export": True,
        "evaluation": False,
        "statistics": False,
        "generate": False,
        "job_import": True,
        "tokenize": True,
    }
    upload(alice_api)
    task = claim()
    assert task is not None
    monkeypatch.setattr(disk, "is_full", lambda: True)
    assert Lease(task, threading.Event(), writes_user_data=False).renew(None)
    assert not Lease(task, threading.Event(), writes_user_data=True).renew(None)


def model(api: TestClient, owner: Person, kind: str) -> str:
    """A model with a task of this kind; answers its ID."""
    model_id = str(api.post("/api/v1/models", json={"name": "tiny"}).json()["id"])
    api.put(f"/api/v1/models/{model_id}/files/config.json", content=b"{}")
    if kind == "import":
        assert api.post(f"/api/v1/models/{model_id}/import").status_code == 202
        return model_id
    with db.transaction() as session:
        background_tasks.enqueue(session, kind="export", owner_id=owner.id, model_id=model_id, memory_bytes=2**30)
    return model_id


def test_a_task_is_cancelled_and_deleted_only_by_its_owner(alice_api: TestClient, bob_api: TestClient) -> None:
    task_id = corpus_of(alice_api, upload(alice_api))["task_id"]
    assert bob_api.post(f"/api/v1/tasks/{task_id}/cancel").status_code == 404
    assert alice_api.delete(f"/api/v1/tasks/{task_id}").json()["code"] == "task_open"
    assert alice_api.post(f"/api/v1/tasks/{task_id}/cancel").json()["state"] == "cancelled"
    assert alice_api.post(f"/api/v1/tasks/{task_id}/cancel").json()["state"] == "cancelled"
    assert bob_api.delete(f"/api/v1/tasks/{task_id}").status_code == 404
    assert alice_api.delete(f"/api/v1/tasks/{task_id}").status_code == 204
    assert alice_api.get(f"/api/v1/tasks/{task_id}").status_code == 404


def test_the_buttons_cancel_a_task_and_return_to_its_corpus(alice_api: TestClient, alice: TestClient) -> None:
    corpus_id = upload(alice_api)
    path = f"/tasks/{corpus_of(alice_api, corpus_id)['task_id']}/cancel"
    for page in (f"/corpora/{corpus_id}", "/tasks", path.removesuffix("/cancel")):
        assert f'action="{path}"' in alice.get(page).text, page
    answer = alice.post(path, headers={"Origin": "http://localhost"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/corpora/{corpus_id}")
    assert "Reading the file was cancelled." in alice.get(f"/corpora/{corpus_id}").text
    assert f'action="{path}"' not in alice.get(f"/corpora/{corpus_id}").text


def test_a_task_of_what_ships_with_athanor_is_nobodys(alice_api: TestClient) -> None:
    with db.transaction() as session:
        corpus = Corpus(name="shipped", filename="a.txt", format="txt", num_bytes=1, sha256="0")
        session.add(corpus)
        session.flush()
        task = background_tasks.enqueue(session, kind="parse", owner_id=None, corpus_id=corpus.id, memory_bytes=1)
    answer = alice_api.post(f"/api/v1/tasks/{task.id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (403, "task_shipped")


# ---- whose turn it is ------------------------------------------------------------------------------------------------


def enqueue(owner: Person, kind: str = "parse", memory_bytes: int = 1) -> str:
    """Queue a task on a corpus of its own; answers its ID."""
    with db.transaction() as session:
        corpus = Corpus(owner_id=owner.id, name="a", filename="a.txt", format="txt", num_bytes=1, sha256="0")
        session.add(corpus)
        session.flush()
        values: dict[str, Any] = {"kind": kind, "owner_id": owner.id, "memory_bytes": memory_bytes}
        return background_tasks.enqueue(session, corpus_id=corpus.id, **values).id


def start(free_bytes: int | None = None, **running: int) -> str | None:
    """The ID of the task that a node starts, which runs so many tasks of each kind."""
    with db.transaction() as session:
        lanes = {lane_of(kind): number for kind, number in running.items()}
        task = background_tasks.claim(session, node=NODE, running=lanes, free_bytes=free_bytes)
        return task.id if task is not None else None


def test_users_take_turns(alice_user: Person, bob_user: Person) -> None:
    alices = [enqueue(alice_user) for _number in range(4)]
    bobs = enqueue(bob_user)
    assert [start() for _turn in range(4)] == [alices[0], bobs, alices[1], None]
    assert MAX_RUNNING_PER_USER == 2


def test_one_user_cannot_take_all_places_in_which_a_node_parses(alice_user: Person, bob_user: Person) -> None:
    alices = [enqueue(alice_user) for _number in range(3)]
    assert [start(parse=running) for running in range(3)] == [*alices[:2], None]
    bobs = enqueue(bob_user)
    assert start(parse=2) == bobs


def test_a_node_runs_so_many_tasks_of_a_lane_and_so_much_memory(alice_user: Person, bob_user: Person) -> None:
    large = enqueue(alice_user, memory_bytes=1000)
    assert start(free_bytes=999, evaluation=1) is None
    assert start(free_bytes=None, parse=MAX_RUNNING_PER_USER + 1) is None
    export = enqueue(bob_user, "export", memory_bytes=10)
    assert start(free_bytes=999, parse=1) == export  # another lane does not wait for the large one
    assert start(free_bytes=1000, export=1) == large


def test_a_task_that_never_fits_has_the_others_wait_in_the_end(alice_user: Person, bob_user: Person) -> None:
    large = enqueue(alice_user, "export", memory_bytes=1000)
    assert start(free_bytes=10, parse=1) is None
    small = enqueue(bob_user)
    assert start(free_bytes=10, parse=1) == small
    enqueue(bob_user)
    with db.transaction() as session:
        long_ago = func.now() - timedelta(seconds=background_tasks.PATIENCE_SECONDS + 1)
        session.execute(update(BackgroundTask).where(BackgroundTask.id == large).values(created_at=long_ago))
    assert start(free_bytes=10, parse=1) is None
    assert start() is not None  # the node is idle: a task that fits, then the large one
    assert start() == large


def test_a_task_waits_for_room_in_the_budget_of_its_node(alice_api: TestClient) -> None:
    corpus_id = upload(alice_api)
    tasks = TaskRunner()
    budget = node_budget()
    with budget.reserve(budget.total_bytes, is_training=True), budget.reserve(budget.total_bytes // 8):
        tasks.start_waiting()
        assert corpus_of(alice_api, corpus_id)["state"] == "parsing"
        assert not tasks._running
    with budget.reserve(1, budget.num_processes):
        tasks.start_waiting()
        assert not tasks._running
    tasks.start_waiting()
    assert budget.free_bytes() == budget.shared_bytes - settings().parse_memory_bytes
    until(lambda: corpus_of(alice_api, corpus_id)["state"] == "ready", 60, "the corpus")
    tasks.join(10)
    assert budget.free_bytes() is None


def test_deleting_a_corpus_cancels_evaluations_on_it(alice_api: TestClient, alice_user: Person) -> None:
    corpus_id = upload(alice_api)
    run_waiting()
    model_id = model(alice_api, alice_user, "export")
    with db.transaction() as session:
        values: dict[str, Any] = {"kind": "evaluation", "owner_id": alice_user.id, "memory_bytes": 1}
        options = TaskOptions(corpora=[corpus_id])
        task = background_tasks.enqueue(session, model_id=model_id, options=options, **values)
    assert alice_api.delete(f"/api/v1/corpora/{corpus_id}").status_code == 204
    assert row(task.id).state == "cancelled"
    assert alice_api.get(f"/api/v1/tasks?subject={model_id}&kind=export").json()["data"][0]["state"] == "queued"


def test_a_user_has_so_many_unfinished_tasks_of_a_lane(alice_user: Person, bob_user: Person) -> None:
    limit = lane_of("export").max_open_per_user
    for number in range(limit):
        enqueue(alice_user, ("export", "evaluation")[number % 2])
    with pytest.raises(background_tasks.PanelError) as refused:
        enqueue(alice_user, "export")
    assert (refused.value.status, refused.value.code) == (429, "tasks_open")
    assert int(refused.value.headers["Retry-After"]) > 0
    enqueue(alice_user, "parse")
    enqueue(bob_user, "export")


def test_a_corpus_is_parsed_by_one_task_at_a_time(alice_api: TestClient, alice_user: Person) -> None:
    corpus_id = upload(alice_api)
    values: dict[str, Any] = {"kind": "parse", "owner_id": alice_user.id, "memory_bytes": 1}
    with db.transaction() as session, pytest.raises(IntegrityError):
        background_tasks.enqueue(session, corpus_id=corpus_id, **values)
    with db.transaction() as session:
        tasks = session.scalars(select(BackgroundTask).where(BackgroundTask.corpus_id == corpus_id)).all()
    assert [task.state for task in tasks] == ["queued"]


def test_every_kind_is_in_one_lane() -> None:
    kinds = [kind for lane in LANES for kind in lane.kinds]
    assert sorted(kinds) == sorted(TASK_KINDS)


# ---- the history -----------------------------------------------------------------------------------------------------


def test_the_history_lists_tasks_by_kind_and_subject(alice_api: TestClient, alice: TestClient, bob: TestClient) -> None:
    corpus_id = upload(alice_api, "history.txt")
    task_id = corpus_of(alice_api, corpus_id)["task_id"]
    assert "Waiting for a free node" in alice.get("/tasks?kind=parse").text
    run_waiting()
    for query, is_listed in (("", True), ("?kind=parse", True), ("?kind=import&kind=export", False)):
        listed = [task["id"] for task in alice_api.get(f"/api/v1/tasks{query}").json()["data"]]
        assert (task_id in listed) == is_listed, query
    (task,) = alice_api.get(f"/api/v1/tasks?subject={corpus_id}").json()["data"]
    assert (task["state"], task["kind"], task["corpus_id"]) == ("succeeded", "parse", corpus_id)
    page = alice.get(f"/tasks/{task_id}").text
    assert f'href="/corpora/{corpus_id}"' in page
    assert NODE in page
    assert f'href="/tasks/{task_id}"' in alice.get("/tasks").text
    assert "1 document\n" in alice.get("/tasks?kind=parse").text
    assert "<span>1 document</span>" in alice.get("/jobs/new").text
    assert f'href="/tasks/{task_id}"' not in bob.get("/tasks").text
    assert bob.get(f"/tasks/{task_id}").status_code == 404


def test_a_task_that_failed_says_why(alice_api: TestClient, alice: TestClient) -> None:
    answer = alice_api.post("/api/v1/corpora?filename=bad.jsonl", content=b'{"text": 1}\n').json()
    task_id = corpus_of(alice_api, answer["id"])["task_id"]
    run_waiting()
    task = alice_api.get(f"/api/v1/tasks/{task_id}").json()
    assert (task["state"], task["failure"]["code"]) == ("failed", "rejected")
    assert "Its page says why." in alice.get("/tasks").text
    answer = alice.post(f"/tasks/{task_id}/delete", headers={"Origin": "http://localhost"}, follow_redirects=True)
    assert (answer.status_code, f"/tasks/{task_id}" in answer.text) == (200, False)
