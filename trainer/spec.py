"""The one shape of a training job, `TrainSpec`: form, REST body, stored row and trainer all read it. Pydantic only."""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

RECIPES = Path(__file__).parent / "recipes"
MIN_VOCAB_SIZE = 258  # 256 bytes and the two special tokens: what byte-level BPE starts from


def field(group: str, title: str, description: str, **limits: Any) -> Any:
    """A `Field` that also says in which group of the form it stands."""
    return Field(title=title, description=description, json_schema_extra={"group": group}, **limits)


class TrainSpec(BaseModel):
    """Everything that decides what a job computes. Fully resolved: a stored spec never changes meaning.

    Names are those of transformers' TrainingArguments and model configurations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, field("job", "Name", "How the job is listed.", min_length=1, max_length=80)]
    recipe: Annotated[
        str, field("job", "Recipe", "The ready-made spec that filled in what was not given.", max_length=40)
    ]
    objective: Annotated[
        Literal["causal"], field("job", "Objective", "What the model learns: causal means to predict the next token.")
    ]
    priority: Annotated[
        Literal["low", "normal", "high"],
        field("job", "Priority", "Who goes first when jobs wait; it changes nothing of what is computed."),
    ] = "normal"
    resume_from_checkpoint: Annotated[
        str | None,
        field("job", "Goes on from", "The id of a checkpoint whose weights, optimizer and step the job starts with."),
    ] = None
    corpora: Annotated[
        list[str],
        field("data", "Corpora", "The ids of the corpora to train on, in this order.", min_length=1, max_length=64),
    ]
    tokenizer: Annotated[
        str | None, field("data", "Tokenizer", "The id of a tokenizer to reuse; none trains one on the corpora.")
    ]
    vocab_size: Annotated[
        int | None,
        field(
            "data",
            "Vocabulary size",
            "Tokens in a newly trained vocabulary; none lets the size of the text decide.",
            ge=MIN_VOCAB_SIZE,
            le=262_144,
        ),
    ]
    sequence_length: Annotated[
        int, field("data", "Sequence length", "Tokens the model sees at once.", ge=8, le=131_072)
    ]
    validation_fraction: Annotated[
        float, field("data", "Validation share", "Share of the text held out to measure progress.", gt=0, le=0.5)
    ]
    model_type: Annotated[
        Literal["llama", "gpt2"], field("model", "Architecture", "The family of the network, as transformers names it.")
    ]
    num_hidden_layers: Annotated[int, field("model", "Layers", "Transformer blocks.", ge=1, le=200)]
    hidden_size: Annotated[int, field("model", "Hidden size", "Width of the residual stream.", ge=8, le=32_768)]
    intermediate_size: Annotated[
        int, field("model", "Feed-forward size", "Width inside each feed-forward block.", ge=8, le=131_072)
    ]
    num_attention_heads: Annotated[int, field("model", "Attention heads", "Query heads in each block.", ge=1, le=256)]
    num_key_value_heads: Annotated[
        int,
        field(
            "model", "Key-value heads", "Heads for keys and values; fewer than query heads saves memory.", ge=1, le=256
        ),
    ]
    tie_word_embeddings: Annotated[
        bool, field("model", "Tied embeddings", "Input and output embeddings share their weights.")
    ]
    max_steps: Annotated[int, field("training", "Steps", "Optimizer steps in all.", ge=1, le=10_000_000)]
    train_batch_size: Annotated[
        int, field("training", "Batch size", "Sequences in one optimizer step, over all processes.", ge=1, le=65_536)
    ]
    per_device_batch_size: Annotated[
        int, field("training", "Micro-batch", "Sequences one process computes at a time.", ge=1, le=4_096)
    ]
    learning_rate: Annotated[float, field("training", "Learning rate", "Its peak, after warm-up.", gt=0, le=10)]
    lr_scheduler_type: Annotated[
        Literal["cosine", "linear", "constant"],
        field("training", "Schedule", "How the learning rate falls after warm-up."),
    ]
    warmup_steps: Annotated[
        int,
        field("training", "Warm-up steps", "Steps over which the learning rate rises from zero.", ge=0, le=1_000_000),
    ]
    weight_decay: Annotated[float, field("training", "Weight decay", "Of AdamW, on matrices only.", ge=0, le=1)]
    adam_beta1: Annotated[float, field("training", "Adam beta 1", "Decay of the first moment.", ge=0, lt=1)]
    adam_beta2: Annotated[float, field("training", "Adam beta 2", "Decay of the second moment.", ge=0, lt=1)]
    max_grad_norm: Annotated[
        float, field("training", "Gradient clipping", "Largest gradient norm; 0 switches clipping off.", ge=0, le=1_000)
    ]
    on_divergence: Annotated[
        Literal["stop", "skip"],
        field(
            "training",
            "On divergence",
            "When the loss is not finite or leaps: stop, or go back to the last checkpoint and pass over that step.",
        ),
    ] = "stop"
    seed: Annotated[int, field("training", "Seed", "Fixes weights, sample order and noise.", ge=0, le=2**31 - 1)]
    eval_steps: Annotated[
        int, field("watching", "Evaluate every", "Steps between two validation losses and samples.", ge=1, le=1_000_000)
    ]
    save_steps: Annotated[int, field("watching", "Save every", "Steps between two checkpoints.", ge=1, le=1_000_000)]
    save_total_limit: Annotated[
        int | None,
        field(
            "watching",
            "Keep the newest",
            "Checkpoints kept beside the best, the pinned and the regular ones; none keeps all.",
            ge=2,
            le=1_000,
        ),
    ] = None
    keep_every: Annotated[
        int, field("watching", "Keep every", "Of every so many saves one is kept.", ge=1, le=10_000)
    ] = 10
    sample_prompt: Annotated[
        str, field("watching", "Sample prompt", "What the model continues at every evaluation.", max_length=500)
    ]
    num_processes: Annotated[
        int, field("hardware", "Processes", "DeepSpeed ranks: one for each GPU, or CPU processes.", ge=1, le=64)
    ]
    zero_stage: Annotated[
        Literal[0, 1, 2, 3],
        field("hardware", "ZeRO stage", "What the processes shard: 1 optimizer, 2 gradients too, 3 weights too."),
    ]
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        field("hardware", "Precision", "Number format; auto takes bf16 on GPUs that have it and fp32 on CPUs."),
    ]
    gradient_checkpointing: Annotated[
        bool, field("hardware", "Gradient checkpointing", "Computes activations twice to hold fewer of them.")
    ]

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "TrainSpec":
        if self.hidden_size % self.num_attention_heads:
            raise _wrong(
                "hidden_size",
                "must be a multiple of num_attention_heads ({num_attention_heads}), but is {hidden_size}: "
                "{next} would do",
                hidden_size=self.hidden_size,
                num_attention_heads=self.num_attention_heads,
                next=_multiple(self.hidden_size, self.num_attention_heads * (2 if self.model_type == "llama" else 1)),
            )
        if self.model_type == "llama" and (self.hidden_size // self.num_attention_heads) % 2:
            raise _wrong(
                "hidden_size",
                "gives each head an odd width ({width}), which rotary embeddings cannot use: {next} would do",
                width=self.hidden_size // self.num_attention_heads,
                next=_multiple(self.hidden_size, 2 * self.num_attention_heads),
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise _wrong(
                "num_key_value_heads",
                "must divide num_attention_heads ({num_attention_heads}), but is {num_key_value_heads}: "
                "{next} would do",
                num_attention_heads=self.num_attention_heads,
                num_key_value_heads=self.num_key_value_heads,
                next=math.gcd(self.num_attention_heads, self.num_key_value_heads),
            )
        if self.model_type == "gpt2" and self.num_key_value_heads != self.num_attention_heads:
            raise _wrong(
                "num_key_value_heads",
                "must equal num_attention_heads ({num_attention_heads}) for gpt2, but is {num_key_value_heads}",
                num_attention_heads=self.num_attention_heads,
                num_key_value_heads=self.num_key_value_heads,
            )
        if self.train_batch_size % (self.per_device_batch_size * self.num_processes):
            raise _wrong(
                "train_batch_size",
                "must be a multiple of per_device_batch_size x num_processes ({product}), but is {train_batch_size}: "
                "{next} would do",
                product=self.per_device_batch_size * self.num_processes,
                train_batch_size=self.train_batch_size,
                next=_multiple(self.train_batch_size, self.per_device_batch_size * self.num_processes),
            )
        if self.warmup_steps > self.max_steps:
            raise _wrong(
                "warmup_steps",
                "must not exceed max_steps ({max_steps}), but is {warmup_steps}",
                max_steps=self.max_steps,
                warmup_steps=self.warmup_steps,
            )
        return self

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches each process adds up before one optimizer step."""
        return self.train_batch_size // (self.per_device_batch_size * self.num_processes)

    @property
    def tokens_per_step(self) -> int:
        """Tokens trained on in one optimizer step, over all processes."""
        return self.train_batch_size * self.sequence_length

    def sha256(self) -> str:
        """The identity of what the job computes: of every field but its name and its place in the queue."""
        text = json.dumps(self.model_dump(exclude={"name", "priority"}), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class SpecError(ValueError):
    """A spec that no job can have: one `SpecProblem` for each wrong field."""

    def __init__(self, problems: "list[SpecProblem]") -> None:
        super().__init__("; ".join(f"{p.field} {p.message.format(**p.values)}" for p in problems))
        self.problems = problems


class SpecProblem(BaseModel):
    """What is wrong with one field: an English sentence without its subject, its numbers kept apart for translation."""

    field: str
    message: str
    values: dict[str, Any] = {}


class _FieldError(ValueError):
    def __init__(self, problem: SpecProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _wrong(name: str, message: str, **values: Any) -> _FieldError:
    return _FieldError(SpecProblem(field=name, message=message, values=values))


def _multiple(value: int, of: int) -> int:
    """The next one that is not smaller."""
    return -(-value // of) * of


# pydantic's error types in our words; {numbers} come from pydantic's context.
SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of a spec; see the list of fields in the API reference",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    # A field of a spec has two bounds; the broken one comes first.
    "greater_than_equal le": "must be at least {ge} and at most {le}, but is {given}",
    "greater_than_equal lt": "must be at least {ge} and less than {lt}, but is {given}",
    "greater_than le": "must be greater than {gt} and at most {le}, but is {given}",
    "less_than_equal ge": "must be at most {le} and at least {ge}, but is {given}",
    "less_than_equal gt": "must be at most {le} and greater than {gt}, but is {given}",
    "less_than ge": "must be less than {lt} and at least {ge}, but is {given}",
    "literal_error": "must be one of {expected}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "list_type": "must be a list",
    "too_short": "needs at least {min_length} entry",
    "too_long": "takes at most {max_length} entries",
}


def recipe_names() -> list[str]:
    """The recipes that ship with Athanor, smallest model first."""
    return ["tiny", "gpt2-124m", "llama-7b"]


def recipe(name: str) -> dict[str, Any]:
    """The fields a recipe fixes. Raises SpecError for a name that is none."""
    if name not in recipe_names():
        values = {"expected": ", ".join(recipe_names())}
        raise SpecError([SpecProblem(field="recipe", message="must be one of {expected}", values=values)])
    fields: dict[str, Any] = json.loads((RECIPES / f"{name}.json").read_text())
    return fields


def resolve(given: dict[str, Any]) -> TrainSpec:
    """Fill what was not given from the recipe (`tiny` if none is named) and check the whole.

    Raises SpecError, which names every wrong field.
    """
    name = given.get("recipe", "tiny")
    if not isinstance(name, str):
        raise SpecError([SpecProblem(field="recipe", message=SENTENCES["string_type"])])
    try:
        return TrainSpec.model_validate({**recipe(name), "recipe": name, **given})
    except ValidationError as error:
        raise SpecError([_problem(detail) for detail in error.errors()]) from None


def _bounds(name: str) -> dict[str, float]:
    """The least and the greatest that a field takes, by how pydantic names them: ge, gt, le, lt."""
    if name not in TrainSpec.model_fields:
        return {}
    limits = TrainSpec.model_fields[name].metadata
    return {kind: getattr(limit, kind) for limit in limits for kind in ("ge", "gt", "le", "lt") if hasattr(limit, kind)}


def _problem(detail: Any) -> SpecProblem:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, _FieldError):
        return cause.problem
    name = ".".join(str(part) for part in detail["loc"]) or "spec"
    context = {k: v for k, v in detail.get("ctx", {}).items() if isinstance(v, str | int | float)}
    other = next((bound for bound in _bounds(name) if f"{detail['type']} {bound}" in SENTENCES), None)
    if other is not None:
        values = {**context, **_bounds(name), "given": detail["input"]}
        return SpecProblem(field=name, message=SENTENCES[f"{detail['type']} {other}"], values=values)
    if detail["type"] not in SENTENCES:
        return SpecProblem(field=name, message="is not valid: {why}", values={"why": detail["msg"]})
    return SpecProblem(field=name, message=SENTENCES[detail["type"]], values=context)
