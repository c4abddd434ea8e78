"""Viewers of a running job while web process, database and Valkey are killed: no point is missing or doubled."""

import json
import random
import threading
from itertools import cycle
from typing import Any

import httpx
import pytest

from tests.faults import invariants
from tests.faults.runs import Run, Submit
from tests.faults.stack import Installation
from tests.row_table import Report
from tests.waiting import until

NUM_VIEWERS = 20
NUM_RECONNECTS = 200  # of all viewers together
SERVERS = ("web", "postgres", "web", "valkey")  # killed in turn
SILENCE_SECONDS = 10  # without a byte, after which a viewer connects again: two pings


class ReconnectingViewer(threading.Thread):
    """A client that stores the training loss as the job's page does, and connects again after its last event."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(daemon=True)
        self.url, self.headers = url, {"Authorization": f"Bearer {token}"}
        self.cursor = ""
        self.losses: dict[int, float] = {}
        self.doubles: list[int] = []
        self.num_connections = self.num_curves = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        """Follow until the job has ended and its last point is there."""
        with httpx.Client(headers=self.headers, timeout=SILENCE_SECONDS) as client:
            while not self.is_over.is_set():
                try:
                    self._follow(client)
                except httpx.HTTPError:
                    self.is_over.wait(random.uniform(0.05, 0.2))

    def _follow(self, client: httpx.Client) -> None:
        with client.stream("GET", self.url, params={"after": self.cursor} if self.cursor else {}) as response:
            response.raise_for_status()
            self.num_connections += 1
            cursor = event = ""
            for line in response.iter_lines():
                field, _colon, value = line.partition(": ")
                if field == "id":
                    cursor = value
                elif field == "event":
                    event = value
                elif field == "data":
                    self._receive(event, json.loads(value))
                    self.cursor = cursor or self.cursor
                if self.is_over.is_set():
                    return

    def _receive(self, event: str, data: dict[str, Any]) -> None:
        if event not in ("curve", "points") or "loss" not in data["series"]:
            return
        steps, values = data["series"]["loss"]["steps"], data["series"]["loss"]["values"]
        if event == "curve":
            self.num_curves += 1
            self.losses.clear()
        self.doubles += [step for step in steps if step in self.losses]
        self.losses.update(zip(steps, values, strict=True))

    @property
    def last_step(self) -> int:
        """The last step whose loss is there."""
        return max(self.losses.copy(), default=0)


def stored_losses(run: Run) -> dict[int, float]:
    """The live points of the training loss."""
    query = "SELECT step, value FROM metric_point WHERE job_id = %s AND series = 'loss' AND NOT archived"
    return {row["step"]: row["value"] for row in run.stack.rows(query, run.id)}


@pytest.mark.row("F57-1", "20 viewers; web, PostgreSQL and Valkey killed in turn until 200 connections were lost")
def test_viewers_get_each_point_once(installation: Installation, submit: Submit, report: Report) -> None:
    run = submit(max_steps=1_000_000, save_steps=1_000_000)
    viewers = [
        ReconnectingViewer(installation.url(f"/api/v1/jobs/{run.id}/events"), installation.token)
        for _ in range(NUM_VIEWERS)
    ]
    try:
        for viewer in viewers:
            viewer.start()
        num_reconnects = num_kills = 0
        for server in cycle(SERVERS):
            until_all_follow(run, viewers)
            num_reconnects = sum(viewer.num_connections - 1 for viewer in viewers)
            if num_reconnects >= NUM_RECONNECTS:
                break
            installation.kill9(server)
            installation.restart(server)
            num_kills += 1
        until(installation.is_ready, 60, "a web process that is ready")
        run.post("cancel")
        run.until("cancelled")
        expected = stored_losses(run)
        last = max(expected)
        until(lambda: all(viewer.last_step == last for viewer in viewers), 60, "the last point at each viewer")
    finally:
        for viewer in viewers:
            viewer.is_over.set()
    assert [viewer.doubles for viewer in viewers] == [[]] * NUM_VIEWERS
    assert max(viewer.num_curves for viewer in viewers) <= 1, "sent whole at most once, then what is new"
    assert all(viewer.losses == expected for viewer in viewers)
    invariants.check(run)
    report(f"{num_kills} kills, {num_reconnects} connections lost, {last:,} points, none missing or doubled")


def until_all_follow(run: Run, viewers: list[ReconnectingViewer]) -> None:
    """Wait until each viewer has a point that was written after now."""
    query = "SELECT max(step) AS last FROM metric_point WHERE job_id = %s"

    def last_step() -> int:
        return int(run.stack.rows(query, run.id)[0]["last"] or 0)

    step = until(last_step, 60, "a point")
    until(lambda: all(viewer.last_step > step for viewer in viewers), 60, "a new point at each viewer")
