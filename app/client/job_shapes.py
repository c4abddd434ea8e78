"""What the server answers about jobs, plans, recipes and nodes."""

from datetime import datetime

from pydantic import Field

from .shapes import JsonObject, Progress, Shape


class PhaseInfo(Progress):
    """Progress of one phase of a job in steps, bytes or files, and its seconds so far."""

    seconds: float


class JobProgressInfo(Shape):
    """Progress of a job's present phase, and of each phase so far."""

    phase: str | None = None
    done: int = 0
    total: int = 0
    phases: dict[str, PhaseInfo] = {}


class BlockingJobInfo(Shape):
    """A job whose end frees the place of a queued one. Both are None where you may not see it."""

    id: str | None = None
    name: str | None = None


class WaitInfo(Shape):
    """Why a job does not run yet; `position` 1 is next."""

    code: str
    message: str
    position: int | None
    until: datetime | None
    blocking_job: BlockingJobInfo | None = None


class ActionInfo(Shape):
    """A job that can be submitted after a failure: `body` is the argument of `jobs.submit`."""

    id: str
    label: str
    body: JsonObject = Field(alias="given")
    form: str


class FailureInfo(Shape):
    """Why a job failed, what to do about it, and the last lines of its log."""

    code: str
    cause: str
    next_step: str
    log: list[str] = []
    actions: list[ActionInfo] = []


class NoticeInfo(Shape):
    """A problem of a job that keeps running."""

    code: str
    message: str
    next_step: str


class SetbackInfo(Shape):
    """Why the previous attempt at a job ended."""

    code: str
    message: str


class VerdictInfo(Shape):
    """Whether steps that were trained twice gave the same results both times."""

    verdict: str
    message: str
    num_steps: int


class ForwardingInfo(Shape):
    """How far a job has been forwarded to an experiment tracker: `state` is off, forwarding, failing or complete."""

    tracker: str
    title: str
    target: str
    state: str
    step: int | None
    url: str | None
    forwarded_at: datetime | None
    error: str | None
    failed_at: datetime | None


class ForwardingsInfo(Shape):
    """How far a job has been forwarded to each experiment tracker."""

    data: list[ForwardingInfo]
    next: str | None


class EveryonesJobInfo(Shape):
    """A job of any user; `owner` is the name of who submitted it."""

    id: str
    name: str
    owner: str
    state: str
    step: int
    max_steps: int | None
    node: str | None
    created_at: datetime
    finished_at: datetime | None


class JobInfo(Shape):
    """A job: its request, its state and its progress."""

    id: str
    name: str
    shared_by: str | None
    tags: list[str]
    notes: str
    is_notified: bool
    evaluation_corpora: list[str]
    recipe: str
    state: str
    desired: str
    step: int
    max_steps: int | None
    node: str | None
    progress: JobProgressInfo
    eta_seconds: float | None
    elapsed_seconds: float | None
    latest: dict[str, float | str]
    wait: WaitInfo | None
    failure: FailureInfo | None
    notice: NoticeInfo | None
    priority: str
    parent_id: str | None
    resume_from_id: str | None
    num_recoveries: int
    repeated_steps: int
    setback: SetbackInfo | None
    verdict: VerdictInfo | None
    adjustments: JsonObject
    facts: JsonObject
    tokenizer_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    spec: JsonObject

    @property
    def has_ended(self) -> bool:
        """Whether the job succeeded, failed or was cancelled."""
        return self.finished_at is not None


class FigureInfo(Shape):
    """A number that was estimated, the interval that it is expected in, and why. `text` writes it for people."""

    low: float
    value: float
    high: float
    unit: str
    text: str
    reason: str


class CorpusShareInfo(Shape):
    """What a job sees of one corpus: its share of all tokens, and how often the job goes over it."""

    corpus: str
    share: float
    num_epochs: float


class DataCheckInfo(Shape):
    """What is known of the records of a corpus before a job starts. Figures that were not counted are None."""

    corpus: str
    name: str
    is_held_out: bool
    num_documents: int
    num_longer: int | None
    is_estimated: bool
    tokenizer: str | None
    num_duplicates: int | None
    num_near_duplicates: int | None
    sentences: list[str]


class DataChecksInfo(Shape):
    """What is known of the data of a job before it starts, by statistics and an earlier job with the same data."""

    num_cut: int | None
    num_dropped: int | None
    corpora: list[DataCheckInfo]
    sentences: list[str]


class PlanInfo(Shape):
    """A resolved spec and what a job of it costs."""

    spec: JsonObject
    num_parameters: int
    num_tokens: int
    tokens_per_step: int
    max_steps: int
    num_epochs: float | None
    vocab_size: int
    memory: dict[str, int]
    memory_bytes: int
    checkpoint_bytes: int
    resume_bytes: int
    host_bytes: int | None
    flops_per_token: dict[str, int]
    chosen: JsonObject
    fits: bool | None
    reason: str
    changes: JsonObject | None
    figures: dict[str, FigureInfo]
    notes: list[str]
    corpora: list[CorpusShareInfo]
    data: DataChecksInfo | None = None


class ProposalInfo(Shape):
    """A partial spec to plan or to submit, with the reason of each choice."""

    spec: JsonObject
    vocab_size: int
    num_parameters: int
    num_tokens: int
    seconds: float
    expected_loss: float
    bits_per_byte: float
    limit: str
    reasons: dict[str, str]


