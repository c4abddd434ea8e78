"""The hub: every viewer gets all updates after its cursor once and in order, and a slow viewer delays no other."""

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from app.core import live
from app.core.live import QUEUE_EVENTS, Hub, News, Subscription, Update

pytestmark = pytest.mark.usefixtures("database")


class EventLog:
    """Numbered events in place of the database, read after a cursor. Counts the reads."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.reads = 0

    def append(self, n: int = 1) -> None:
        for _ in range(n):
            self.events.append(len(self.events) + 1)
        live.notify("event_log")

    def read(self, cursor: str, until: str | None) -> News:
        self.reads += 1
        begin, end = int(cursor or 0), len(self.events) if until is None else int(until)
        updates = [Update(str(n), "event", json.dumps(n)) for n in self.events[begin:end]]
        return News(updates, str(end))


async def updates(hub: Hub, read: live.Reader, cursor: str) -> AsyncIterator[Update]:
    """The updates of a stream one by one."""
    stream = hub.stream("event_log", read, cursor)
    try:
        async for news in stream:
            for update in news.updates:
                yield update
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


async def collect(stream: AsyncIterator[Update], last: int, got: list[int] | None = None) -> list[int]:
    """The events up to the last one, added to `got` as they come."""
    got = [] if got is None else got
    async for update in stream:
        got.append(int(update.data))
        if got[-1] == last:
            break
    return got


def test_viewers_joining_at_any_time_see_each_event_once() -> None:
    async def main() -> None:
        chance = random.Random(1)
        event_log = EventLog()
        event_log.append(5)
        async with Hub().running() as hub:
            viewers = []
            for start in range(20):
                cursor = chance.randint(0, len(event_log.events))
                task = asyncio.create_task(collect(updates(hub, event_log.read, str(cursor)), 205))
                viewers.append((cursor, task))
                await asyncio.sleep(0)
                event_log.append(chance.randint(0, 5))
                if start % 3 == 0:
                    await asyncio.sleep(0.01)
            while len(event_log.events) < 205:
                event_log.append(min(7, 205 - len(event_log.events)))
                await asyncio.sleep(0.002)
            for cursor, task in viewers:
                assert await asyncio.wait_for(task, 20) == list(range(cursor + 1, 206))

    asyncio.run(main())


def test_a_hundred_viewers_need_hardly_more_reads_than_one() -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append()
        async with Hub().running() as hub:
            seen: list[list[int]] = [[] for _viewer in range(100)]
            viewers = [asyncio.create_task(collect(updates(hub, event_log.read, ""), 51, got)) for got in seen]
            while not all(seen):
                await asyncio.sleep(0.005)
            before = event_log.reads
            for _ in range(50):
                event_log.append()
                await asyncio.sleep(0.002)
            await asyncio.wait_for(asyncio.gather(*viewers), 20)
            assert event_log.reads - before <= 60

    asyncio.run(main())


def test_other_requests_get_a_turn_while_many_viewers_are_sent_an_update() -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append()
        async with Hub().running() as hub:
            seen: list[list[int]] = [[] for _viewer in range(100)]
            viewers = [asyncio.create_task(collect(updates(hub, event_log.read, ""), 2, got)) for got in seen]
            while not all(seen):
                await asyncio.sleep(0.005)
            event_log.append()
            numbers = {0}  # of viewers that have the update, at each turn of the event loop
            while max(numbers) < 100:
                await asyncio.sleep(0)
                numbers.add(sum(len(got) == 2 for got in seen))
            await asyncio.gather(*viewers)
            ordered = sorted(numbers)
            assert max(b - a for a, b in pairwise(ordered)) <= live.AT_ONCE

    asyncio.run(main())


def test_a_slow_viewer_is_dropped_and_the_others_continue() -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append()
        async with Hub().running() as hub:
            slow = updates(hub, event_log.read, "")
            assert (await anext(slow)).data == "1"
            quick = updates(hub, event_log.read, "1")
            for n in range(2, QUEUE_EVENTS + 10):
                event_log.append()
                assert (await asyncio.wait_for(anext(quick), 10)).data == str(n)
            left = [update.data async for update in slow]
            assert left == [], "what it missed it gets by its cursor when it comes back"
            again = updates(hub, event_log.read, "1")
            assert [int((await anext(again)).data) for _ in range(5)] == [2, 3, 4, 5, 6]
            for stream in (quick, again):
                await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


def test_a_stream_without_viewers_is_not_read_and_can_be_reopened() -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append()
        async with Hub().running() as hub:
            stream = updates(hub, event_log.read, "")
            assert (await anext(stream)).data == "1"
            await stream.aclose()  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
            before = event_log.reads
            event_log.append()
            await asyncio.sleep(0.2)
            assert event_log.reads == before
            later = updates(hub, event_log.read, "2")
            first = asyncio.ensure_future(anext(later))
            await asyncio.sleep(0.05)
            event_log.append()
            assert (await asyncio.wait_for(first, live.POLL_SECONDS + 5)).data == "3"
            await later.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


def test_a_viewer_leaving_while_another_joins_does_not_affect_it() -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append()
        is_reading, go = threading.Event(), threading.Event()

        def slow_read(cursor: str, until: str | None) -> News:
            if event_log.reads == 1:  # the second viewer is being brought up to now
                is_reading.set()
                go.wait(10)
            return event_log.read(cursor, until)

        async with Hub().running() as hub:
            first = updates(hub, slow_read, "")
            assert (await anext(first)).data == "1"
            second = asyncio.create_task(collect(updates(hub, slow_read, ""), 3))
            while not is_reading.is_set():
                await asyncio.sleep(0.001)
            await first.aclose()  # type: ignore[attr-defined]
            go.set()
            event_log.append(2)
            assert await asyncio.wait_for(second, 10) == [1, 2, 3]

    asyncio.run(main())


def test_viewers_who_come_together_with_one_cursor_share_a_read() -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append(3)
        async with Hub().running() as hub:
            viewers = [asyncio.create_task(collect(updates(hub, event_log.read, "1"), 3)) for _viewer in range(100)]
            assert await asyncio.wait_for(asyncio.gather(*viewers), 20) == [[2, 3]] * 100
            assert event_log.reads <= 5

    asyncio.run(main())


def test_those_who_wait_for_the_read_of_a_viewer_who_leaves_get_theirs() -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append(2)
        is_reading, go = threading.Event(), threading.Event()

        def slow_read(cursor: str, until: str | None) -> News:
            is_reading.set()
            go.wait(10)
            return event_log.read(cursor, until)

        async with Hub().running() as hub:
            first = asyncio.create_task(collect(updates(hub, slow_read, ""), 2))
            while not is_reading.is_set():
                await asyncio.sleep(0.001)
            second = asyncio.create_task(collect(updates(hub, slow_read, ""), 3))
            await asyncio.sleep(0)
            first.cancel()
            go.set()
            event_log.append()
            assert await asyncio.wait_for(second, 10) == [1, 2, 3]

    asyncio.run(main())


def test_a_missing_notification_delays_events_but_loses_none() -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append()
        async with Hub().running() as hub:
            stream = updates(hub, event_log.read, "")
            assert (await anext(stream)).data == "1"
            event_log.events.append(2)  # without a notification
            assert (await asyncio.wait_for(anext(stream), live.POLL_SECONDS + 5)).data == "2"
            await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


@pytest.mark.parametrize("invented", ["0", "3", "1000"])
def test_a_viewer_with_an_invented_cursor_takes_nothing_from_the_others(invented: str) -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append(5)
        async with Hub().running() as hub:
            liar = asyncio.create_task(collect(updates(hub, event_log.read, invented), 7))
            while not event_log.reads:
                await asyncio.sleep(0.005)
            honest = asyncio.create_task(collect(updates(hub, event_log.read, ""), 7))
            while event_log.reads < 2:
                await asyncio.sleep(0.005)
            event_log.append(2)
            assert await asyncio.wait_for(honest, 20) == [1, 2, 3, 4, 5, 6, 7]
            assert (await asyncio.wait_for(liar, 20))[-2:] == [6, 7]

    asyncio.run(main())


def test_every_stream_ends_when_the_hub_closes() -> None:
    async def main() -> None:
        event_log = EventLog()
        event_log.append()
        async with Hub().running() as hub:
            seen: list[list[int]] = [[] for _viewer in range(3)]
            waiting = [asyncio.create_task(collect(updates(hub, event_log.read, ""), 9, got)) for got in seen]
            while not all(seen):
                await asyncio.sleep(0.005)
        assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [[1], [1], [1]]

    asyncio.run(main())


def test_a_notification_wakes_only_its_own_waiter() -> None:
    bell = Subscription("mine")
    assert bell.wait(0.05) is False
    live.notify("other")
    assert bell.wait(0.05) is False
    live.notify("mine")
    assert bell.wait(10) is True
    live.notify("mine")  # between two waits
    assert bell.wait(10) is True
