"""Request and response bodies of imported base models."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.base_models import problems
from app.base_models.limits import sentence
from app.core.json_shapes import Problem
from app.core.models import BackgroundTask, ImportedModel
from trainer.limits import limits

EXAMPLE: dict[str, Any] = {
    "id": "06bv8h2m4c7k9qz1",
    "shared_by": None,
    "name": "SmolLM2-135M",
    "tags": ["small"],
    "notes": "",
    "source": "hub",
    "reference": "HuggingFaceTB/SmolLM2-135M@93efa2f097d58c2a74874c7e644dbc9b0cee75a2",
    "state": "ready",
    "facts": {
        "model_type": "llama",
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
        "vocab_size": 49152,
        "context": 8192,
        "num_parameters": 134515008,
        "dtype": "BF16",
        "has_chat_template": False,
        "license": "apache-2.0",
    },
    "files": [{"name": "config.json", "size": 704, "sha256": "9f2a…"}],
    "sha256": "3b0c…",
    "num_bytes": 272_000_000,
    "problems": [],
    "limits": [
        {
            "use": "messages",
            "code": "chat_template_missing",
            "message": "This model has no chat template. Send prompt in place of messages, or fine-tune it on "
            "conversations first.",
        }
    ],
    "task_id": None,
    "progress": None,
    "created_at": "2026-01-01T12:00:00Z",
}


class ModelRequest(BaseModel):
    """A model to upload, or one to import from the hub."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "my model"}, {"reference": "HuggingFaceTB/SmolLM2-135M"}]},
    )

    name: str = Field("", max_length=200, description="How it is listed; for one of the hub its name there.")
    reference: str = Field(
        "", max_length=300, description="owner/name or owner/name@revision of the hub; empty: its files are uploaded."
    )


class ModelProblem(BaseModel):
    """Why a model cannot be used, or a remark on one that is ready."""

    code: str
    message: str
    file: str | None = None
    tensor: str | None = None
    byte: int | None = None


class ModelLimit(BaseModel):
    """A use that a model does not have, and why."""

    use: str = Field(description="generate, messages (generating in a conversation), evaluate, gguf, or an objective.")
    code: str
    message: str


class ModelFile(BaseModel):
    """A file of a model that was validated."""

    name: str
    size: int
    sha256: str


class ModelProgress(BaseModel):
    """Progress of the import in bytes: of the download, then of the validation."""

    phase: Literal["fetch", "check"]
    done: int
    total: int


class ModelAnswer(BaseModel):
    """A base model that was imported, or is being imported."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    name: str
    tags: list[str] = Field(description="Words of its owner to find it by.")
    notes: str = Field(description="What its owner wrote about it.")
    shared_by: str | None = Field(description="Name of the user who shares it; null for your own.")
    source: Literal["upload", "hub"]
    reference: str | None = Field(description="Of the hub: owner/name@commit once it is downloaded.")
    state: Literal["uploading", "importing", "ready", "failed"]
    facts: dict[str, Any] = Field(
        description="The spec's fields of the network; vocab_size, num_parameters, context (in tokens; null: without "
        "end), dtype, has_chat_template, license; and what decides its limits."
    )
    files: list[ModelFile]
    sha256: str | None = Field(description="Over names and hashes of its files.")
    num_bytes: int
    problems: list[ModelProblem]
    limits: list[ModelLimit] = Field(description="What a model that is ready cannot be used for.")
    task_id: str | None = Field(description="The background task that imports it, while it waits or runs.")
    progress: ModelProgress | None = Field(description="While it is being imported.")
    created_at: datetime


def model_answer(model: ImportedModel, task: BackgroundTask | None = None) -> ModelAnswer:
    """The response for a model. `task` is the one that imports it."""
    same = ("id", "name", "tags", "notes", "source", "reference", "state", "sha256", "num_bytes", "created_at")
    progress = task.progress if task is not None and task.progress.total else None
    return ModelAnswer(
        **{name: getattr(model, name) for name in same},
        shared_by=model.shared_by,
        facts=model.facts.model_dump(exclude_unset=True),
        files=[ModelFile(**file.model_dump()) for file in model.files],
        problems=[_problem(problem) for problem in model.problems],
        limits=[
            ModelLimit(use=use, code=reason.code, message=sentence(reason))
            for use, reason in (limits(model.facts) if model.state == "ready" else {}).items()
        ],
        task_id=task.id if task is not None else None,
        progress=None if progress is None else ModelProgress(**progress.model_dump(exclude={"seconds"})),
    )


def _problem(problem: Problem) -> ModelProblem:
    place = problem.model_dump(include={"file", "tensor", "byte"})
    return ModelProblem(code=problem.code, message=problems.sentence(problem), **place)
