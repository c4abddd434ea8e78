"""Request and response bodies of jobs and nodes; the `..._answer` functions make them from rows, in the reader's
language.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core import db, job_failures, storage
from app.core.json_shapes import Gpu, JobFacts, Telemetry, Value
from app.core.models import Attempt, Job, JobEvent, Node, Sample
from app.jobs import schemas
from app.jobs.attempts import metrics, progress, recoveries, replay
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.lifecycle import wait_reasons
from app.jobs.planning.answers import localize
from app.jobs.views import actions, blocking_jobs, logs, sparkline
from app.jobs.views.blocking_jobs import BlockingJob
from trainer.events import RecordRemark, SampleSplit
from trainer.planning.counts import num_parameters
from trainer.planning.scaling_laws import choose_vocab_size
from trainer.run_dir import RunDir
from trainer.spec import example_spec, recipe, recipe_names

LOG_LINES = 20  # of a failed job, shown with its failure

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
    "fine-tune": {
        "summary": "Teach an imported model, or a checkpoint, to answer as your conversations do",
        "value": {
            "recipe": "chat",
            "base_model": "06bv8h2m4c7k9qz1",
            "corpora": ["06e9x0c5m1n2p3q4"],
            "tuning": "lora",
        },
    },
    "continue": {
        "summary": "Train longer from a checkpoint, with a lower learning rate",
        "value": {"resume_from_checkpoint": "06e9x2m4q8r7t5vw", "max_steps": 800, "learning_rate": 0.001},
    },
}


class PhaseProgress(BaseModel):
    """Progress of one phase in steps, bytes or files, and its duration so far."""

    model_config = ConfigDict(from_attributes=True)

    done: int
    total: int
    seconds: float


class ProgressAnswer(BaseModel):
    """Progress of the current phase, and of each phase so far."""

    model_config = ConfigDict(from_attributes=True)

    phase: str | None = None
    done: int = 0
    total: int = 0
    phases: dict[str, PhaseProgress] = {}


class WaitAnswer(BaseModel):
    """Why a job does not run yet."""

    code: str
    message: str
    position: int | None = Field(description="Position in the queue, 1 is next; null if the job is not in a queue.")
    until: datetime | None = Field(description="When the wait will end; null if unknown.")
    blocking_job: BlockingJob | None = Field(None, description="The job whose end frees the place; null if unknown.")


class ActionAnswer(BaseModel):
    """A new job that can be submitted after a failure."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    label: str
    given: dict[str, Any] = Field(description="Body for POST /api/v1/jobs.", validation_alias="body")
    form: str = Field(description="Path of the form filled in with it.")


class FailureAnswer(BaseModel):
    """Why a job failed, and what to do about it."""

    code: str
    cause: str
    next_step: str
    log: list[str] = Field([], description="The last lines of its log. Empty in lists.")
    actions: list[ActionAnswer] = Field([], description="Jobs that can be submitted next. Empty in lists.")


class NoticeAnswer(BaseModel):
    """A problem of a job that keeps running."""

    code: str
    message: str
    next_step: str


class SetbackAnswer(BaseModel):
    """Why the previous attempt ended."""

    code: str
    message: str


class VerdictAnswer(BaseModel):
    """Whether steps that were trained twice gave the same results both times."""

    verdict: replay.Verdict
    message: str
    num_steps: int = Field(description="Compared so far.")


