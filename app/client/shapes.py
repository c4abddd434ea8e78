"""What the server answers. tests/app/client/test_schema.py compares every field with the OpenAPI document."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

JsonObject = dict[str, Any]


class Shape(BaseModel):
    """An answer. Fields that a later server adds are kept, too."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, protected_namespaces=())


class UserInfo(Shape):
    """The user of the API token, and its scopes."""

    id: str
    name: str
    role: str
    scopes: list[str]


class NewTokenInfo(Shape):
    """A new API token; `token` is its secret, which is shown only once."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    token: str


# ---- corpora --------------------------------------------------------------------------------------------------------


class Progress(Shape):
    """Progress of parsing or importing, in bytes."""

    done: int
    total: int


class ParseProblem(Shape):
    """Why an upload, or one line of it, cannot be read."""

    code: str
    message: str
    line: int | None = None
    byte: int | None = None
    context: str | None = None
    file: str | None = None


class EncodingInfo(Shape):
    """An encoding in which a file is plausible text, with the beginning of that text."""

    encoding: str
    preview: str
    num_bad_places: int
    language: str
    reason: str
    files: list[str]
    num_files: int


class CorpusColumnInfo(Shape):
    """A key of records, or a column. `use` is what it is used as, in words; empty if it is not read."""

    name: str
    types: list[str]
    num_records: int
    sample: str
    used: bool
    use: str
    inside: str = ""


class MappingInfo(Shape):
    """Which column each field of a kind of records was read from, by hand."""

    name: str
    kind: str
    columns: dict[str, str]


class NamedMappingInfo(MappingInfo):
    """A mapping of columns by hand that is saved under a name."""

    id: str
    created_at: datetime


class ChangedRowInfo(Shape):
    """What became of one of several rows; `code` and `message` say why it was not changed."""

    id: str
    is_changed: bool
    code: str | None
    message: str | None


class ChangedRowsInfo(Shape):
    """What became of several rows, in the order in which they were named."""

    action: str
    num_changed: int
    data: list[ChangedRowInfo]


class SkippedFileInfo(Shape):
    """A file of a data set that is not downloaded, and the code of the reason."""

    name: str
    reason: str


class DatasetInfo(Shape):
    """The data set of a hub that a corpus is downloaded from. `commit` is empty until its files are listed."""

    endpoint: str
    name: str
    revision: str
    folder: str
    commit: str
    num_bytes: int
    skipped: list[SkippedFileInfo]
    num_skipped: int


class CorpusInfo(Shape):
    """A corpus: uploaded text or records, parsed into documents. `state` is parsing, ready or failed."""

    id: str
    name: str
    tags: list[str]
    notes: str
    shared_by: str | None
    version: int
    lineage_id: str
    num_uploads: int
    dataset: DatasetInfo | None
    filename: str
    format: str
    kind: str
    state: str
    encoding: str | None
    num_bytes: int
    sha256: str
    num_documents: int | None
    num_characters: int | None
    num_text_bytes: int | None
    num_turns: int | None
    num_labels: int | None
    columns: list[CorpusColumnInfo]
    languages: list[str]
    mapping: MappingInfo | None
    group_column: str | None
    groups: dict[str, int]
    num_groups: int | None
    num_ungrouped: int
    labels: dict[str, int]
    unused_keys: dict[str, int]
    num_bad_lines: int
    bad_lines: dict[str, int]
    num_bad_places: int
    bad_bytes: str | None
    num_skipped_documents: int
    encoding_reason: str | None
    num_files: int | None
    skipped_files: dict[str, int]
    remarks: list[ParseProblem]
    num_remarks: int
    problems: list[ParseProblem]
    encodings: list[EncodingInfo]
    task_id: str | None
    progress: Progress | None
    shipped: bool
    created_at: datetime
    parsed_at: datetime | None


class DocumentInfo(Shape):
    """The beginning of a document of a corpus."""

    index: int
    num_bytes: int
    text: str
    cut: bool


# ---- base models ----------------------------------------------------------------------------------------------------


class ImportProblem(Shape):
    """Why a model cannot be used, or a remark on one that is ready."""

    code: str
    message: str
    file: str | None = None
    tensor: str | None = None
    byte: int | None = None


class UseLimit(Shape):
    """A use that a model does not have, and why."""

    use: str
    code: str
    message: str


class FileInfo(Shape):
    """A file with its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


class ImportProgress(Progress):
    """Progress of an import in bytes; `phase` is fetch, then check."""

    phase: str


class BaseModelInfo(Shape):
    """A base model that was imported, or is being imported. `state` is uploading, importing, ready or failed."""

    id: str
    name: str
    tags: list[str]
    notes: str
    shared_by: str | None
    source: str
    reference: str | None
    state: str
    facts: JsonObject
    files: list[FileInfo]
    sha256: str | None
    num_bytes: int
    problems: list[ImportProblem]
    limits: list[UseLimit]
    task_id: str | None
    progress: ImportProgress | None
    created_at: datetime


