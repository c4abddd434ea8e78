"""What the API takes and says about jobs and nodes. `job_answer` and its like draw rows in the reader's language."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import object_session

from app.checkpoints.service import LIVE
from app.i18n import _
from app.jobs import failures, metrics, progress, waiting
from app.models import Checkpoint, Job, JobEvent, Node, Sample
from app.web import file_size
from trainer.plan import Memory, Plan
from trainer.spec import TrainSpec, recipe, recipe_names

Value = float | Literal["nan", "inf", "-inf"]
MAX_CHECKPOINT_IDS = 200  # as many as the page of a job lists

SUBMIT_EXAMPLES = {
    "smallest": {
        "summary": "The recipe tiny on one corpus",
        "value": {"recipe": "tiny", "corpora": ["06e9x0c5m1n2p3q4"]},
    },
    "some fields": {
        "summary": "Two processes, fewer steps",
        "value": {
            "name": "first try",
            "recipe": "tiny",
            "corpora": ["06e9x0c5m1n2p3q4"],
            "max_steps": 200,
            "num_processes": 2,
            "per_device_batch_size": 8,
            "zero_stage": 2,
        },
    },
}


class PhaseProgress(BaseModel):
    """How far one phase is, in steps, bytes or files, and how long it has taken."""

    done: int
    total: int
    seconds: float


class ProgressAnswer(BaseModel):
    """How far the present phase is, and each phase so far."""

    phase: str | None = None
    done: int = 0
    total: int = 0
    phases: dict[str, PhaseProgress] = {}


class WaitAnswer(BaseModel):
    """Why a job does not run yet."""

    code: str
    message: str
    position: int | None = Field(description="The place in line: 1 is next. Null where there is no line to stand in.")
    until: datetime | None = Field(description="When the wait ends by itself, where that is known.")


class FailureAnswer(BaseModel):
    """Why a job failed, and what to do about it."""

    code: str
    cause: str
    next_step: str


class JobAnswer(BaseModel):
    """A job: what was asked for, where it stands, what is known of it."""

    id: str
    name: str
    recipe: str
    state: str
    desired: str = Field(description="What its user wishes: run, pause or cancel.")
    step: int
    max_steps: int
    node: str | None
    progress: ProgressAnswer
    eta_seconds: float | None = Field(description="Until the end; before training, until the end of the phase.")
    elapsed_seconds: float | None
    latest: dict[str, Value] = Field(description="The last value of each series.")
    wait: WaitAnswer | None
    failure: FailureAnswer | None
    facts: dict[str, Any] = Field(description="What the run found: tokens, sequences, vocabulary, parameters.")
    tokenizer_id: str | None
    checkpoint_ids: list[str] = Field(description="The newest checkpoints that are there, at most 200, newest first.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    spec: dict[str, Any] = Field(description="The resolved spec.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "06e9x1aa3kb5c7de",
                    "name": "tiny",
                    "recipe": "tiny",
                    "state": "running",
                    "desired": "run",
                    "step": 120,
                    "max_steps": 400,
                    "node": "ada",
                    "progress": {
                        "phase": "train",
                        "done": 120,
                        "total": 400,
                        "phases": {"train": {"done": 120, "total": 400, "seconds": 9.1}},
                    },
                    "eta_seconds": 24.5,
                    "elapsed_seconds": 14.2,
                    "latest": {"loss": 4.12, "eval_loss": 4.4, "tokens_per_second": 26200.0},
                    "wait": None,
                    "failure": None,
                    "facts": {"num_tokens": 1312844, "vocab_size": 2048, "num_parameters": 1067136},
                    "tokenizer_id": "06e9x1b2c3d4e5f6",
                    "checkpoint_ids": ["06e9x2m4q8r7t5vw"],
                    "created_at": "2026-11-24T20:14:51Z",
                    "started_at": "2026-11-24T20:14:52Z",
                    "finished_at": None,
                    "spec": {"recipe": "tiny", "corpora": ["06e9x0c5m1n2p3q4"]},
                }
            ]
        }
    )


def job_answer(job: Job) -> JobAnswer:
    """A job as the reader sees it."""
    spec = TrainSpec.model_validate(job.spec)
    running = job.finished_at is None
    return JobAnswer(
        **{name: getattr(job, name) for name in (*_PLAIN, *_INSTANTS)},
        progress=ProgressAnswer.model_validate(job.progress),
        eta_seconds=progress.eta_seconds(job.progress, spec, job.step) if running else None,
        elapsed_seconds=_elapsed(job),
        latest=job.progress.get("latest", {}),
        checkpoint_ids=_checkpoint_ids(job),
        wait=WaitAnswer(**wait) if (wait := waiting.describe(job)) else None,
        failure=FailureAnswer(**failures.describe(job.failure_code, job.failure)) if job.failure_code else None,
    )


_PLAIN = ("id", "name", "recipe", "state", "desired", "step", "max_steps", "node", "facts", "tokenizer_id", "spec")
_INSTANTS = ("created_at", "started_at", "finished_at")


def _checkpoint_ids(job: Job) -> list[str]:
    """What a page that lists checkpoints compares its lines with."""
    session = object_session(job)
    assert session is not None, "a job is drawn within the transaction that read it"
    there = select(Checkpoint.id).where(Checkpoint.job_id == job.id, Checkpoint.state.in_(LIVE))
    return list(session.scalars(there.order_by(Checkpoint.id.desc()).limit(MAX_CHECKPOINT_IDS)))


def _elapsed(job: Job) -> float | None:
    if job.started_at is None:
        return None
    return round(((job.finished_at or datetime.now(UTC)) - job.started_at).total_seconds(), 1)


class HistoryEntry(BaseModel):
    """One thing that happened to a job."""

    seq: int
    at: datetime
    actor: str
    from_state: str | None = Field(serialization_alias="from")
    to_state: str = Field(serialization_alias="to")
    reason: str | None = Field(description="A code.")
    message: str | None = Field(description="The reason as a sentence.")


def history_entry(event: JobEvent) -> HistoryEntry:
    """A line of a job's history in the reader's language."""
    plain = {name: getattr(event, name) for name in ("seq", "at", "actor", "from_state", "to_state", "reason")}
    return HistoryEntry(**plain, message=failures.explain(event.reason, event.data))


class CurveAnswer(BaseModel):
    """A series: the points themselves where `stride` is 1, else their mean, least and greatest over so many steps."""

    steps: list[int]
    values: list[Value | None]
    min: list[float | None]
    max: list[float | None]
    stride: int


class MetricsAnswer(BaseModel):
    """Curves by the name of their series."""

    series: dict[str, CurveAnswer]


def curves_answer(curves: dict[str, metrics.Curve]) -> MetricsAnswer:
    """Curves for programs and charts."""
    return MetricsAnswer.model_validate({"series": {name: vars(curve) for name, curve in curves.items()}})


class SampleAnswer(BaseModel):
    """What the model wrote at a step."""

    model_config = ConfigDict(from_attributes=True)

    step: int
    prompt: str
    text: str


def sample_answer(sample: Sample) -> SampleAnswer:
    """A sample without what only we need."""
    return SampleAnswer.model_validate(sample)


class LogAnswer(BaseModel):
    """A piece of the log. Ask with `next_offset` for what follows."""

    text: str
    offset: int
    next_offset: int
    size: int


class RecipeAnswer(BaseModel):
    """A ready-made spec."""

    name: str
    num_parameters: int = Field(description="With its vocabulary size, or with 2,048 tokens where the text decides.")
    spec: dict[str, Any] = Field(description="The fields it fills in.")


class PlanAnswer(BaseModel):
    """A resolved spec and what it costs."""

    spec: TrainSpec
    num_parameters: int
    num_tokens: int
    tokens_per_step: int
    num_epochs: float | None
    vocab_size: int
    memory: dict[str, int] = Field(description="Bytes each process needs at its peak, by part.")
    memory_bytes: int
    checkpoint_bytes: int
    fits: bool | None
    reason: str


def plan_answer(spec: TrainSpec, vocab_size: int, plan: Plan) -> PlanAnswer:
    """A plan in the reader's language."""
    sizes = {name: file_size(value) if isinstance(value, int) else value for name, value in plan.values.items()}
    return PlanAnswer(
        spec=spec,
        tokens_per_step=spec.tokens_per_step,
        vocab_size=vocab_size,
        memory={part: getattr(plan.memory, part) for part in Memory.model_fields},
        reason=_(plan.reason, **sizes),
        **plan.model_dump(exclude={"memory", "reason", "values"}),
    )


class NodeAnswer(BaseModel):
    """A machine that runs jobs."""

    name: str
    live: bool = Field(description="Whether it was heard of within the last lease.")
    num_cpus: int
    memory_bytes: int
    gpus: list[dict[str, Any]]
    slots: int = Field(description="Jobs it runs at once where it has no GPU.")
    running: list[str] = Field(description="The ids of your jobs on it.")
    telemetry: dict[str, Any]
    started_at: datetime
    last_seen_at: datetime


def node_answer(node: Node, *, live: bool, running: list[str]) -> NodeAnswer:
    """A node and the reader's jobs on it."""
    plain = {name: getattr(node, name) for name in NodeAnswer.model_fields if name not in ("live", "running")}
    return NodeAnswer(**plain, live=live, running=running)


def recipe_answers() -> list[dict[str, Any]]:
    """The recipes by name, smallest first."""
    return [{"name": name, "spec": recipe(name)} for name in recipe_names()]