class ProposalPointInfo(Shape):
    """What is proposed for a training time."""

    budget_seconds: float
    seconds: float
    num_parameters: int
    num_tokens: int
    expected_loss: float
    bits_per_byte: float
    limit: str


class ProposalCurveInfo(Shape):
    """The expected loss by training time, and where it comes from."""

    points: list[ProposalPointInfo]
    reason: str


class PreviewPartInfo(Shape):
    """A part of a conversation as a chat template writes it, and whether a model would learn it."""

    text: str
    is_learned: bool


class TemplatePreviewInfo(Shape):
    """What a chat template makes of a conversation."""

    parts: list[PreviewPartInfo]
    prompt: str
    end_of_turn: str | None


class AttemptInfo(Shape):
    """One run of a job, on one node. `fence` is its number."""

    fence: int
    node: str
    started_at: datetime
    ended_at: datetime | None
    exit_code: str | None
    exit_message: str | None
    resume_step: int | None
    resumed_from: str | None
    reached_step: int
    repeated_steps: int
    verdict: VerdictInfo | None


class HistoryInfo(Shape):
    """One thing that happened to a job."""

    seq: int
    at: datetime
    actor: str
    fence: int
    from_state: str | None = Field(alias="from")
    to_state: str = Field(alias="to")
    kind: str
    reason: str | None
    message: str | None
    next_step: str | None
    data: JsonObject


class SampleInfo(Shape):
    """What a model wrote at a step of its training, after a prompt of the validation or the training data."""

    step: int
    split: str  # "validation", or "train": the model learns from that prompt's answer
    prompt: str
    text: str


class BestValueInfo(Shape):
    """The best value of a series, and the first step that has it."""

    value: float
    step: int | None


class DifferentFieldInfo(Shape):
    """A field of a spec that is not the same in all jobs: a value for each."""

    name: str
    title: str
    values: list[str]


class ComparedJobInfo(Shape):
    """A job of a comparison; `best` has the best value of each validation series."""

    id: str
    name: str
    state: str
    step: int
    max_steps: int | None
    elapsed_seconds: float | None
    num_parameters: int | None
    tokens_per_step: int
    flops_per_step: int
    latest: dict[str, float | str]
    best: dict[str, BestValueInfo]
    series: list[str]
    sample: SampleInfo | None


class ComparisonInfo(Shape):
    """Jobs side by side, and the fields in which their specs differ."""

    jobs: list[ComparedJobInfo]
    fields: list[DifferentFieldInfo]


class SearchInfo(Shape):
    """A hyperparameter search: jobs that differ in `fields` only. `jobs` are their ids.

    `sampler` is random or tpe. One by tpe `is_open` while it will submit further jobs, up to `num_planned`; values that
    no job can have count in `num_refused`.
    """

    id: str
    name: str
    fields: list[str]
    early_stopping: bool
    sampler: str
    is_open: bool
    num_planned: int
    num_refused: int
    num_jobs: int
    num_open: int
    jobs: list[str]
    created_at: datetime


class FieldImportanceInfo(Shape):
    """A field that a search varies; `share` is its part in what separates the best third of the jobs from the others,
    from 0 to 1.
    """

    name: str
    title: str
    share: float


class ImportanceInfo(Shape):
    """How much each field of a hyperparameter search decides about the validation loss, the most important first.

    It rests on `num_jobs` jobs. With fewer than `min_jobs`, or less than two fields that vary, `fields` is empty.
    """

    num_jobs: int
    min_jobs: int
    fields: list[FieldImportanceInfo]


class CurveInfo(Shape):
    """A series: its points where `stride` is 1, else their mean, least and greatest over so many steps."""

    steps: list[int]
    values: list[float | str | None]
    min: list[float | None]
    max: list[float | None]
    stride: int
    seconds: list[float | None]


class MetricsInfo(Shape):
    """Curves by the name of their series."""

    series: dict[str, CurveInfo]


class ForecastInfo(Shape):
    """The expected training loss at steps up to the end of a job; empty where it cannot be told."""

    steps: list[int]
    values: list[float]
    low: list[float]
    high: list[float]


class ArchivedCorpusInfo(Shape):
    """A corpus that an imported job was trained on: `corpus_id` is one here with the same text, or None."""

    id: str
    name: str | None
    kind: str | None
    text_sha256: str | None
    num_documents: int | None
    num_text_bytes: int | None
    corpus_id: str | None


class ArchivedBaseInfo(Shape):
    """The base model that an imported job started from."""

    id: str
    name: str | None
    reference: str | None
    sha256: str | None


class OriginInfo(Shape):
    """The archive that a job was imported from. IDs but `corpus_id` are those of the installation that exported it."""

    filename: str
    sha256: str
    exported_at: datetime
    athanor_version: str
    job_id: str
    corpora: list[ArchivedCorpusInfo]
    validation_corpora: list[ArchivedCorpusInfo]
    base_model: ArchivedBaseInfo | None


class EarlierRunInfo(Shape):
    """An earlier job, and the lowest validation loss that it reached."""

    id: str
    name: str
    eval_loss: float


class BaselinesInfo(Shape):
    """What the loss of a job is compared with."""

    blind_loss: float | None
    unigram_loss: float | None
    best_earlier: EarlierRunInfo | None


class RecipeInfo(Shape):
    """A ready-made spec."""

    name: str
    num_parameters: int
    spec: JsonObject
