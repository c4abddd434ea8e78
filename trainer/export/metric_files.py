"""Converts the curves of a run to a Parquet file or to an event file of TensorBoard.

`python -m trainer.export.metric_files FORMAT` reads them as CSV from standard input, a line for each step in order
with the columns step, time and one for each series, and writes the file to standard output while it reads.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import pyarrow
from pyarrow import parquet
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from trainer.formats.metric_names import tag_of

ROWS_PER_GROUP = 10_000  # of a Parquet file
STANDARD_OUTPUT = "/dev/stdout"


@dataclass(frozen=True)
class Row:
    """The values at a step, in the order of the series; None where a series has none there."""

    step: int
    time: datetime | None
    values: list[float | None]


def main() -> None:
    """Convert standard input to the format of the first argument, parquet or tensorboard."""
    lines = csv.reader(sys.stdin)
    names = next(lines)[2:]
    writers = {"parquet": write_parquet, "tensorboard": write_events}
    writers[sys.argv[1]](names, map(_row, lines), STANDARD_OUTPUT)


def _row(cells: Sequence[str]) -> Row:
    step, time, *values = cells
    return Row(
        int(step),
        datetime.fromisoformat(time) if time else None,
        [float(value) if value else None for value in values],  # nan, inf and -inf are words of float, too
    )


def write_parquet(names: Sequence[str], rows: Iterator[Row], target: str) -> None:
    """Write a column for each series, of 64-bit floats, beside `step` and `time` (UTC)."""
    series = [(name, pyarrow.float64()) for name in names]
    schema = pyarrow.schema([("step", pyarrow.int64()), ("time", pyarrow.timestamp("us", tz="UTC")), *series])
    with open(target, "wb") as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rows, ROWS_PER_GROUP)):
            values = zip(*(row.values for row in group), strict=True)
            columns = [[row.step for row in group], [row.time for row in group], *values]
            arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def write_events(names: Sequence[str], rows: Iterator[Row], target: str) -> None:
    """Write an event for each step, with a scalar for each series and the time at which the step was done.

    TensorBoard keeps 32-bit floats. A step without a time has that of the step before it.
    """
    tags = [tag_of(name) for name in names]
    writer = RecordWriter(target)
    seconds = 0.0
    writer.write(Event(wall_time=seconds, file_version="brain.Event:2").SerializeToString())
    for row in rows:
        seconds = row.time.timestamp() if row.time is not None else seconds
        values = [
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in zip(tags, row.values, strict=True)
            if value is not None
        ]
        writer.write(Event(wall_time=seconds, step=row.step, summary=Summary(value=values)).SerializeToString())
    writer.close()


if __name__ == "__main__":
    main()
