"""The JSON of works: what an export or an evaluation is asked for with, and what is answered of it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.models import Work
from app.works import failures

# Kinds of corpora that trainer/inference/lm_eval_harness.py has a task for.
EVALUATED_KINDS = ("text", "multiple_choice", "classification", "completion")


class ExportRequest(BaseModel):
    """A checkpoint to be written in a format that others read."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"checkpoint": "06e9x2m4q8r7t5vw", "format": "gguf", "quantization": "q8_0"}]},
    )

    checkpoint: str = Field(max_length=64, description="The id of the checkpoint.")
    format: Literal["safetensors", "adapter", "gguf"] = Field(
        "safetensors",
        description="safetensors: transformers, vLLM and others; adapter: of a LoRA job, to be put beside its base "
        "model; gguf: llama.cpp, Ollama and LM Studio.",
    )
    quantization: Literal["f32", "f16", "q8_0"] = Field("f16", description="Number format of a GGUF file.")
    max_shard_bytes: int = Field(
        5 * 10**9, ge=10**6, le=10**12, description="Largest safetensors file; more weights make several."
    )
    license: str = Field("", max_length=100, description="For the model card, as the Hugging Face hub names it.")


class EvaluationRequest(BaseModel):
    """A checkpoint to be asked about corpora, with lm-evaluation-harness."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"checkpoint": "06e9x2m4q8r7t5vw", "corpora": ["06e9w1zz2b3c4d5f"], "num_fewshot": 2}]
        },
    )

    checkpoint: str = Field(max_length=64, description="The id of the checkpoint: of a decoder.")
    corpora: list[str] = Field(
        min_length=1,
        max_length=16,
        description="Held-out corpora: text gives bits per byte, multiple_choice and classification accuracy, "
        "completion exact matches.",
    )
    limit: int | None = Field(200, ge=1, le=1_000_000, description="Documents of each corpus; null: all.")
    num_fewshot: int = Field(0, ge=0, le=32, description="Documents shown with their answer before each question.")


class WorkProgress(BaseModel):
    """How far it is, and how long it may still take."""

    done: int
    total: int
    seconds_left: float | None


class WorkFailure(BaseModel):
    """Why it failed, and what to do."""

    code: str
    message: str


class WorkAnswer(BaseModel):
    """An export or an evaluation."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "06e9x5rr8s1t2v3w",
                    "checkpoint_id": "06e9x2m4q8r7t5vw",
                    "kind": "evaluation",
                    "options": {"corpora": ["06e9w1zz2b3c4d5f"], "limit": 200, "num_fewshot": 0},
                    "state": "succeeded",
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
    checkpoint_id: str
    kind: Literal["export", "evaluation"]
    options: dict[str, Any]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: WorkProgress | None = Field(description="While it runs.")
    result: dict[str, Any] | None = Field(
        description="Of an evaluation: harness, num_fewshot, and for each corpus metrics, standard errors and "
        "examples. Of an export: its files with sizes and hashes, and how far its logits are from the checkpoint's."
    )
    failure: WorkFailure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def work_answer(work: Work) -> WorkAnswer:
    """A row as it is answered."""
    same = ("id", "checkpoint_id", "kind", "state", "created_at", "started_at", "finished_at")
    failure = None
    if work.failure:
        failure = WorkFailure(code=work.failure.code, message=failures.sentence(work.failure))
    return WorkAnswer(
        **{name: getattr(work, name) for name in same},
        progress=progress(work),
        options=work.options.model_dump(exclude_unset=True),
        result=work.result.model_dump(exclude_unset=True) if work.result else None,
        failure=failure,
    )


def progress(work: Work) -> WorkProgress | None:
    """How far a running work is. What is left is told from the pace since the first sign."""
    done, total, seconds = work.progress.done, work.progress.total, work.progress.seconds
    if work.state != "running" or not total:
        return None
    left = seconds * (total - done) / done if done and seconds else None
    return WorkProgress(done=done, total=total, seconds_left=left)
