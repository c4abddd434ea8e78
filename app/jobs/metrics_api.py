"""JSON routes of a job's curves, and the files of them."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from app.core import db
from app.core.errors import bad_field
from app.core.formatting import json_bytes
from app.core.i18n import _
from app.jobs import schemas, service
from app.jobs.attempts import metric_files, metrics, metrics_csv
from app.jobs.attempts.metric_files import CONVERSIONS
from app.web.auth import Reader
from app.web.idempotency import ApiRoute
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute)

BINARY = {"type": "string", "format": "binary"}


@router.get(
    "/jobs/{job_id}/metrics",
    tags=["jobs"],
    response_model=schemas.MetricsAnswer,
    responses=errors("window_invalid"),
)
def get_metrics(
    principal: Reader,
    job_id: Id,
    series: Annotated[str | None, Query(description="Names, comma-separated. All if left out.", max_length=999)] = None,
    start: Annotated[int, Query(ge=0, le=2**31 - 1, description="The first step.")] = 0,
    end: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="The last step.")] = None,
    points: Annotated[int, Query(ge=10, le=5000, description="How many points a curve may have at most.")] = 1000,
    seconds: Annotated[bool, Query(description="Add the seconds of training before each step.")] = False,
) -> Response:
    """The curves of a job in a window of steps. Narrower windows give finer curves; spikes are always included."""
    if end is not None and end < start:
        raise bad_field("end", "window_invalid", _("The last step must not be before the first one."))
    names = series.replace("\0", "").split(",") if series else None
    with db.transaction() as session:
        service.get(session, principal=principal, job_id=job_id)
        last = metrics.last_step(session, job_id=job_id) if end is None else end
        window = metrics.Window(start, max(last, start) + 1, points)
        curves = metrics.curves(session, job_id=job_id, window=window, series=names)
        if seconds:
            metrics.add_seconds(session, job_id=job_id, curves=curves)
        return Response(json_bytes(schemas.curves_answer(curves)), media_type="application/json")


@router.get(
    "/jobs/{job_id}/metrics.csv",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def download_metrics(principal: Reader, job_id: Id) -> StreamingResponse:
    """Download all points of all curves as CSV: a line for each step, a column for each series."""
    with db.transaction() as session:
        service.get(session, principal=principal, job_id=job_id)
    return _attachment(metrics_csv.chunks(job_id), "text/csv; charset=utf-8", f"metrics-{job_id}.csv")


@router.get(
    "/jobs/{job_id}/metrics.parquet",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/vnd.apache.parquet": {"schema": BINARY}}},
        **errors("metrics_busy", "metrics_failed"),
    },
)
@CONVERSIONS
def download_metrics_parquet(principal: Reader, job_id: Id) -> StreamingResponse:
    """Download all points of all curves as Parquet: a row for each step, a column of 64-bit floats for each series."""
    with db.transaction() as session:
        service.get(session, principal=principal, job_id=job_id)
    content = metric_files.chunks(job_id, "parquet")
    return _attachment(content, "application/vnd.apache.parquet", f"metrics-{job_id}.parquet")


@router.get(
    "/jobs/{job_id}/metrics.tfevents",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": BINARY}}},
        **errors("metrics_busy", "metrics_failed"),
    },
)
@CONVERSIONS
def download_metrics_tensorboard(principal: Reader, job_id: Id) -> StreamingResponse:
    """Download all points of all curves as an event file of TensorBoard, with steps and times.

    Put it into a directory of its own, which is a run of `tensorboard --logdir`. Tags are train/loss, eval/loss,
    train/learning_rate, system/gpu_percent and the like.
    """
    with db.transaction() as session:
        job = service.get(session, principal=principal, job_id=job_id)
    content = metric_files.chunks(job_id, "tensorboard")
    name = f"events.out.tfevents.{int(job.created_at.timestamp())}.{job_id}"
    return _attachment(content, "application/octet-stream", name)


def _attachment(content: Iterator[bytes], media_type: str, filename: str) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return StreamingResponse(content, media_type=media_type, headers=headers)
