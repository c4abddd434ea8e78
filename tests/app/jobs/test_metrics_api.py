"""The curves of a job as files: CSV, Parquet and an event file of TensorBoard, read by other programs."""

import csv
import io
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pyarrow import parquet
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app.core.errors import PanelError
from app.core.node_budget import node_budget
from app.jobs.attempts import metric_files, metrics_csv
from app.jobs.attempts.metric_files import ConversionFailed
from tests.app.jobs import factories
from tests.users import Person
from trainer import events


@pytest.fixture(scope="module")
def job_id(alice_user: Person) -> str:
    """A job with odd values of its loss at steps 1 to 5, the first at second 1000, and a validation loss at step 5."""
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user))
    values: list[float | str] = [0.1 + 0.2, "nan", 1e-300, "-inf", 4.0]
    factories.record(job_id, fence, factories.losses(values))
    point = events.PointsEvent(seq=9, at=2000.0, step=5, values={"eval_loss": 2.5, "gpu_percent": 80.0})
    factories.record(job_id, fence, [point])
    return job_id


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_csv, "STEPS_PER_PAGE", 2)


def test_all_points_of_all_curves_are_downloaded_as_csv(alice_api: TestClient, job_id: str) -> None:
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/metrics.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["loss"] for row in rows] == ["0.30000000000000004", "nan", "1e-300", "-inf", "4.0"]
    assert [row["eval_loss"] for row in rows] == ["", "", "", "", "2.5"]
    assert rows[0]["time"] == "1970-01-01T00:16:40+00:00"


def test_the_parquet_file_has_every_digit(alice_api: TestClient, job_id: str) -> None:
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/metrics.parquet")
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = parquet.read_table(io.BytesIO(answer.content)).to_pydict()
    assert list(table) == ["step", "time", "eval_loss", "gpu_percent", "loss"]
    assert table["step"] == [1, 2, 3, 4, 5]
    assert math.isnan(table["loss"].pop(1))
    assert table["loss"] == [0.30000000000000004, 1e-300, -math.inf, 4.0]
    assert table["eval_loss"] == [None, None, None, None, 2.5]
    assert [time.timestamp() for time in table["time"]] == [1000.0, 1001.0, 1002.0, 1003.0, 2000.0]


def test_tensorboard_shows_the_curves(alice_api: TestClient, job_id: str, tmp_path: Path) -> None:
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/metrics.tfevents")
    name = answer.headers["content-disposition"].split('"')[1]
    assert name.startswith("events.out.tfevents.")
    (tmp_path / name).write_bytes(answer.content)
    run = EventAccumulator(str(tmp_path)).Reload()
    assert run.Tags()["scalars"] == ["train/loss", "eval/loss", "system/gpu_percent"]
    losses = run.Scalars("train/loss")
    assert [loss.step for loss in losses] == [1, 2, 3, 4, 5]
    assert [loss.wall_time for loss in losses] == [1000.0, 1001.0, 1002.0, 1003.0, 2000.0]
    assert losses[0].value == pytest.approx(0.3)
    assert math.isnan(losses[1].value)
    assert (losses[3].value, losses[4].value) == (-math.inf, 4.0)
    assert [(point.step, point.value) for point in run.Scalars("eval/loss")] == [(5, 2.5)]


@pytest.mark.parametrize("ending", ["csv", "parquet", "tfevents"])
def test_another_users_curves_are_not_downloaded(bob_api: TestClient, job_id: str, ending: str) -> None:
    assert bob_api.get(f"/api/v1/jobs/{job_id}/metrics.{ending}").status_code == 404


@pytest.mark.parametrize("ending", ["parquet", "tfevents"])
def test_a_job_without_points_has_files_without_rows(alice_api: TestClient, alice_user: Person, ending: str) -> None:
    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/metrics.{ending}")
    assert answer.status_code == 200
    if ending == "parquet":
        assert parquet.read_table(io.BytesIO(answer.content)).num_rows == 0


def test_a_file_that_no_child_can_write_is_refused_and_frees_its_memory(
    alice_api: TestClient, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_files, "LIMITS", metric_files.ChildLimits(memory_bytes=1 << 20))
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/metrics.parquet")
    assert (answer.status_code, answer.json()["code"]) == (500, "metrics_failed")
    assert metric_files.MEMORY_BYTES not in reserved()


def test_curves_that_cannot_be_read_to_their_end_give_no_complete_file() -> None:
    def lines() -> Iterator[bytes]:
        yield b"step,time,loss\n1,,2.5\n"
        raise OSError("the database is gone")

    reservation = node_budget().reserve(metric_files.MEMORY_BYTES)
    with pytest.raises(ConversionFailed):
        list(metric_files._converted(lines(), "parquet", reservation))


def test_a_reader_that_leaves_ends_the_child(job_id: str) -> None:
    pieces = metric_files.chunks(job_id, "parquet")
    assert next(pieces).startswith(b"PAR1")
    assert metric_files.MEMORY_BYTES in reserved()
    del pieces
    assert metric_files.MEMORY_BYTES not in reserved()


def test_few_files_are_read_at_once(alice_api: TestClient, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_files, "_PLACES", threading.BoundedSemaphore(1))
    pieces = metric_files.chunks(job_id, "parquet")
    next(pieces)
    refused = alice_api.get(f"/api/v1/jobs/{job_id}/metrics.parquet")
    assert (refused.status_code, refused.json()["code"]) == (503, "metrics_busy")
    del pieces
    assert alice_api.get(f"/api/v1/jobs/{job_id}/metrics.parquet").status_code == 200


def test_a_reader_that_takes_too_long_gets_no_complete_file(job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_files, "MAX_SECONDS", 0)
    with pytest.raises((ConversionFailed, PanelError)):
        list(metric_files.chunks(job_id, "parquet"))


def reserved() -> list[int]:
    return [use.memory_bytes for use in node_budget()._uses().values()]