# ---- checkpoints, tasks and generated text --------------------------------------------------------------------------


class CheckpointInfo(Shape):
    """Saved weights at a step of a job. `state` is ready or corrupt; `kept` says why it is kept."""

    id: str
    job_id: str
    shared_by: str | None
    name: str
    tags: list[str]
    notes: str
    step: int
    num_bytes: int
    metrics: JsonObject
    state: str
    pinned: bool
    kept: list[str]
    created_at: datetime


class CheckpointDetails(CheckpointInfo):
    """A checkpoint with its manifest: every file with size and hash, and what it was made from."""

    fence: int
    manifest: JsonObject


class TaskProgressInfo(Progress):
    """Progress of a background task, and how many seconds it may still take."""

    phase: str | None
    seconds_left: float | None


class TaskFailureInfo(Shape):
    """Why a background task failed, and what to do."""

    code: str
    message: str


class TaskInfo(Shape):
    """A background task: parse, import, export or evaluation.

    `state` is queued, running, succeeded, failed or cancelled.
    """

    id: str
    corpus_id: str | None
    checkpoint_id: str | None
    model_id: str | None
    tokenizer_id: str | None
    kind: str
    options: JsonObject
    state: str
    node: str | None
    progress: TaskProgressInfo | None
    result: JsonObject | None
    failure: TaskFailureInfo | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def files(self) -> list[FileInfo]:
        """The files of an export that succeeded."""
        return [FileInfo.model_validate(file) for file in (self.result or {}).get("files", [])]


class TokenInfo(Shape):
    """A token with the natural logarithm of its probability, as the model gives it before any sampling setting."""

    id: int
    text: str
    bytes: list[int]
    logprob: float


class GeneratedTokenInfo(TokenInfo):
    """A token of the text, and the most likely tokens in its place, most likely first."""

    top: list[TokenInfo]


class GenerationInfo(Shape):
    """A complete text that a model generated. `finish_reason` is stop or length; `tokens` come with `top_logprobs`."""

    text: str
    finish_reason: str
    num_tokens: int
    num_prompt_tokens: int
    tokens_per_second: float
    seed: int
    tokens: list[GeneratedTokenInfo] | None = None


# ---- deployments and conversations ----------------------------------------------------------------------------------


class ReplicaInfo(Shape):
    """A node that keeps, or loads, the model of a deployment. `state` is loading, ready or failed.

    `is_current` is false while it still serves the model before the last change; `message` says why it failed, and
    `loading_percent` how much of the model is loaded.
    """

    node: str
    state: str
    is_current: bool
    message: str | None
    loading_percent: int | None


class UsageInfo(Shape):
    """The calls of some time. Times are in milliseconds: to the first token, and to the last one."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    first_token_p50_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None


class HourInfo(UsageInfo):
    """The calls of an hour."""

    hour: datetime


class DeploymentInfo(Shape):
    """A name under which a model, by its ID in `model`, stays in memory. `state` is loading, ready or failed.

    `access` is owner, users or everyone; only the owner reads the names in `users`.
    """

    id: str
    name: str
    model: str
    is_mine: bool
    state: str
    replicas: list[ReplicaInfo]
    num_replicas: int
    nodes: list[str]
    removed_nodes: list[str]
    access: str
    users: list[str]
    requests_per_minute: int | None
    last_day: UsageInfo
    created_at: datetime
    updated_at: datetime


class ColumnInfo(Shape):
    """A model of a conversation, and the last message of the branch that its column shows."""

    model_id: str
    leaf_id: str | None = None


class AnswerSettingsInfo(Shape):
    """What an answer was generated with; None where the default of the request applied."""

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


class MessageInfo(Shape):
    """A message of a conversation: a question (`role` user), or an answer (assistant) and what generated it."""

    id: str
    parent_id: str | None
    role: str
    content: str
    model_id: str | None
    model_name: str | None
    settings: AnswerSettingsInfo
    seed: int | None
    finish_reason: str | None
    num_tokens: int | None
    tokens_per_second: float | None
    tokens: str
    created_at: datetime


class ConversationInfo(Shape):
    """A conversation without its messages. `excerpt` is the place that a search found."""

    id: str
    title: str
    system_prompt: str
    columns: list[ColumnInfo]
    share_key: str | None
    excerpt: str | None = None
    created_at: datetime
    updated_at: datetime


class ConversationDetails(ConversationInfo):
    """A conversation with the messages of all its branches, the oldest first."""

    messages: list[MessageInfo]

    def branch(self, leaf_id: str | None) -> list[MessageInfo]:
        """The messages from the first one to a leaf."""
        by_id = {message.id: message for message in self.messages}
        path: list[MessageInfo] = []
        while leaf_id in by_id:
            path.insert(0, by_id[leaf_id])
            leaf_id = path[0].parent_id
        return path


class RecordMessageInfo(Shape):
    """A message of a training record."""

    role: str
    content: str


class RecordInfo(Shape):
    """A branch of a conversation as one line of a corpus of conversations (.jsonl)."""

    messages: list[RecordMessageInfo]