class JobAnswer(BaseModel):
    """A job: its request, its state and its progress."""

    id: str
    name: str
    shared_by: str | None = Field(description="Name of the user who shares it; null for your own, and in live updates.")
    tags: list[str] = Field(description="Words of its owner to find it by.")
    notes: str = Field(description="What its owner wrote about it.")
    is_notified: bool = Field(description="Whether its owner is notified when it ends or makes no progress.")
    evaluation_corpora: list[str] = Field(
        description="Corpora on which its best checkpoint will be evaluated when it has succeeded."
    )
    recipe: str
    state: str
    desired: str = Field(description="The state its user asked for: run, pause or cancel.")
    step: int
    max_steps: int | None = Field(
        description="Of the whole job; null until its first attempt has counted the steps of num_train_epochs."
    )
    node: str | None
    progress: ProgressAnswer
    eta_seconds: float | None = Field(description="Until the end; before training, until the end of the phase.")
    elapsed_seconds: float | None
    latest: dict[str, Value] = Field(description="The last value of each series.")
    wait: WaitAnswer | None
    failure: FailureAnswer | None
    notice: NoticeAnswer | None
    priority: str = Field(description="low, normal or high.")
    parent_id: str | None = Field(description="The job that it continues.")
    resume_from_id: str | None = Field(description="The checkpoint that it continues from.")
    num_recoveries: int = Field(description="How often it went on after an attempt was lost.")
    repeated_steps: int = Field(description="Steps that were trained again, over all recoveries.")
    setback: SetbackAnswer | None = Field(description="What the last recovery was for.")
    verdict: VerdictAnswer | None = Field(description="Of the newest attempt that trained steps again.")
    adjustments: dict[str, Any] = Field(description="What recovery changed, such as a smaller micro-batch.")
    facts: dict[str, Any] = Field(description="What the run found: tokens, sequences, vocabulary, parameters.")
    tokenizer_id: str | None
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
                    "shared_by": None,
                    "tags": ["baseline"],
                    "notes": "",
                    "is_notified": True,
                    "evaluation_corpora": [],
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
                    "notice": None,
                    "priority": "normal",
                    "parent_id": None,
                    "resume_from_id": None,
                    "num_recoveries": 1,
                    "repeated_steps": 14,
                    "setback": {
                        "code": "trainer_killed",
                        "message": "A training process was killed (rank 0: SIGKILL).",
                    },
                    "verdict": {
                        "verdict": "exact",
                        "message": "Exact resume proven on 14 steps.",
                        "num_steps": 14,
                    },
                    "adjustments": {},
                    "facts": {"num_tokens": 1312844, "vocab_size": 2048, "num_parameters": 1067136},
                    "tokenizer_id": "06e9x1b2c3d4e5f6",
                    "created_at": "2026-11-24T20:14:51Z",
                    "started_at": "2026-11-24T20:14:52Z",
                    "finished_at": None,
                    "spec": {"recipe": "tiny", "corpora": ["06e9x0c5m1n2p3q4"]},
                }
            ]
        }
    )


def job_answer(session: Session, job: Job) -> JobAnswer:
    """A job as the reader sees it; a failed one with the end of its log and the ways on."""
    (answer,) = job_answers(session, [job])
    if answer.failure is not None:
        answer.failure.log = logs.last_lines(RunDir(storage.run(job.id)).log_path, LOG_LINES)
        answer.failure.actions = [ActionAnswer.model_validate(action) for action in actions.offered(session, job)]
    return answer


def job_answers(session: Session, jobs: Sequence[Job]) -> list[JobAnswer]:
    """Jobs as lists show them."""
    summaries = recoveries.summarize(session, jobs)
    blocking = blocking_jobs.for_all_readers(session, jobs)
    return [_job_answer(job, summaries[job.id], blocking.get(job.id)) for job in jobs]


def wait_answer(job: Job, blocking_job: BlockingJob | None) -> WaitAnswer | None:
    """Why a job does not run yet, if it waits."""
    wait = wait_reasons.describe(job)
    return WaitAnswer(**wait, blocking_job=blocking_job) if wait else None


def _job_answer(job: Job, recovery: recoveries.RecoverySummary, blocking_job: BlockingJob | None) -> JobAnswer:
    is_open = job.finished_at is None
    return JobAnswer(
        **{name: getattr(job, name) for name in (*_PLAIN, *_INSTANTS)},
        shared_by=job.shared_by,
        progress=ProgressAnswer.model_validate(job.progress),
        eta_seconds=progress.eta_seconds(job.progress, effective_spec(job), job.step) if is_open else None,
        elapsed_seconds=_elapsed(job),
        latest=job.progress.latest,
        wait=wait_answer(job, blocking_job),
        failure=FailureAnswer(**job_failures.describe(job.failure_code, job.failure)) if job.failure_code else None,
        notice=_notice(job),
        priority=job.spec.priority,
        num_recoveries=recovery.count,
        repeated_steps=recovery.repeated.total(),
        setback=_setback(recovery),
        verdict=verdict_answer(recovery.replayed),
        adjustments=job.adjustments.model_dump(exclude_unset=True),
        facts=_facts(job.facts),
        spec=job.spec.model_dump(),
    )


