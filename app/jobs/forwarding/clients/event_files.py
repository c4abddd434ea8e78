"""Writes event files of TensorBoard, a directory for each job.

The file is first cut to the length that was recorded, so that what an earlier process wrote beyond it is not there
twice. The same bytes follow, which TensorBoard may already have read. A file that is gone or shorter is written again.
"""

import os
import re
from pathlib import Path
from typing import IO, Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import text

from app.jobs.forwarding.clients.errors import LostRows

NOT_IN_NAMES = re.compile(r"[^\w.-]+")


class Records(RecordWriter):  # type: ignore[misc]
    """Writes the records of an event file into an open file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = file


def forward(job: dict[str, Any], rows: list[Any], remote: dict[str, Any], is_over: bool) -> dict[str, Any]:
    """Append an event for each row; the first one holds the spec, the last one the end. Raises LostRows, OSError."""
    directory = Path(os.environ["TENSORBOARD_DIR"])
    name = remote.get("file") or _file_name(job)
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    num_bytes = remote.get("num_bytes", 0)
    with open(path, "ab") as file:
        if file.tell() < num_bytes:
            raise LostRows("event_file_changed")
        file.truncate(num_bytes)
        file.seek(num_bytes)
        _write(Records(file), job, rows, not num_bytes, is_over)
        file.flush()
        os.fsync(file.fileno())
        return {"file": name, "num_bytes": file.tell(), "url": ""}


def _file_name(job: dict[str, Any]) -> str:
    run = NOT_IN_NAMES.sub("-", job["name"])[:60].strip("-.")
    return f"{run}-{job['id']}/events.out.tfevents.{job['created'] // 1000}.{job['id']}"


def _write(records: Records, job: dict[str, Any], rows: list[Any], is_first: bool, is_over: bool) -> None:
    began = (job["started"] or job["created"]) / 1000
    if is_first:
        records.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
        parameters = "".join(f"| {name} | {value} |\n" for name, value in job["parameters"].items())
        spec = text("spec", f"| field | value |\n| --- | --- |\n{parameters}")
        records.write(Event(wall_time=began, step=0, summary=spec).SerializeToString())
    for step, at, values in rows:
        scalars = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()]
        records.write(Event(wall_time=at / 1000, step=step, summary=Summary(value=scalars)).SerializeToString())
    if is_over:
        end = text("state", f"{job['state']}\n\n{job['failure'] or ''}")
        records.write(Event(wall_time=job["finished"] / 1000, step=0, summary=end).SerializeToString())
