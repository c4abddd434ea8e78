"""What the JSON columns of app/core/models.py hold. Pydantic only. Values are frozen: assign new ones."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from app.core.encoding_shapes import UndecodableFiles
from trainer.events import RecordRemark
from trainer.limits import Traits

Value = float | Literal["nan", "inf", "-inf"]  # of a metric; JSON has no number for the last three
MessageValues = dict[str, JsonValue]  # what the {places} of a message are filled with


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class _Open(_Stored):
    """Keeps fields that it does not name."""

    model_config = ConfigDict(extra="allow")


class Problem(_Open):
    """Why a file, or one line of it, cannot be used: a code, the place, and the values of the code's message."""

    code: str
    line: int | None = None
    byte: int | None = None
    file: str | None = None
    tensor: str | None = None

    @property
    def values(self) -> MessageValues:
        """What the message is filled with."""
        return self.model_dump(mode="json", exclude={"code"}, exclude_unset=True)


class FailureReason(_Stored):
    """A code of failures with the values of its message."""

    code: str
    values: MessageValues = {}


class StoredFile(_Stored):
    """A file with its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


# ---- corpora and imported models ------------------------------------------------------------------------------------


class CorpusColumn(_Stored):
    """A key of records, or a column, as the first thousand records have it."""

    name: str
    types: list[str] = []  # string, number, boolean, list, object, null; the most frequent first
    num_records: int = 0  # of the first thousand
    sample: str = ""  # the beginning of the first value
    used: bool = False
    inside: str = ""  # of a nested column: the one that it is inside of


class CorpusMapping(_Stored):
    """Which column each field of a kind is read from, by hand. With a name it is offered for other corpora."""

    name: str = ""
    kind: str
    columns: dict[str, str]  # by field


BadBytes = Literal["omit", "replace", "skip_document"]


class ParseReport(_Stored):
    """Of a corpus: how it is to be parsed, and what was counted."""

    kind: str | None = None
    mapping: CorpusMapping | None = None
    group_column: str | None = None  # whose value is the group of a record, for splits
    skip_bad: bool = False
    bad_bytes: BadBytes | None = None  # what happens to undecodable bytes
    bad_bytes_by_file: dict[str, BadBytes | None] = {}  # of files that were read again by themselves
    # A byte-order mark; the user; the file itself, in HTML; the default, in which every byte decodes.
    encoding_reason: Literal["mark", "chosen", "declared", "valid"] | None = None
    num_files: int | None = None  # that an archive had and a format reads
    skipped_files: dict[str, int] = {}  # of an archive that no format reads, by the ending of their names
    remarks: list[Problem] = []  # on files that were read nevertheless: the first 100
    num_remarks: int = 0
    num_bad_lines: int = 0
    bad_lines: dict[str, int] = {}  # by the code of what is wrong with them
    num_bad_places: int = 0  # where bytes cannot be decoded, counted up to 10,000 where the file was refused for them
    num_skipped_documents: int = 0  # left out because of such places
    columns: list[CorpusColumn] = []  # the first hundred
    languages: list[str] = []  # of a translation: from which to which
    unused_keys: dict[str, int] = {}  # records by the key of theirs that was not kept: the 100 most frequent keys
    num_turns: int | None = None
    num_labels: int | None = None
    labels: dict[str, int] = {}
    groups: dict[str, int] = {}  # records by group: the 100 largest
    num_groups: int | None = None
    num_ungrouped: int = 0  # records whose column of groups is empty
    lengths: dict[str, int] = {}  # documents by the number of bits of their length in characters
    broken_files: list[UndecodableFiles] = []  # those that were refused for such places


class ScoreHistogram(_Stored):
    """The distribution of the scores that a step filtered by. Bar n counts the scores from edge n to edge n + 1.

    `unit` is perplexity or bits_per_byte, `low` and `high` are the limits beyond which documents were removed.
    """

    unit: str
    num_unscored: int = 0  # documents that are too short
    low: float | None = None
    high: float | None = None
    edges: list[float] = []
    counts: list[int] = []


class CleaningStep(_Stored):
    """What a step of a recipe did: documents that reached it, that it removed and changed, places that it changed in
    these, and how many characters fewer are left.
    """

    num_seen: int
    num_removed: int = 0
    num_changed: int = 0
    num_places: int = 0
    removed_characters: int = 0
    scores: ScoreHistogram | None = None


class CleaningModel(_Stored):
    """A checkpoint or a base model that scored documents; `sha256` is that of the names and hashes of its files."""

    name: str
    sha256: str
    num_bytes: int  # of its files


class Cleaning(_Stored):
    """How a version of a corpus was made from another one: `recipe` has the settings of each step, `steps` what it did.

    `parent_sha256` is that of the parsed text of the parent, which may have been deleted since.
    """

    parent_id: str
    parent_version: int
    parent_sha256: str
    num_documents: int  # of the parent
    recipe: list[dict[str, JsonValue]]
    corpora: dict[str, str] = {}  # the SHA-256 of the parsed text of each corpus that it was compared with, by ID
    models: dict[str, CleaningModel] = {}  # those that scored documents, by ID
    steps: list[CleaningStep] = []


class TokenizerFacts(_Stored):
    """A tokenizer: what was asked for, and what its training or import found.

    `vocab_size` is None to let the text decide, `curve` are (vocabulary size, bytes per token) on text that was not
    trained on, `end` is the end-of-text token that the user named for an import.
    """

    vocab_size: int | None = None
    special_tokens: list[str] = []
    model_kind: Literal["decoder", "encoder", "encoder_decoder"] = "decoder"
    sample_bytes: int | None = None
    filename: str | None = None
    end: str | None = None
    algorithm: Literal["byte_level_bpe", "bpe", "unigram", "wordpiece", "wordlevel", "other"] = "byte_level_bpe"
    end_of_text: str | None = None
    has_chat_template: bool = False
    num_training_bytes: int | None = None
    num_held_out_bytes: int | None = None
    curve: list[tuple[int, float]] = []


class ModelFacts(Traits):
    """A base model: the fields of a spec that describe its network, and what else its files say.

    `context` is the longest sequence in tokens, None without a limit. Empty until the model is imported.
    """

    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool | None = None
    vocab_size: int | None = None
    context: int | None = None
    num_parameters: int | None = None
    dtype: str | None = None
    license: str | None = None


# ---- checkpoints, exports and evaluations ---------------------------------------------------------------------------


class Manifest(_Open):
    """The manifest of a checkpoint: every file, and what the weights were made from (see trainer/run_dir.py)."""

    files: list[StoredFile]
    spec_sha256: str | None = None
    data_sha256: str | None = None
    tokenizer_sha256: str | None = None
    versions: dict[str, str] = {}


class TaskOptions(_Stored):
    """The options of an export (the first four), an evaluation (the next five), statistics of a corpus, records that
    a model writes, the import of a job, or the tokenization of corpora.
    """

    format: str | None = None
    quantization: str | None = None
    max_shard_bytes: int | None = None
    license: str = ""
    corpora: list[str] = []
    limit: int | None = None
    num_fewshot: int = 0
    max_tokens: int | None = None  # of an answer
    judge: str | None = None  # the ID of a checkpoint or imported model
    tokenizer: str | None = None
    text_sha256: str | None = None  # of the corpus that is counted
    generation: str | None = None  # the ID of the records that are generated
    filename: str | None = None  # of the archive that is imported
    sha256: str | None = None  # of that
    num_bytes: int | None = None  # of that, which counts toward the quota until the import has ended
    spec: dict[str, JsonValue] | None = None  # of the jobs that corpora are tokenized for


class TaskProgress(_Stored):
    """Progress of a background task in its present phase, in bytes, tensors or documents, and that phase's seconds."""

    phase: str | None = None  # of an import: fetch, then check
    done: int = 0
    total: int | None = None
    seconds: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the phase will still take at its pace so far; None before anything is done."""
        if not self.total or not self.done or not self.seconds:
            return None
        return self.seconds * (self.total - self.done) / self.done


class CorpusScores(_Open):
    """How a checkpoint did on one corpus of an evaluation (see trainer/inference/evaluation.py)."""

    corpus: str
    kind: str
    num_documents: int
    num_cut: int = 0
    metrics: dict[str, float]
    errors: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    baselines: dict[str, float] = {}
    examples: list[dict[str, JsonValue]] = []


class TaskResult(_Open):
    """What an export wrote (`files`, how far its logits are off), an evaluation measured (`corpora`), or the job that
    was imported. Of statistics: what app/corpora/statistics.py says. Of corpora that were tokenized: how many tokens.
    """

    files: list[StoredFile] = []
    largest_difference: float | None = None
    tolerance: float | None = None
    harness: str | None = None
    num_fewshot: int | None = None
    corpora: list[CorpusScores] = []
    job_id: str | None = None


# ---- conversations --------------------------------------------------------------------------------------------------


class AnswerSettings(_Stored):
    """What an answer of a conversation was generated with; None where the default of the request applied."""

    system_prompt: str | None = None
    prefill: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] = {}
    stop: list[str] = []


class ConversationColumn(_Stored):
    """A model of a conversation, and the last message of the branch that its column shows."""

    model_id: str
    leaf_id: str | None = None


# ---- nodes ----------------------------------------------------------------------------------------------------------


class Gpu(_Stored):
    """A GPU of a node, by its index and UUID there."""

    index: int
    uuid: str
    name: str
    memory_bytes: int


class GpuUsage(_Stored):
    """How busy a GPU is."""

    index: int
    memory_used_bytes: int
    percent: int


class Telemetry(_Stored):
    """How busy a node is, and the versions of what decides how a job computes there. Workers send no other fields."""

    model_config = ConfigDict(extra="forbid")

    cpu_percent: float | None = None
    memory_used_bytes: int | None = None
    disk_bytes: int | None = None  # of the disk that has the data directory
    disk_free_bytes: int | None = None
    gpus: list[GpuUsage] = []
    versions: dict[str, str] = {}


# ---- jobs -----------------------------------------------------------------------------------------------------------


class PhaseTotals(_Stored):
    """How far a phase of a job is (steps, bytes or files), its seconds over all repeats, and how often it ended."""

    done: int = 0
    total: int = 0
    seconds: float = 0.0
    count: int = 0


class JobProgress(_Stored):
    """How far a job is. `at` is when the current phase was last reported, in Unix seconds.

    `recent` are the last steps with when each was done, `latest` the last value of each series, `step_seconds` what
    one step took before the first.
    """

    phase: str | None = None
    done: int = 0
    total: int = 0
    at: float = 0.0
    phases: dict[str, PhaseTotals] = {}
    recent: list[tuple[int, float]] = []
    latest: dict[str, Value] = {}
    step_seconds: float | None = None


class PlannedEstimate(_Stored):
    """One estimate of a plan: its value and the interval it was expected in."""

    low: float
    value: float
    high: float
    unit: str


class PlannedCost(_Stored):
    """The estimates of a job's plan, with the corrections for the machine that were applied.

    `memory_bytes` is that of each process, on a GPU if it has one; `host_bytes` what all take of the node besides GPUs.
    """

    memory_bytes: PlannedEstimate
    host_bytes: int | None = None
    step_seconds: PlannedEstimate
    startup_seconds: PlannedEstimate | None = None  # before the first step; None of jobs that were planned without it
    memory_correction: float
    time_correction: float


class Probe(_Stored):
    """What was measured before the first step (see trainer.events.ProbeEvent)."""

    precision: str
    gemm_flops: float
    step_seconds: float
    peak_bytes: int
    save_seconds: float | None = None
    is_whole: bool = False


class Usage(_Stored):
    """What an attempt took: the median seconds of a step, and the most memory that a rank used, up to `step`."""

    step: int
    step_seconds: float
    peak_bytes: int


class HeldOutFacts(_Stored):
    """What a validation corpus turned out to be."""

    num_sequences: int
    num_cut: int
    num_dropped: int
    num_refused: int = 0
    num_in_training: int = 0
    remarks: list[RecordRemark] = []


class CorpusFacts(_Stored):
    """What a job sees of one of its corpora: tokens of its training samples, share of all tokens, and epochs."""

    corpus: str
    num_tokens: int
    share: float
    num_epochs: float


class JobFacts(_Stored):
    """What a job was planned to take, what its data and model turned out to be, and what it took."""

    planned: PlannedCost | None = None
    num_tokens: int | None = None
    num_train_sequences: int | None = None
    num_validation_sequences: int | None = None
    num_epochs: float | None = None
    bytes_per_token: float | None = None
    unigram_loss: float | None = None  # of guessing each token by its frequency in the training data
    num_cut: int | None = None
    num_dropped: int | None = None
    num_equal: int | None = None
    num_refused: int | None = None
    remarks: list[RecordRemark] = []  # on the first records that were left out or cut, of each kind
    num_validation_in_training: int | None = None
    unvalidated_labels: list[str] = []
    corpora: list[CorpusFacts] = []
    held_out: dict[str, HeldOutFacts] = {}
    num_parameters: int | None = None
    vocab_size: int | None = None
    tokenizer_sha256: str | None = None
    probe: Probe | None = None
    usage: Usage | None = None


class Adjustments(_Stored):
    """What recovery changed: a smaller micro-batch with the same result, and steps whose samples are skipped."""

    per_device_batch_size: int | None = None
    skipped_steps: list[int] = []


class Notice(FailureReason):
    """What troubles a job that still runs or waits; `count` is how often in a row."""

    count: int = 1


class Replay(_Stored):
    """Steps that an attempt trained again, compared with the first time.

    `until` is the last of them, `steps` how many were compared, `different` how many of those differed, `worst` the
    largest relative difference of a loss, `first` the first difference as (step, series, before, now), and `differs`
    what of the machine is not as it was.
    """

    until: int
    steps: int = 0
    different: int = 0
    worst: float = 0.0
    first: tuple[int, str, Value, Value] | None = None
    differs: list[str] = []