def _facts(facts: JobFacts) -> dict[str, Any]:
    """The facts of a job, with the remarks on its records as sentences in the reader's language."""
    values = facts.model_dump(exclude_unset=True)
    if facts.remarks:
        values["remarks"] = _remarks(facts.remarks)
    for name, data in facts.held_out.items():
        if data.remarks:
            values["held_out"][name]["remarks"] = _remarks(data.remarks)
    return values


def _remarks(remarks: Sequence[RecordRemark]) -> list[dict[str, Any]]:
    return [{**remark.model_dump(exclude={"why"}), "message": localize(remark.why)} for remark in remarks]


def _notice(job: Job) -> NoticeAnswer | None:
    if not job.notice or job.finished_at is not None:
        return None
    failure = job_failures.describe(job.notice.code, job.notice.values)
    return NoticeAnswer(code=failure["code"], message=failure["cause"], next_step=failure["next_step"])


def _setback(recovery: recoveries.RecoverySummary) -> SetbackAnswer | None:
    if recovery.setback is None:
        return None
    message = job_failures.explain(recovery.setback.reason, recovery.setback.data)
    return SetbackAnswer(code=recovery.setback.reason or "", message=message or "")


def verdict_answer(attempt: Attempt | None) -> VerdictAnswer | None:
    """The result of comparing the steps that an attempt repeated, or None if it repeated none."""
    verdict = replay.determinism_verdict(attempt) if attempt is not None else None
    if attempt is None or attempt.replay is None or verdict is None:
        return None
    message = recoveries.sentence(attempt) or ""
    return VerdictAnswer(verdict=verdict, message=message, num_steps=attempt.replay.steps)


_PLAIN = (
    *("id", "name", "tags", "notes", "recipe", "state", "desired", "step", "max_steps", "node", "tokenizer_id"),
    *("parent_id", "resume_from_id", "is_notified", "evaluation_corpora"),
)
_INSTANTS = ("created_at", "started_at", "finished_at")


def _elapsed(job: Job) -> float | None:
    if job.started_at is None:
        return None
    return round(((job.finished_at or db.now()) - job.started_at).total_seconds(), 1)


class AttemptAnswer(BaseModel):
    """One run of a job, on one node."""

    fence: int = Field(description="Its number: a later attempt has a higher one.")
    node: str
    started_at: datetime
    ended_at: datetime | None
    exit_code: str | None = Field(description="How it ended: a code of docs/failures.md, or finished.")
    exit_message: str | None
    resume_step: int | None = Field(description="The step it went on behind; null until it has chosen.")
    resumed_from: str | None = Field(description="The checkpoint it went on from; null from scratch.")
    reached_step: int
    repeated_steps: int = Field(description="Steps that an earlier attempt had trained already.")
    verdict: VerdictAnswer | None


def attempt_answers(session: Session, job: Job, attempts: Sequence[Attempt]) -> list[AttemptAnswer]:
    """The attempts at a job in the reader's language."""
    repeated = recoveries.summarize(session, [job])[job.id].repeated
    plain = ("fence", "node", "started_at", "ended_at", "resume_step", "resumed_from", "reached_step")
    return [
        AttemptAnswer(
            **{name: getattr(attempt, name) for name in plain},
            exit_code=attempt.exit_kind,
            exit_message=job_failures.explain(attempt.exit_kind, attempt.exit_data),
            repeated_steps=repeated[attempt.fence],
            verdict=verdict_answer(attempt),
        )
        for attempt in attempts
    ]


Kind = Literal["person", "go", "wait", "warn", "good", "bad", "end"]


