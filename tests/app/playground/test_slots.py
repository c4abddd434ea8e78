"""Generation slots of a node: concurrent and waiting requests; every failure is reported and frees the slot."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import delete

from app.core import db, live
from app.core.models import Checkpoint, Node
from app.playground import generation_queue, service
from tests.app.playground.conftest import SLOTS, StoreCheckpoint, StoredCheckpoint, free_slots
from tests.users import Person
from tests.waiting import until
from worker.inference import generations
from worker.runtime import current_worker


@pytest.fixture(scope="module")
def inference_fork_server() -> None:
    """None: here inference processes start by themselves, as on a node whose fork server is away."""


@pytest.fixture(scope="module")
def client(address: str, alice_user: Person) -> Iterator[httpx.Client]:
    """Alice's program."""
    headers = {"Authorization": f"Bearer {alice_user.token()}"}
    with httpx.Client(base_url=address, headers=headers, timeout=240) as client:
        yield client


@pytest.fixture(scope="module")
def slow(store_checkpoint: StoreCheckpoint, alice_user: Person) -> StoredCheckpoint:
    """A checkpoint that writes on for long: its context is made larger than what it was trained for."""
    stored = store_checkpoint(alice_user)
    config = json.loads((stored.path / "config.json").read_text())
    (stored.path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100_000}))
    return stored


@pytest.fixture(autouse=True)
def all_free_afterwards(client: httpx.Client) -> Iterator[None]:
    """Whatever a test does, both slots are free in the end."""
    yield
    until(lambda: free_slots() == SLOTS, 5, "both slots to be free")


@contextmanager
def stream(
    client: httpx.Client, checkpoint: StoredCheckpoint, max_tokens: int = 4096
) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    body = {"checkpoint": checkpoint.id, "prompt": "In", "max_tokens": max_tokens, "seed": 1, "stream": True}
    with client.stream("POST", "/api/v1/generate", json=body) as answer:
        yield events(answer)


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for text in answer.iter_lines():
        if text.startswith("event: "):
            name = text[7:]
        elif text.startswith("data: "):
            yield name, json.loads(text[6:])


