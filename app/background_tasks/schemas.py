"""Request and response JSON of background tasks; requests of exports and evaluations."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.background_tasks import failures
from app.core.background_tasks import Kind
from app.core.models import BackgroundTask
from app.core.names import checked_name


def _printable(text: str) -> str:
    return checked_name(text, max_length=100, field="license") if text.strip() else ""


License = Annotated[str, AfterValidator(_printable)]


class ExportRequest(BaseModel):
    """A checkpoint to be written in a format that others read."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"checkpoint": "06e9x2m4q8r7t5vw", "format": "gguf", "quantization": "q8_0"}]},
    )

    checkpoint: str = Field(max_length=64, description="ID of a checkpoint or of an imported base model.")
    format: Literal["safetensors", "adapter", "gguf"] = Field(
        "safetensors",
        description="safetensors: transformers, vLLM and others; adapter: of a LoRA job, to be put beside its base "
        "model; gguf: llama.cpp, Ollama and LM Studio.",
    )
    quantization: Literal["f32", "f16", "q8_0"] = Field("f16", description="Number format of a GGUF file.")
    max_shard_bytes: int = Field(
        5 * 10**9, ge=10**6, le=10**12, description="Largest safetensors file; more weights make several."
    )
    license: License = Field("", max_length=100, description="For the model card, as the Hugging Face hub names it.")


class EvaluationSettings(BaseModel):
    """What models are evaluated on, and how."""

    model_config = ConfigDict(extra="forbid")

    corpora: list[str] = Field(
        min_length=1,
        max_length=16,
        description="Held-out corpora: text gives bits per byte, multiple_choice and classification accuracy, "
        "completion exact matches, questions right answers.",
    )
    limit: int | None = Field(200, ge=1, le=1_000_000, description="Documents per corpus; null: all.")
    num_fewshot: int = Field(0, ge=0, le=32, description="Documents shown with their answer before each question.")
    max_tokens: int = Field(128, ge=1, le=4096, description="Longest answer to a question, in tokens.")
    judge: str | None = Field(
        None,
        max_length=64,
        description="ID of a checkpoint or imported base model that judges answers, for questions that ask for it.",
    )


class EvaluationRequest(EvaluationSettings):
    """A checkpoint to be evaluated on corpora."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"checkpoint": "06e9x2m4q8r7t5vw", "corpora": ["06e9w1zz2b3c4d5f"], "num_fewshot": 2}]
        },
    )

    checkpoint: str = Field(
        max_length=64, description="ID of a checkpoint or of an imported base model. It must be a decoder."
    )


class TaskProgressAnswer(BaseModel):
    """How far it is, in bytes of a file, documents of a corpus or tensors, and how long it may still take."""

    phase: str | None = Field(description="Of an import: fetch, then check.")
    done: int
    total: int
    seconds_left: float | None


class TaskFailure(BaseModel):
    """Why it failed, and what to do."""

    code: str
    message: str


class TaskAnswer(BaseModel):
    """A background task: parsing, cleaning, counting or tokenizing a corpus, importing a base model or a job, a
    tokenizer, an export or an evaluation.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "06e9x5rr8s1t2v3w",
                    "corpus_id": None,
                    "checkpoint_id": "06e9x2m4q8r7t5vw",
                    "model_id": None,
                    "tokenizer_id": None,
                    "kind": "evaluation",
                    "options": {"corpora": ["06e9w1zz2b3c4d5f"], "limit": 200, "num_fewshot": 0},
                    "state": "succeeded",
                    "node": "gpu-1",
                    "progress": None,
                    "result": {
                        "harness": "lm_eval 0.4.13",
                        "num_fewshot": 0,
                        "corpora": [
                            {
                                "corpus": "06e9w1zz2b3c4d5f",
                                "kind": "multiple_choice",
                                "num_documents": 200,
                                "metrics": {"acc": 0.61, "acc_norm": 0.63},
                                "errors": {"acc": 0.034, "acc_norm": 0.034},
                                "examples": [],
                            }
                        ],
                    },
                    "failure": None,
                    "created_at": "2026-11-24T20:20:00Z",
                    "started_at": "2026-11-24T20:20:01Z",
                    "finished_at": "2026-11-24T20:20:44Z",
                }
            ]
        }
    )

    id: str
    corpus_id: str | None = Field(
        description="The corpus that it parses or counts, the first one that it tokenizes, or the cleaned version that "
        "it makes, or null."
    )
    checkpoint_id: str | None = Field(description="The checkpoint that it exports or evaluates, or null.")
    model_id: str | None = Field(description="The base model that it imports, exports or evaluates, or null.")
    tokenizer_id: str | None = Field(description="The tokenizer that it trains or imports, or null.")
    kind: Kind
    options: dict[str, Any]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    node: str | None = Field(description="The node of its last start.")
    progress: TaskProgressAnswer | None = Field(description="While it runs.")
    result: dict[str, Any] | None = Field(
        description="Of an evaluation: harness, num_fewshot, and for each corpus metrics, standard errors and "
        "examples. Of an export: its files with sizes and hashes, and how far its logits are from the checkpoint's. "
        "Of statistics: what the statistics of the corpus say. Of the import of a job: "
        "its ID, job_id. Of corpora that were tokenized: num_tokens, bytes_per_token, and the samples that they make. "
        "Of others: null, as the corpus or model says it."
    )
    failure: TaskFailure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def task_answer(task: BackgroundTask) -> TaskAnswer:
    """A row as it is answered."""
    subject = ("corpus_id", "checkpoint_id", "model_id", "tokenizer_id")
    same = ("id", *subject, "kind", "state", "node", "created_at", "started_at", "finished_at")
    failure = None
    if task.failure:
        failure = TaskFailure(code=task.failure.code, message=failures.sentence(task.failure))
    return TaskAnswer(
        **{name: getattr(task, name) for name in same},
        progress=progress(task),
        options=task.options.model_dump(exclude_unset=True),
        result=task.result.model_dump(exclude_unset=True) if task.result else None,
        failure=failure,
    )


def progress(task: BackgroundTask) -> TaskProgressAnswer | None:
    """How far a running task is. The time left follows from the pace of its present phase."""
    now = task.progress
    if task.state != "running" or not now.total:
        return None
    return TaskProgressAnswer(phase=now.phase, done=now.done, total=now.total, seconds_left=now.seconds_left)
