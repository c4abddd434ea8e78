"""Curves as Parquet and as an event file of TensorBoard."""

import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyarrow import parquet
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.export import metric_files
from trainer.export.metric_files import Row
from trainer.formats.metric_names import tag_of

NOON = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("series", "tag"),
    [
        ("loss", "train/loss"),
        ("learning_rate", "train/learning_rate"),
        ("grad_norm", "train/grad_norm"),
        ("eval_loss", "eval/loss"),
        ("memory_bytes", "system/memory_bytes"),
        ("mfu_percent", "system/mfu_percent"),
    ],
)
def test_series_have_the_tags_of_transformers(series: str, tag: str) -> None:
    assert tag_of(series) == tag


def test_a_step_without_a_time_has_that_of_the_step_before(tmp_path: Path) -> None:
    rows = [Row(1, NOON, [1.0]), Row(2, None, [2.0])]
    metric_files.write_events(["loss"], iter(rows), str(tmp_path / "tfevents"))
    times = [point.wall_time for point in EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")]
    assert times == [NOON.timestamp()] * 2


def test_an_event_file_is_framed_with_lengths_and_says_its_version(tmp_path: Path) -> None:
    path = tmp_path / "tfevents"
    metric_files.write_events(["loss"], iter([Row(7, NOON, [1.0])]), str(path))
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    assert b"brain.Event:2" in content[12 : 12 + length]
    (following,) = struct.unpack_from("<Q", content, 16 + length)
    assert len(content) == 2 * 16 + length + following


def test_values_beyond_32_bits_become_infinite_in_tensorboard(tmp_path: Path) -> None:
    metric_files.write_events(["loss"], iter([Row(1, NOON, [1e300])]), str(tmp_path / "tfevents"))
    assert EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")[0].value == float("inf")


def test_a_long_run_has_several_row_groups_and_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_files, "ROWS_PER_GROUP", 10)
    rows = (Row(step, NOON if step % 2 else None, [step / 7]) for step in range(25))
    metric_files.write_parquet(["loss"], rows, str(tmp_path / "file"))
    file = parquet.ParquetFile(tmp_path / "file")
    assert file.num_row_groups == 3
    table = file.read().to_pydict()
    assert table["loss"] == [step / 7 for step in range(25)]
    assert table["time"][:2] == [None, NOON]
