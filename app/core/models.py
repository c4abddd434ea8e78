"""The tables of data, models, tasks, nodes and jobs, without logic; json_shapes.py has what JSON columns hold."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Computed, ForeignKey, Index, Integer, UniqueConstraint, func, text
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column

from app.core.account_models import User
from app.core.archive_shapes import RunOrigin
from app.core.hub_shapes import HubDataset
from app.core.json_columns import JsonColumn
from app.core.json_shapes import (
    Adjustments,
    Cleaning,
    FailureReason,
    Gpu,
    JobFacts,
    JobProgress,
    Manifest,
    MessageValues,
    ModelFacts,
    Notice,
    ParseReport,
    Problem,
    Replay,
    StoredFile,
    TaskOptions,
    TaskProgress,
    TaskResult,
    Telemetry,
    TokenizerFacts,
)
from app.core.model_base import EVAL_LOSS, Artifact, Base, Labeled, list_indexes, new_id, one_of
from app.core.search_shapes import AdaptivePlan
from app.core.synthetic_shapes import Synthesis
from trainer.formats.corpus_kinds import CORPUS_KINDS
from trainer.spec import TrainSpec

STATES = (
    "queued",
    "starting",
    "running",
    "pausing",
    "paused",
    "cancelling",
    "recovering",
    "succeeded",
    "failed",
    "cancelled",
)
TERMINAL = ("succeeded", "failed", "cancelled")
HELD = ("starting", "running", "pausing", "cancelling")  # an attempt holds the job and its node
DESIRED_STATES = ("run", "pause", "cancel")
CHECKPOINT_STATES = ("ready", "corrupt", "deleting", "deleted")
TASK_KINDS = (
    *("parse", "clean", "statistics", "import", "export", "evaluation", "tokenizer", "generate", "job_import"),
    "tokenize",
)
TASK_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
MODEL_STATES = ("uploading", "importing", "ready", "failed")
_OPEN_TASK = "state IN ('queued', 'running')"
_NUM_SUBJECTS = "num_nonnulls(corpus_id, checkpoint_id, model_id, tokenizer_id)"


# ---- stores ---------------------------------------------------------------------------------------------------------


def _own_id(context: DefaultExecutionContext) -> str:
    return str(context.get_current_parameters()["id"])  # type: ignore[no-untyped-call]


class Corpus(Artifact, Labeled, Base):
    """Uploaded text: one version of it, whose files never change. Without an owner it ships with Athanor and everybody
    sees it.
    """

    __tablename__ = "corpus"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str | None] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    name: Mapped[str]
    lineage_id: Mapped[str] = mapped_column(default=_own_id)  # that of the first version
    version: Mapped[int] = mapped_column(server_default="1")
    num_uploads: Mapped[int] = mapped_column(server_default="1")  # files that were uploaded
    filename: Mapped[str]  # of the first file, like its format
    format: Mapped[str]  # as trainer/formats/corpus_formats.py has it of the file name
    kind: Mapped[str] = mapped_column(server_default="text")  # text, or what its documents are records of
    encoding: Mapped[str | None]  # None until parsed; chosen by the user if it is not UTF-8
    state: Mapped[str] = mapped_column(server_default="parsing")
    num_bytes: Mapped[int] = mapped_column(BigInteger)  # of all files
    sha256: Mapped[str]  # of the file; of several, of the list of theirs (app/corpora/versions.py)
    num_documents: Mapped[int | None] = mapped_column(BigInteger)
    num_characters: Mapped[int | None] = mapped_column(BigInteger)
    num_text_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of the parsed text, UTF-8
    text_sha256: Mapped[str | None]  # of the parsed text and its index
    problems: Mapped[list[Problem]] = mapped_column(server_default="[]")
    progress: Mapped[ParseReport] = mapped_column(server_default="{}")
    cleaning: Mapped[Cleaning | None] = mapped_column(server_default="{}", nullable=False)  # None: of uploaded files
    synthesis: Mapped[Synthesis | None] = mapped_column(server_default="{}", nullable=False)  # a model wrote it
    dataset: Mapped[HubDataset | None] = mapped_column(server_default="{}", nullable=False)  # it was downloaded from
    purpose: Mapped[str | None]  # of a file under /v1; None for the others
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    parsed_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]  # it is deleted then, unless a job uses it

    __table_args__ = (
        *list_indexes("corpus"),
        CheckConstraint(one_of("state", ("parsing", "ready", "failed")), name="state"),
        CheckConstraint(one_of("kind", CORPUS_KINDS), name="kind"),
        UniqueConstraint("lineage_id", "version"),
    )


class CorpusFile(Base):
    """One file of a version of a corpus. It lies in the directory of the corpus, under its position."""

    __tablename__ = "corpus_file"

    corpus_id: Mapped[str] = mapped_column(ForeignKey(Corpus.id, ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)  # from 0; files are read in this order
    filename: Mapped[str]  # with its folders, if it was uploaded with them
    format: Mapped[str]
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    encoding: Mapped[str | None]  # None until parsed; chosen by the user if it is not UTF-8
    num_documents: Mapped[int | None] = mapped_column(BigInteger)  # None until parsed, or if it cannot be
    num_text_bytes: Mapped[int | None] = mapped_column(BigInteger)
    num_problems: Mapped[int] = mapped_column(server_default="0")  # bad lines, or 1 if the whole file is refused
    url: Mapped[str | None]  # where it is downloaded from; until it is, its hash is empty


class Tokenizer(Artifact, Labeled, Base):
    """A vocabulary with its rules, in Hugging Face layout on disk, which a job trained, a background task, or neither:
    then it was imported. `sha256` is that of its tokenizer.json; it is None, like `vocab_size`, until that is written.
    """

    __tablename__ = "tokenizer"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    name: Mapped[str]
    source: Mapped[str] = mapped_column(server_default="job")
    state: Mapped[str] = mapped_column(server_default="ready")
    vocab_size: Mapped[int | None]
    sha256: Mapped[str | None]
    corpora: Mapped[list[str]]
    facts: Mapped[TokenizerFacts] = mapped_column(server_default="{}")
    problems: Mapped[list[Problem]] = mapped_column(server_default="[]")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        *list_indexes("tokenizer"),
        CheckConstraint(one_of("source", ("job", "training", "import")), name="source"),
        CheckConstraint(one_of("state", ("preparing", "ready", "failed")), name="state"),
        Index("uq_tokenizer_of_jobs", "owner_id", "sha256", unique=True, postgresql_where=text("source = 'job'")),
    )


class Checkpoint(Artifact, Labeled, Base):
    """Saved weights at a step, verified and in their final place. `metrics` holds the losses known at that step."""

    __tablename__ = "checkpoint"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    step: Mapped[int]
    fence: Mapped[int]
    path: Mapped[str]  # below the data directory
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    manifest: Mapped[Manifest]
    metrics: Mapped[dict[str, float]]
    state: Mapped[str] = mapped_column(server_default="ready")  # corrupt: its files differ; deleted: they are gone
    pinned: Mapped[bool] = mapped_column(server_default=text("false"))  # its owner wants it kept
    name: Mapped[str] = mapped_column(server_default="")  # that its owner gave it
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        *list_indexes("checkpoint"),
        CheckConstraint(one_of("state", CHECKPOINT_STATES), name="state"),
        UniqueConstraint("job_id", "step", "fence"),
    )


class ImportedModel(Artifact, Labeled, Base):
    """A base model that was trained elsewhere, in Hugging Face layout on disk. Our checkpoints are base models too."""

    __tablename__ = "base_model"
    search_columns = (*Labeled.search_columns, "reference")

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    name: Mapped[str]
    source: Mapped[str]  # upload or hub
    reference: Mapped[str | None]  # of the hub: name@revision, from the download on with the commit in its place
    state: Mapped[str]
    facts: Mapped[ModelFacts] = mapped_column(server_default="{}")
    files: Mapped[list[StoredFile]] = mapped_column(server_default="[]")
    sha256: Mapped[str | None]  # over those
    num_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    problems: Mapped[list[Problem]] = mapped_column(server_default="[]")  # of a ready one: remarks
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        *list_indexes("base_model", search_columns),
        CheckConstraint(one_of("source", ("upload", "hub")), name="source"),
        CheckConstraint(one_of("state", MODEL_STATES), name="state"),
    )


class BackgroundTask(Base):
    """Work on a corpus, checkpoint, base model or tokenizer, or the import of a job: app/core/background_tasks.py says
    what there is, and is the only one to write here.
    """

    __tablename__ = "background_task"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str | None] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    corpus_id: Mapped[str | None] = mapped_column(ForeignKey("corpus.id", ondelete="CASCADE"), index=True)
    checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id", ondelete="CASCADE"), index=True)
    model_id: Mapped[str | None] = mapped_column(ForeignKey("base_model.id", ondelete="CASCADE"), index=True)
    tokenizer_id: Mapped[str | None] = mapped_column(ForeignKey("tokenizer.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    options: Mapped[TaskOptions] = mapped_column(server_default="{}")
    memory_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")  # the most that its process may use
    state: Mapped[str] = mapped_column(server_default="queued")
    fence: Mapped[int] = mapped_column(server_default="0")  # the number of its starts: an earlier one writes nothing
    num_losses: Mapped[int] = mapped_column(server_default="0")  # starts that ended without a reason of their own
    node: Mapped[str | None]  # of its last start
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]  # pause after a loss
    progress: Mapped[TaskProgress] = mapped_column(server_default="{}")
    result: Mapped[TaskResult | None] = mapped_column(server_default="{}", nullable=False)
    failure: Mapped[FailureReason | None] = mapped_column(server_default="{}", nullable=False)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("kind", TASK_KINDS), name="kind"),
        CheckConstraint(f"{_NUM_SUBJECTS} = CASE kind WHEN 'job_import' THEN 0 ELSE 1 END", name="subject"),
        CheckConstraint(one_of("state", TASK_STATES), name="state"),
        Index("ix_background_task_state_open", "state", postgresql_where=text(_OPEN_TASK)),
        # A corpus is parsed or cleaned, and a model is imported by one task at a time.
        Index(
            "uq_background_task_parse",
            "corpus_id",
            unique=True,
            postgresql_where=text(f"kind IN ('parse', 'clean') AND {_OPEN_TASK}"),
        ),
        Index(
            "uq_background_task_import",
            "model_id",
            unique=True,
            postgresql_where=text(f"kind = 'import' AND {_OPEN_TASK}"),
        ),
    )


# ---- jobs -----------------------------------------------------------------------------------------------------------


class Node(Base):
    """A machine that runs jobs, as its worker last described it."""

    __tablename__ = "node"

    name: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    num_cpus: Mapped[int]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    gpus: Mapped[list[Gpu]]
    slots: Mapped[int]  # jobs at once where there is no GPU
    telemetry: Mapped[Telemetry] = mapped_column(server_default="{}")
    removed_at: Mapped[datetime | None]  # from the list: only what ran on it still refers to it
    is_draining: Mapped[bool] = mapped_column(server_default=text("false"))  # its jobs go on, and no other is placed


class HyperparameterSearch(Base):
    """Jobs that differ in some fields only. With `early_stopping` the worse ones are cancelled. With a `plan` each job
    is submitted when earlier ones have ended, while the search `is_open`.
    """

    __tablename__ = "hyperparameter_search"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    name: Mapped[str]
    fields: Mapped[list[str]]  # of TrainSpec, that its jobs differ in
    early_stopping: Mapped[bool] = mapped_column(server_default=text("false"))
    plan: Mapped[AdaptivePlan | None] = mapped_column(JsonColumn(AdaptivePlan))
    is_open: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (Index("ix_hyperparameter_search_open", "id", postgresql_where=text("is_open")),)


EVALUATION_IS_DUE = "state = 'succeeded' AND evaluation_corpora <> '[]'"


class Job(Artifact, Labeled, Base):
    """A request to train. `desired` is set by the user; `state` is written only by app/jobs/lifecycle/state.py."""

    __tablename__ = "job"
    search_columns = (*Labeled.search_columns, "recipe")

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    name: Mapped[str]  # as its owner calls it now; that of the spec stays as it was submitted
    is_notified: Mapped[bool] = mapped_column(server_default=text("true"))  # its owner is, of its end and its stalls
    evaluation_corpora: Mapped[list[str]] = mapped_column(server_default="[]")  # for its best checkpoint
    recipe: Mapped[str]
    spec: Mapped[TrainSpec]
    spec_sha256: Mapped[str]
    idempotency_key: Mapped[str | None]
    body_sha256: Mapped[str]  # of the request as sent: the same key with another body is a conflict
    desired: Mapped[str] = mapped_column(server_default="run")
    state: Mapped[str] = mapped_column(server_default="queued")
    fence: Mapped[int] = mapped_column(server_default="0")
    node: Mapped[str | None]
    gpus: Mapped[list[str]] = mapped_column(server_default="[]")  # uuids given to the present attempt
    placed_at: Mapped[datetime | None]
    hinted_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]  # back-off after a lost attempt
    lease_until: Mapped[datetime | None]
    step: Mapped[int] = mapped_column(server_default="0")
    max_steps: Mapped[int | None]  # None until its first attempt has counted the steps of its epochs
    progress: Mapped[JobProgress] = mapped_column(server_default="{}")
    eval_loss: Mapped[float] = mapped_column(Computed(EVAL_LOSS, persisted=True))
    facts: Mapped[JobFacts] = mapped_column(server_default="{}")
    expected_start_at: Mapped[datetime | None]  # of a queued job, if those before it take as long as estimated
    starts_after_id: Mapped[str | None]  # the job whose end frees its place then; no foreign key, as it may be deleted
    wait_reason: Mapped[str | None]  # a code of app/jobs/lifecycle/wait_reasons.py
    failure_code: Mapped[str | None]
    failure: Mapped[MessageValues] = mapped_column(server_default="{}")  # the values of the code's message
    no_progress: Mapped[int] = mapped_column(server_default="0")  # attempts in a row without a newer checkpoint
    priority: Mapped[int] = mapped_column(server_default="0")  # 1 high, 0 normal, -1 low; exchanged when jobs move
    adjustments: Mapped[Adjustments] = mapped_column(server_default="{}")
    notice: Mapped[Notice | None] = mapped_column(server_default="{}", nullable=False)
    resume_from_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id", ondelete="SET NULL", use_alter=True))
    tokenizer_id: Mapped[str | None] = mapped_column(ForeignKey("tokenizer.id", ondelete="SET NULL"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("job.id", ondelete="SET NULL"))
    search_id: Mapped[str | None] = mapped_column(ForeignKey(HyperparameterSearch.id, ondelete="SET NULL"), index=True)
    imported_from: Mapped[RunOrigin | None] = mapped_column(JsonColumn(RunOrigin))  # None: it was submitted here
    search_rung: Mapped[int | None]  # the last step at which early stopping compared it with the others
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())  # when it was submitted or last resumed
    queue_number: Mapped[int | None]  # its place before all others, in which an administrator has put it
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]  # deleted for good; the sweep deletes its metrics in batches, then the row

    __table_args__ = (
        *list_indexes("job", search_columns, name="lower(name)", eval_loss="eval_loss", state="state"),
        CheckConstraint(one_of("state", STATES), name="state"),
        CheckConstraint(one_of("desired", DESIRED_STATES), name="desired"),
        UniqueConstraint("owner_id", "idempotency_key"),
        Index("ix_job_state_open", "state", postgresql_where=text(f"state NOT IN {TERMINAL!r}")),
        Index("ix_job_evaluation_due", "id", postgresql_where=text(EVALUATION_IS_DUE)),
        Index("ix_job_purged_at", "purged_at", postgresql_where=text("purged_at IS NOT NULL")),
    )


class Attempt(Base):
    """One run of a job, on one node, under one fencing number."""

    __tablename__ = "attempt"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    node: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    exit_kind: Mapped[str | None]  # a code of app/core/job_failures.py
    exit_data: Mapped[MessageValues] = mapped_column(server_default="{}")  # the values of the code's message
    resume_step: Mapped[int | None]  # the step it resumed from; None until its supervisor has chosen
    resumed_from: Mapped[str | None]  # the id of the checkpoint; none from scratch
    reached_step: Mapped[int] = mapped_column(server_default="0")  # the last step it reported
    replay: Mapped[Replay | None] = mapped_column(server_default="{}", nullable=False)  # None: no step trained again
    journal_seq: Mapped[int] = mapped_column(server_default="0")  # last event of the journal that was recorded

    __table_args__ = (Index("ix_attempt_ended_at", "ended_at"),)


class JobEvent(Base):
    """An event in a job's history. Append-only, written in the transaction of the change."""

    __tablename__ = "job_event"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]  # user, scheduler, worker, supervisor
    from_state: Mapped[str | None]
    to_state: Mapped[str]
    fence: Mapped[int]
    reason: Mapped[str | None]
    data: Mapped[MessageValues] = mapped_column(server_default="{}")  # the values of the reason's message
    journal_seq: Mapped[int] = mapped_column(server_default="0")  # of the last line of the attempt before it