def wait_for(name: str, stream: Iterator[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    return next(data for found, data in stream if found == name)


def inference_process() -> psutil.Process:
    children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return next(child for child in children if "worker.inference.server" in child.cmdline())


def test_two_users_generate_at_once(client: httpx.Client, slow: StoredCheckpoint) -> None:
    with stream(client, slow) as first, stream(client, slow) as second:
        for _turn in range(3):
            wait_for("piece", first)
            wait_for("piece", second)
        assert free_slots() == 0


def test_disconnecting_from_a_stream_frees_the_slot(client: httpx.Client, slow: StoredCheckpoint) -> None:
    with stream(client, slow) as text:
        wait_for("piece", text)
        assert free_slots() == 1

    until(lambda: free_slots() == SLOTS, 2, "the slot to be free")


def test_disconnecting_before_an_unstreamed_answer_frees_the_slot(client: httpx.Client, slow: StoredCheckpoint) -> None:
    body = {"checkpoint": slow.id, "prompt": "In", "max_tokens": 4096}
    with pytest.raises(httpx.ReadTimeout):
        client.post("/api/v1/generate", json=body, timeout=httpx.Timeout(10, read=1))

    until(lambda: free_slots() == SLOTS, 2, "the slot to be free")


def test_a_third_request_waits_with_its_position_for_the_first_free_slot(
    client: httpx.Client, slow: StoredCheckpoint
) -> None:
    with stream(client, slow) as first, stream(client, slow) as second:
        wait_for("piece", first)
        wait_for("piece", second)
        with stream(client, slow) as third, stream(client, slow) as fourth:
            assert wait_for("waiting", third) == {"position": 0, "message": "You are next."}
            assert wait_for("waiting", fourth)["message"] == "1 request is ahead of yours."
            # Both writers end: their readers get an error, and waiting requests their turn.
            current_worker().inference.close()
            assert wait_for("failure", first)["code"] == "inference_lost"
            assert wait_for("failure", second)["code"] == "inference_lost"
            assert wait_for("piece", third)
            assert wait_for("piece", fourth)


@pytest.mark.parametrize("path", ["/api/v1/generate", "/v1/completions"])
def test_clients_that_leave_many_texts_at_once_free_their_slots(
    client: httpx.Client, slow: StoredCheckpoint, path: str
) -> None:
    generations = current_worker().generations
    body = {"prompt": "In", "max_tokens": 4096, "seed": 1, "stream": True}
    body["checkpoint" if path.startswith("/api") else "model"] = slow.id
    generations.num_slots = 20
    try:
        with ExitStack() as staying, ExitStack() as leaving, ThreadPoolExecutor(20) as pool:

            def begin(stack: ExitStack) -> Iterator[str]:
                answer = stack.enter_context(client.stream("POST", path, json=body))
                lines = answer.iter_lines()
                next(line for line in lines if '"text"' in line)
                return lines

            begun = [pool.submit(begin, stack) for stack in [staying, leaving] * 10]
            texts = [one.result() for one in begun]
            assert free_slots() == 0
            leaving.close()
            until(lambda: free_slots() == 10, 2, "the slots of those who left")
            assert all(next(line for line in lines if '"text"' in line) for lines in texts[::2]), "others read on"
            staying.close()
            until(lambda: free_slots() == 20, 2, "all slots to be free")
    finally:
        generations.num_slots = SLOTS


def test_a_checkpoint_that_is_deleted_ends_its_texts_clearly(
    client: httpx.Client, store_checkpoint: StoreCheckpoint, slow: StoredCheckpoint, alice_user: Person
) -> None:
    written, queued = store_checkpoint(alice_user), store_checkpoint(alice_user)
    with stream(client, slow) as blocking, stream(client, written, max_tokens=200) as text:
        wait_for("piece", blocking)
        wait_for("piece", text)
        with stream(client, queued) as waiting:
            wait_for("waiting", waiting)
            for checkpoint in (written, queued):
                with db.transaction() as session:
                    session.execute(delete(Checkpoint).where(Checkpoint.id == checkpoint.id))
                shutil.rmtree(checkpoint.path)
            assert wait_for("done", text)["finish_reason"] in ("stop", "length")
            assert wait_for("failure", waiting)["code"] == "checkpoint_gone"
    answer = client.post("/api/v1/generate", json={"checkpoint": written.id})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_disconnected_waiter_is_not_served(client: httpx.Client, slow: StoredCheckpoint) -> None:
    with stream(client, slow) as first, stream(client, slow) as second:
        wait_for("piece", first)
        wait_for("piece", second)
        with stream(client, slow) as third:
            wait_for("waiting", third)
        until(lambda: live.valkey().zcard("athanor:generate:waiting") == 0, 2, "the line to be empty")


def test_a_killed_inference_process_is_reported_and_replaced(client: httpx.Client, slow: StoredCheckpoint) -> None:
    with stream(client, slow) as text:
        wait_for("piece", text)
        os.kill(inference_process().pid, signal.SIGKILL)
        failure = wait_for("failure", text)
    assert failure["message"] == "The inference process ended. Try again: a new one starts automatically."

    with stream(client, slow) as text:
        assert wait_for("piece", text)


def test_an_emptied_broker_is_reported_and_frees_the_slot(client: httpx.Client, slow: StoredCheckpoint) -> None:
    with stream(client, slow) as text:
        wait_for("piece", text)
        live.valkey().flushall()
        assert wait_for("failure", text)["code"] == "request_lost"
        until(lambda: free_slots() == SLOTS, 2, "the slot to be free")


def test_a_dead_client_frees_the_slot(
    client: httpx.Client, slow: StoredCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stream(client, slow) as text:
        wait_for("piece", text)
        # What a killed web process looks like to the node: the key is no longer kept alive.
        monkeypatch.setattr(generation_queue, "ALIVE_SECONDS", 0)
        until(lambda: free_slots() == SLOTS, 2, "the slot to be free")


def test_a_silent_worker_is_reported(
    client: httpx.Client, slow: StoredCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_queue, "SILENCE_SECONDS", 1.0)
    with stream(client, slow) as text:
        wait_for("piece", text)
        process = inference_process()
        process.suspend()
        monkeypatch.setattr(generations, "BEATS", 10_000)
        try:
            assert wait_for("failure", text)["message"] == "The worker that was writing stopped answering. Try again."
        finally:
            process.resume()


def test_without_a_worker_the_error_says_how_to_start_one(
    client: httpx.Client, slow: StoredCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.1)
    current_worker().generations.stop()
    with db.transaction() as session:
        session.execute(delete(Node))

    with stream(client, slow) as text:
        failure = wait_for("failure", text)
    current_worker().generations.start()

    assert failure["code"] == "no_worker"
    assert "athanor worker" in failure["message"]


def test_a_full_queue_rejects_requests(
    client: httpx.Client, slow: StoredCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_queue, "MAX_WAITING", 0)
    answer = client.post("/api/v1/generate", json={"checkpoint": slow.id})

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["code"] == "line_full"