class HistoryEntry(BaseModel):
    """One thing that happened to a job."""

    seq: int
    at: datetime
    actor: str
    fence: int = Field(description="The attempt it belongs to; 0 before the first.")
    from_state: str | None = Field(serialization_alias="from")
    to_state: str = Field(serialization_alias="to")
    kind: Kind = Field(description="How it is drawn: a request of a person, progress, trouble, an end and so on.")
    reason: str | None = Field(description="A code.")
    message: str | None = Field(description="The reason as a sentence.")
    next_step: str | None = Field(description="What to do about it, or what happens next, where there is something.")
    data: dict[str, Any] = Field(description="The values of the sentence.")


def history_entry(event: JobEvent) -> HistoryEntry:
    """A line of a job's history in the reader's language."""
    plain = ("seq", "at", "actor", "fence", "from_state", "to_state", "reason", "data")
    return HistoryEntry(
        **{name: getattr(event, name) for name in plain},
        kind=_kind(event),
        message=job_failures.explain(event.reason, event.data),
        next_step=job_failures.advise(event.reason, event.data, is_retried=event.to_state == "recovering"),
    )


def _kind(event: JobEvent) -> Kind:
    ends: dict[str, Kind] = {"succeeded": "good", "failed": "bad", "cancelled": "end"}
    if event.to_state in ends and event.from_state != event.to_state:
        return ends[event.to_state]
    if event.reason in job_failures.CODES:
        return "warn"
    if event.actor == "user":
        return "person"
    return "go" if event.reason in ("claimed", "first_step", "resumed") else "wait"


class CurveAnswer(BaseModel):
    """A series: the points themselves where `stride` is 1, else their mean, least and greatest over so many steps."""

    steps: list[int]
    values: list[Value | None]
    min: list[float | None]
    max: list[float | None]
    stride: int
    seconds: list[float | None] = Field(description="Of training before each step; empty unless asked for.")


class MetricsAnswer(BaseModel):
    """Curves by the name of their series."""

    series: dict[str, CurveAnswer]


def curves_answer(curves: dict[str, metrics.Curve]) -> dict[str, Any]:
    """Curves for programs and charts: what MetricsAnswer describes, whose checks would take longer than the query."""
    return {"series": {name: vars(curve) for name, curve in curves.items()}}


class SampleAnswer(BaseModel):
    """What the model wrote at a step."""

    model_config = ConfigDict(from_attributes=True)

    step: int
    split: SampleSplit = Field(description="Which data the prompt is from: the model learned from train only.")
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


class NodeAnswer(BaseModel):
    """A machine that runs jobs."""

    name: str
    live: bool = Field(description="Whether it was heard of within the last lease.")
    num_cpus: int
    memory_bytes: int
    gpus: list[Gpu]
    slots: int = Field(description="Jobs it runs at once where it has no GPU.")
    running: list[str] = Field(description="The ids of your jobs on it.")
    is_draining: bool = Field(description="Whether its jobs go on to their end, and no other is placed there.")
    telemetry: Telemetry
    started_at: datetime
    last_seen_at: datetime


def node_answer(node: Node, *, live: bool, running: list[str]) -> NodeAnswer:
    """A node and the reader's jobs on it."""
    plain = NodeAnswer.model_fields.keys() - {"live", "running"}
    return NodeAnswer(**{name: getattr(node, name) for name in plain}, live=live, running=running)


def recipe_answers() -> list[RecipeAnswer]:
    """The recipes, smallest first."""
    return [_recipe_answer(name) for name in recipe_names()]


def _recipe_answer(name: str) -> RecipeAnswer:
    spec = example_spec(name)
    size = num_parameters(spec, spec.vocab_size or choose_vocab_size(0))
    return RecipeAnswer(name=name, num_parameters=size, spec=recipe(name))


def rows(session: Session, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Jobs as lists draw them: each the answer of the API and a small curve of the loss."""
    answers = schemas.job_answers(session, jobs)
    losses = sparkline.losses(session, job_ids=[job.id for job in jobs])
    return [{"job": answer, "spark": sparkline.points(losses.get(answer.id, []))} for answer in answers]