class Outbox(Base):
    """A Celery message to send after the commit of its transaction; the scheduler retries if that fails."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    task: Mapped[str]
    args: Mapped[list[str]]
    queue: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    claimed_until: Mapped[datetime | None]  # a process is sending it; if that dies, another one may later


class MetricPoint(Base):
    """One value of a series at a step. A later attempt that repeats the step archives the earlier value."""

    __tablename__ = "metric_point"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    series: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int]  # of the journal line it came from: with fence, the cursor of live views
    value: Mapped[float | None]
    nonfinite: Mapped[str | None]  # nan, inf or -inf where value is null
    archived: Mapped[bool] = mapped_column(server_default=text("false"))
    at: Mapped[datetime | None]  # when the trainer wrote it; None for points of earlier versions

    __table_args__ = (
        Index("ix_metric_point_job_id_fence_seq", "job_id", "fence", "seq"),
        Index("ix_metric_point_nonfinite", "job_id", "series", "step", postgresql_where=text("nonfinite IS NOT NULL")),
    )


class MetricRollup(Base):
    """The live points of 4^level steps in one row: any zoom reads a bounded number of rows and keeps every spike."""

    __tablename__ = "metric_rollup"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    series: Mapped[str] = mapped_column(primary_key=True)
    level: Mapped[int] = mapped_column(primary_key=True)
    bucket: Mapped[int] = mapped_column(primary_key=True)  # step // 4^level
    count: Mapped[int] = mapped_column(Integer)  # finite points
    num_nonfinite: Mapped[int]
    sum: Mapped[float]
    min: Mapped[float | None]
    max: Mapped[float | None]
    last: Mapped[float | None]
    last_step: Mapped[int]


class Sample(Base):
    """What the model wrote at a step, after a prompt of the validation or the training data."""

    __tablename__ = "sample"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True, server_default="validation")
    seq: Mapped[int]
    prompt: Mapped[str]
    text: Mapped[str]
