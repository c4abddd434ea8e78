"""The queue of generations, in a real Valkey: requests that are sent twice, and the connections of readers."""

import asyncio
from collections.abc import Iterator

import psutil
import pytest
from redis.backoff import ConstantBackoff

from app.core import live
from app.core.model_base import new_id
from app.playground import generation_queue
from app.playground.schemas import GenerationMessage, GenerationTask
from tests.servers import Servers
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("database")

WRITTEN = [
    GenerationMessage(event="start"),
    GenerationMessage(event="piece", text="In", num_tokens=1),
    GenerationMessage(event="done", finish_reason="stop", num_tokens=1),
]


@pytest.fixture(autouse=True)
def _empty(database: str) -> None:
    live.valkey().flushall()


def a_task() -> GenerationTask:
    return GenerationTask(
        id=new_id(), path="x", prompt="", max_tokens=1, temperature=1, top_p=1, top_k=0, seed=0, stop=[]
    )


def taken() -> GenerationTask | None:
    """What the worker of a node finds."""
    return generation_queue.dequeue("here", 0.01)


@pytest.fixture
def stalled(running_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """Valkey, which does not answer until a call is repeated."""
    process = psutil.Process(int((running_servers.valkey.directory / "valkey.pid").read_text()))

    class Resuming(ConstantBackoff):
        def compute(self, failures: int) -> float:
            process.resume()
            return super().compute(failures)

    live.valkey.cache_clear()
    monkeypatch.setattr(live, "ConstantBackoff", Resuming)
    live.valkey(num_retries=1).ping()
    process.suspend()
    yield process
    process.resume()
    live.valkey.cache_clear()


def test_a_request_is_enqueued_once_where_valkey_answers_late(stalled: psutil.Process) -> None:
    task = a_task()
    assert generation_queue.enqueue(task)
    assert stalled.status() != psutil.STATUS_STOPPED
    assert taken() == task
    assert taken() is None


def test_a_request_that_is_added_again_is_not_taken_again() -> None:
    task = a_task()
    for expected in (task, None):
        assert generation_queue.enqueue(task)
        assert taken() == expected


def test_requests_that_would_wait_too_long_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation_queue, "MAX_WAITING", 2)
    kept = a_task()
    assert generation_queue.enqueue(kept)
    assert not generation_queue.enqueue(a_task(), a_task())
    assert len(live.valkey().keys("athanor:generate:*")) == 3
    assert taken() == kept


async def read_one() -> list[str]:
    """The events of a generation that a worker has written already."""
    task = a_task()
    generation_queue.enqueue(task)
    assert generation_queue.write(task.id, WRITTEN)
    return [message.event async for message in generation_queue.read(task)]


def connections() -> set[str]:
    return {client["id"] for client in live.valkey().client_list()}


EVENTS = [message.event for message in WRITTEN]


def test_readers_use_the_connections_of_those_before_them() -> None:
    async def read() -> None:
        before = connections()
        async with generation_queue.kept_connections():
            assert await read_one() == EVENTS
            (kept,) = connections() - before
            assert await read_one() == EVENTS
            assert connections() - before == {kept}
        until(lambda: connections() == before, what="the end of the connection")

    generation_queue.enqueue(a_task())  # opens the connection of its own
    asyncio.run(read())


def test_a_connection_that_was_lost_meanwhile_is_opened_again() -> None:
    async def read() -> None:
        before = connections()
        async with generation_queue.kept_connections():
            await read_one()
            (kept,) = connections() - before
            live.valkey().client_kill_filter(_id=kept)
            assert await read_one() == EVENTS
            assert kept not in connections()

    generation_queue.enqueue(a_task())
    asyncio.run(read())


def test_the_connection_of_a_reader_that_leaves_is_not_kept() -> None:
    async def leave() -> None:
        before = connections()
        task = a_task()
        generation_queue.enqueue(task)
        async with generation_queue.kept_connections():
            reader = generation_queue.read(task)
            assert (await anext(reader)).event == "waiting"
            await reader.aclose()
            until(lambda: connections() == before, what="the end of the connection")
        assert taken() is None

    generation_queue.enqueue(a_task())
    live.valkey().flushall()
    asyncio.run(leave())


def test_waiters_that_vanished_are_skipped() -> None:
    left, waiting = a_task(), a_task()
    for task in (left, waiting):
        assert generation_queue.enqueue(task)
    live.valkey().delete(f"athanor:generate:{left.id}:alive")
    assert taken() == waiting
    assert taken() is None


def test_a_request_for_a_node_is_taken_by_this_node_before_those_for_any() -> None:
    for_any, for_another, own = a_task(), a_task(), a_task()
    for_another.node, own.node = "there", "here"
    for task in (for_any, for_another, own):
        assert generation_queue.enqueue(task)
    assert [taken(), taken(), taken()] == [own, for_any, None]


def test_a_request_whose_worker_claimed_it_and_died_fails_and_is_in_no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation_queue, "CLAIMED_SECONDS", 0)

    async def wait() -> list[str]:
        task = a_task()
        generation_queue.enqueue(task)
        assert taken() == task
        async with generation_queue.kept_connections():
            return [message.code or message.event async for message in generation_queue.read(task)]

    assert asyncio.run(wait()) in (["worker_lost"], ["waiting", "worker_lost"])
    assert live.valkey().zcard("athanor:generate:waiting") == 0


def test_a_request_that_is_put_back_is_the_next_one() -> None:
    tasks = [a_task(), a_task()]
    for task in tasks:
        generation_queue.enqueue(task)
    assert taken() == tasks[0]
    generation_queue.put_back(tasks[0])
    assert [taken(), taken(), taken()] == [*tasks, None]


def test_a_request_whose_worker_died_as_it_took_it_is_taken_by_another() -> None:
    async def wait() -> None:
        task = a_task()
        generation_queue.enqueue(task)
        live.valkey().zpopmin("athanor:generate:waiting")
        async with generation_queue.kept_connections():
            reader = generation_queue.read(task)
            assert (await anext(reader)).event == "waiting"
            assert taken() == task
            assert (await anext(reader)).event == "waiting"
            assert taken() is None
            await reader.aclose()

    asyncio.run(wait())
