"""Jobs: planning, submitting, following and changing them."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2

from . import run_archives
from .errors import ServerBusy, ServerUnreachable
from .files import OnProgress, body_of, nothing
from .job_shapes import (
    AttemptInfo,
    BaselinesInfo,
    ComparisonInfo,
    EveryonesJobInfo,
    ForecastInfo,
    ForwardingInfo,
    ForwardingsInfo,
    HistoryInfo,
    ImportanceInfo,
    JobInfo,
    MetricsInfo,
    OriginInfo,
    PlanInfo,
    ProposalCurveInfo,
    ProposalInfo,
    SampleInfo,
    SearchInfo,
    TemplatePreviewInfo,
)
from .labels import label_changes
from .log_shapes import LogInfo, LogLineInfo
from .row_list import RowList
from .run_archives import CheckpointChoice
from .shapes import TaskInfo
from .transport import address
from .waiting import ignore

LIVE_SECONDS = 45.0  # without a byte, after which a stream counts as broken; the server sends one every 4 s
DRAIN_SECONDS = 2.0  # without a byte, after which the stream of a job that has ended holds nothing more
RECONNECT_SECONDS = 600.0  # how long a stream is reconnected without success
RECONNECT_PAUSE = 1.0
ENDED = ("succeeded", "failed", "cancelled")

MetricsFormat = Literal["csv", "parquet", "tensorboard"]


@dataclass(frozen=True)
class StreamedEvent:
    """One event of a job: job, attempts, curve, points, sample, history, checkpoints or log.

    `id` is the cursor that `events` continues after; `data` is as docs/api.md and the OpenAPI document describe it.
    """

    id: str
    name: str
    data: Any

    @property
    def job(self) -> JobInfo | None:
        """The job, of an event `job`."""
        return JobInfo.model_validate(self.data) if self.name == "job" else None

    @property
    def ends_job(self) -> bool:
        """Whether it says that the job has ended."""
        return self.name == "job" and self.data["state"] in ENDED


class Jobs(RowList):
    """Requests to train."""

    _path = "jobs"

    def submit(self, spec: Mapping[str, Any]) -> JobInfo:
        """Submit a job: a partial TrainSpec, whose recipe fills in the fields that are missing."""
        return self._transport.post(JobInfo, "/jobs", spec)

    def plan(self, spec: Mapping[str, Any]) -> PlanInfo:
        """Validate a spec and estimate what a job of it would cost, without submitting it."""
        return self._transport.post(PlanInfo, "/jobs/plan", spec)

    def tokenize(self, spec: Mapping[str, Any]) -> TaskInfo:
        """Tokenize the corpora of a job in the background, without submitting it; `tasks.wait` for the task.

        Jobs with the same corpora, tokenizer and fields of the data then begin to train at once.
        """
        return self._transport.post(TaskInfo, "/jobs/tokenize", spec)

    def propose(self, corpora: Sequence[str], seconds: float) -> ProposalInfo:
        """Propose a model for corpora and a training time."""
        return self._transport.post(ProposalInfo, "/jobs/propose", {"corpora": list(corpora), "seconds": seconds})

    def propose_curve(self, corpora: Sequence[str], seconds: Sequence[float] | None = None) -> ProposalCurveInfo:
        """The expected loss by training time; by default for times from a minute to a week."""
        body: dict[str, Any] = {"corpora": list(corpora)}
        if seconds is not None:
            body["seconds"] = list(seconds)
        return self._transport.post(ProposalCurveInfo, "/jobs/propose-curve", body)

    def preview_template(
        self,
        chat_template: str | None = None,
        *,
        base_model: str | None = None,
        messages: Sequence[Mapping[str, str]] | None = None,
    ) -> TemplatePreviewInfo:
        """What a chat template makes of a conversation, and which parts of it a model would learn."""
        body: dict[str, Any] = {"chat_template": chat_template, "base_model": base_model}
        if messages is not None:
            body["messages"] = [dict(message) for message in messages]
        return self._transport.post(TemplatePreviewInfo, "/jobs/preview-template", body)

    def list(
        self,
        states: Sequence[str] = (),
        limit: int = 50,
        *,
        search: str = "",
        tag: str | None = None,
        owner: str | None = None,
        order: str = "newest",
    ) -> Iterator[JobInfo]:
        """Your jobs, newest first, read in pages of `limit`: all, or those in some states, with a tag, with a text.

        `search` looks into name, tags, notes and recipe; `owner` is own, or shared by others; `order` is newest,
        oldest, name or eval_loss.
        """
        query = {"q": search or None, "tag": tag, "owner": owner, "order": None if order == "newest" else order}
        return self._transport.pages(JobInfo, "/jobs", state=[*states], limit=limit, **query)

    def compare(self, job_ids: Sequence[str]) -> ComparisonInfo:
        """Jobs side by side: best values, newest samples, and the fields in which their specs differ."""
        return self._transport.get(ComparisonInfo, "/jobs/compare", job=[*job_ids])

    def everyones(self, search: str = "", is_open: bool = False, limit: int = 50) -> Iterator[EveryonesJobInfo]:
        """Everybody's jobs, newest first, or those of a job's or owner's name. For admins and owners."""
        return self._transport.pages(EveryonesJobInfo, "/everyones-jobs", q=search, is_open=is_open, limit=limit)

    def cancel_everyones(self, job_id: str) -> EveryonesJobInfo:
        """Cancel a job of any user. For admins and owners."""
        return self._transport.post(EveryonesJobInfo, address("everyones-jobs", job_id, "cancel"))

    def change(
        self,
        job_id: str,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        is_notified: bool | None = None,
        evaluation_corpora: Sequence[str] | None = None,
    ) -> JobInfo:
        """Rename, tag or describe a job, or choose whether you are notified of it, and on which corpora its best
        checkpoint is evaluated when it has succeeded; what is None stays.
        """
        body = label_changes(name, tags, notes)
        if is_notified is not None:
            body["is_notified"] = is_notified
        if evaluation_corpora is not None:
            body["evaluation_corpora"] = [*evaluation_corpora]
        return self._transport.patch(JobInfo, address("jobs", job_id), body)

    def forwardings(self, job_id: str) -> Iterator[ForwardingInfo]:
        """The experiment trackers that the installation forwards to, each with how far a job is there."""
        return self._transport.pages(ForwardingInfo, address("jobs", job_id, "forwardings"))

    def forward(self, job_id: str, trackers: Mapping[str, bool]) -> ForwardingsInfo:
        """Forward a job to trackers (True), with everything so far, or forward no more of it (False)."""
        where = address("jobs", job_id, "forwardings")
        return self._transport.patch(ForwardingsInfo, where, {"trackers": dict(trackers)})

    def get(self, job_id: str) -> JobInfo:
        """A job."""
        return self._transport.get(JobInfo, address("jobs", job_id))

    def pause(self, job_id: str) -> JobInfo:
        """Pause a job. It saves a checkpoint and frees its node."""
        return self._transport.post(JobInfo, address("jobs", job_id, "pause"))

    def resume(self, job_id: str) -> JobInfo:
        """Resume a paused job from its newest checkpoint."""
        return self._transport.post(JobInfo, address("jobs", job_id, "resume"))

    def cancel(self, job_id: str) -> JobInfo:
        """Cancel a job. A running one saves a last checkpoint."""
        return self._transport.post(JobInfo, address("jobs", job_id, "cancel"))

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended, with its checkpoints."""
        self._transport.delete(address("jobs", job_id))

    def forecast(self, job_id: str) -> ForecastInfo:
        """Where the training loss of a job that has not ended will probably go."""
        return self._transport.get(ForecastInfo, address("jobs", job_id, "forecast"))

    def search(self, request: Mapping[str, Any]) -> SearchInfo:
        """Submit a hyperparameter search: name, spec, grid, ranges, num_jobs, seed, early_stopping,
        sampler (random or tpe) and parallel_jobs.
        """
        return self._transport.post(SearchInfo, "/hyperparameter-searches", request)

    def searches(self, limit: int = 50) -> Iterator[SearchInfo]:
        """Your hyperparameter searches, newest first, read in pages of `limit`."""
        return self._transport.pages(SearchInfo, "/hyperparameter-searches", limit=limit)

    def get_search(self, search_id: str) -> SearchInfo:
        """A hyperparameter search."""
        return self._transport.get(SearchInfo, address("hyperparameter-searches", search_id))

    def search_importance(self, search_id: str) -> ImportanceInfo:
        """How much each field of a hyperparameter search decides about the validation loss."""
        return self._transport.get(ImportanceInfo, address("hyperparameter-searches", search_id, "importance"))

    def cancel_search(self, search_id: str) -> SearchInfo:
        """Cancel all jobs of a hyperparameter search that have not ended."""
        return self._transport.post(SearchInfo, address("hyperparameter-searches", search_id, "cancel"))

    def history(self, job_id: str) -> Iterator[HistoryInfo]:
        """What happened to a job, oldest first."""
        return self._transport.pages(HistoryInfo, address("jobs", job_id, "history"))

    def attempts(self, job_id: str) -> Iterator[AttemptInfo]:
        """The attempts at a job, oldest first."""
        return self._transport.pages(AttemptInfo, address("jobs", job_id, "attempts"))

    def samples(self, job_id: str) -> Iterator[SampleInfo]:
        """What the model wrote at each evaluation, oldest first."""
        return self._transport.pages(SampleInfo, address("jobs", job_id, "samples"))

    def metrics(
        self,
        job_id: str,
        series: Sequence[str] = (),
        *,
        start: int = 0,
        end: int | None = None,
        points: int = 1000,
        seconds: bool = False,
    ) -> MetricsInfo:
        """The curves of a job from step `start` to `end`, each of at most so many points.

        With `seconds`, those of training before each step are added.
        """
        names = ",".join(series)
        where = address("jobs", job_id, "metrics")
        return self._transport.get(
            MetricsInfo, where, series=names, start=start, end=end, points=points, seconds=seconds
        )

    def download_metrics(self, job_id: str, target: Path | str, format: MetricsFormat = "csv") -> Path:
        """Write all points of all curves to a file, which exists only if it is complete.

        CSV and Parquet have a row for each step and a column for each series. An event file of TensorBoard goes into
        a directory of its own, under a name that contains "tfevents".
        """
        path = Path(target)
        ending = "tfevents" if format == "tensorboard" else format
        part = path.with_name(f"{path.name}.part")
        try:
            self._receive(address("jobs", job_id, f"metrics.{ending}"), part)
            return part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def export(self, job_id: str, target: Path | str, checkpoints: CheckpointChoice = "best_and_last") -> Path:
        """Write a job that has ended to one tar archive: spec, curves, samples, tokenizer and intact checkpoints.

        Each file is compared with its SHA-256; the archive exists only if it is complete. Raises BrokenDownload.
        """
        path = Path(target)
        part = path.with_name(f"{path.name}.part")
        try:
            self._receive(address("jobs", job_id, "archive"), part, checkpoints=checkpoints)
            run_archives.verify(part)
            return part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def import_archive(self, path: Path | str, on_progress: OnProgress = nothing) -> TaskInfo:
        """Import the archive of a job that another installation exported, in the background: wait for the task with
        `client.tasks.wait`; its `result["job_id"]` is the job.
        """
        file = Path(path)
        body = body_of(file, on_progress)
        return self._transport.upload(TaskInfo, "POST", "/jobs/import", body, file.stat().st_size, filename=file.name)

    def origin(self, job_id: str) -> OriginInfo:
        """The archive that a job was imported from. Raises ServerProblem (409) for one that was submitted here."""
        return self._transport.get(OriginInfo, address("jobs", job_id, "origin"))

    def _receive(self, where: str, target: Path, **query: Any) -> None:
        """Write a streamed answer to a file. Raises ServerUnreachable if it breaks off."""
        try:
            with self._transport.open("GET", where, query=query) as response, target.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        except httpx2.TransportError as error:
            raise self._transport.unreachable(error) from error

    def log(self, job_id: str, offset: int = 0) -> LogInfo:
        """A piece of the log, from a byte on."""
        return self._transport.get(LogInfo, address("jobs", job_id, "log"), offset=offset)

    def baselines(self, job_id: str) -> BaselinesInfo:
        """What the loss of a job is compared with: guessing blindly or by frequency, and your best earlier job."""
        return self._transport.get(BaselinesInfo, address("jobs", job_id, "baselines"))

    def log_lines(
        self, job_id: str, search: str = "", level: str | None = None, around: int | None = None, limit: int = 50
    ) -> Iterator[LogLineInfo]:
        """The lines of the log that contain a text, in upper or lower case, and are at least of a level: warning or
        error; read in pages of `limit`. With `around`, the offset of a line, those around it instead.
        """
        where = address("jobs", job_id, "log", "lines")
        return self._transport.pages(LogLineInfo, where, search=search or None, level=level, around=around, limit=limit)

    def events(
        self, job_id: str, after: str = "", on_disconnect: Callable[[Exception], None] = ignore
    ) -> Iterator[StreamedEvent]:
        """Everything about a job after a cursor, then live, until it has ended and all was told.

        A broken connection is opened again behind the last event, so that none is lost or doubled; `on_disconnect`
        gets the reason. Raises ServerUnreachable after ten minutes without success.
        """
        deadline = time.monotonic() + RECONNECT_SECONDS
        has_ended = False
        while True:
            try:
                for event in self._connect(job_id, after, DRAIN_SECONDS if has_ended else LIVE_SECONDS):
                    after, deadline = event.id, time.monotonic() + RECONNECT_SECONDS
                    yield event
                    if event.ends_job:
                        has_ended = True
                        break  # the rest is read with a timeout: the server keeps the stream open
                else:
                    if has_ended:
                        return
                    self._pause(deadline, ServerUnreachable(job_id))  # the server closes its streams when it stops
            except (httpx2.TransportError, ServerUnreachable, ServerBusy) as error:
                if has_ended and isinstance(error, httpx2.ReadTimeout):
                    return
                on_disconnect(error)
                self._pause(deadline, error)

    def _pause(self, deadline: float, error: Exception) -> None:
        if time.monotonic() > deadline:
            raise self._transport.unreachable(error) from error
        time.sleep(RECONNECT_PAUSE)

    def _connect(self, job_id: str, after: str, read_seconds: float) -> Iterator[StreamedEvent]:
        headers = {"Last-Event-ID": after} if after else {}
        where = address("jobs", job_id, "events")
        with self._transport.events("GET", where, headers=headers, read_seconds=read_seconds) as events:
            for event in events:
                if event.data:
                    yield StreamedEvent(event.id, event.event, json.loads(event.data))

    def wait(self, job_id: str) -> JobInfo:
        """Wait until a job has ended."""
        for event in self.events(job_id):
            if event.ends_job:
                break
        return self.get(job_id)
