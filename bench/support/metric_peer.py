"""A long curve in another tracking tool, in a Python environment that has only that tool.

`python bench/support/metric_peer.py TOOL DIRECTORY` with {"num_points", "spikes", "nans", "windows", "repeats"} as JSON
on standard input. Prints as JSON how long storing, opening and zooming took, and what the answers show. Imports nothing
of ours.
"""

import json
import math
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

Answer = list[tuple[int, float]]  # steps and values
WAIT_SECONDS = 300


def values(request: dict[str, Any]) -> list[float]:
    """The loss at each step from 1, with the planted points."""
    count = request["num_points"]
    curve = [2 + 8 * math.exp(-5 * step / count) + (step * 2654435761 % 128) / 1024 for step in range(1, count + 1)]
    for step, value in request["spikes"].items():
        curve[int(step) - 1] = value
    for step in request["nans"]:
        curve[step - 1] = math.nan
    return curve


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get(url: str) -> Any:
    """The JSON at an address, or None while there is no server."""
    try:
        with urlopen(url, timeout=WAIT_SECONDS) as answer:
            return json.load(answer)
    except (URLError, OSError):
        return None


class TensorBoard:
    """Event files, and the server with its default of 1,000 sampled points for each curve. It does not zoom."""

    zooms = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""

    def store(self, curve: list[float]) -> None:
        """Write the event file."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        writer = EventFileWriter(str(self.directory))
        for step, value in enumerate(curve, 1):
            summary = Summary(value=[Summary.Value(tag="loss", simple_value=value)])
            writer.add_event(Event(step=step, wall_time=1.7e9 + step, summary=summary))
        writer.close()

    def command(self, port: int) -> list[str]:
        """Start the server."""
        self.url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=.&tag=loss"
        return [sys.executable, "-m", "tensorboard.main", "--logdir", str(self.directory), "--port", str(port)]

    def read(self, _window: list[int] | None) -> Answer:
        """The curve as the page gets it."""
        return [(step, float(value)) for _time, step, value in get(self.url) or []]


class MLflow:
    """A run in SQLite, and the server; read as its page does, in at most 320 points."""

    zooms = True

    def __init__(self, directory: Path) -> None:
        self.store_uri = f"sqlite:///{directory}/mlflow.db"
        self.directory = directory
        self.url = ""
        self.run_id = ""

    def store(self, curve: list[float]) -> None:
        """Log the points in batches of the 1,000 that a request may have."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        client = MlflowClient(tracking_uri=self.store_uri)
        self.run_id = client.create_run(client.create_experiment("bench")).info.run_id
        points = [Metric("loss", value, 1_700_000_000_000 + step, step) for step, value in enumerate(curve, 1)]
        for begin in range(0, len(points), 1000):
            client.log_batch(self.run_id, metrics=points[begin : begin + 1000])

    def command(self, port: int) -> list[str]:
        """Start the server."""
        path = "ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
        self.url = f"http://127.0.0.1:{port}/{path}?run_ids={self.run_id}&metric_key=loss&max_results=320"
        server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store_uri, "--workers", "1"]
        return [*server, "--port", str(port), "--artifacts-destination", str(self.directory)]

    def read(self, window: list[int] | None) -> Answer:
        """The curve, or a window of it, as the page gets it."""
        more = f"&start_step={window[0]}&end_step={window[1]}" if window else ""
        answer = get(self.url + more) or {}
        return [(int(point["step"]), float(point["value"])) for point in answer.get("metrics", [])]


class Trackio:
    """A run in SQLite; read in this process as its server does for the page, without the time of HTTP."""

    zooms = False

    def __init__(self, _directory: Path) -> None:
        pass

    def store(self, curve: list[float]) -> None:
        """Log all points at once."""
        from trackio.sqlite_storage import SQLiteStorage

        SQLiteStorage.bulk_log("bench", "run", [{"loss": value} for value in curve], steps=[*range(1, len(curve) + 1)])

    def command(self, _port: int) -> list[str]:
        """No server is needed."""
        return ["sleep", str(WAIT_SECONDS)]

    def read(self, _window: list[int] | None) -> Answer:
        """The curve as the server hands it to the page."""
        from trackio.sqlite_storage import SQLiteStorage

        return [(log["step"], float(log["loss"])) for log in SQLiteStorage.get_logs("bench", "run")]


TOOLS = {"tensorboard": TensorBoard, "mlflow": MLflow, "trackio": Trackio}


def seconds(work: Callable[[], Any]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def wait_for_end(tool: Any, last_step: int) -> None:
    """Wait until the answer reaches the last step."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (answer := tool.read(None)) or answer[-1][0] < last_step:
        assert time.monotonic() < deadline, f"no answer with step {last_step}: {answer[-1:]}"
        time.sleep(0.05)


def main(name: str, directory: Path) -> None:
    """Store, start the server, open, zoom; print what it took."""
    request, tool = json.load(sys.stdin), TOOLS[name](directory)
    curve = values(request)
    result: dict[str, Any] = {"store_seconds": seconds(lambda: tool.store(curve))}
    begin = time.perf_counter()
    with subprocess.Popen(tool.command(free_port()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for_end(tool, len(curve))
            result["cold_seconds"] = time.perf_counter() - begin
            result["open_seconds"] = [seconds(lambda: tool.read(None)) for _ in range(request["repeats"])]
            windows = request["windows"] if tool.zooms else []
            result["zoom_seconds"] = [seconds(lambda window=window: tool.read(window)) for window in windows]
            answer = tool.read(None)
        finally:
            server.terminate()
    shown = {value for _step, value in answer}
    result["num_points"] = len(answer)
    result["spikes"] = sum(value in shown for value in request["spikes"].values())
    result["nans"] = sum(math.isnan(value) for _step, value in answer)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
