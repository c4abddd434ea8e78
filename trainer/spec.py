"""The one shape of a training job, `TrainSpec`: form, REST body, stored row and trainer all read it. Pydantic only."""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.spec_errors import MESSAGES, SpecError, SpecProblem, field_error, from_pydantic_error, round_up_to_multiple

RECIPES = Path(__file__).parent / "recipes"
DECODERS = ("llama", "qwen2", "gpt2")
ENCODERS = ("bert", "roberta")
ROTARY = ("llama", "qwen2")
# Which networks can learn what.
FAMILIES = {
    "causal": DECODERS,
    "masked": ENCODERS,
    "span_corruption": ("t5",),
    "seq2seq": ("t5",),
    "chat": DECODERS,
    "completion": DECODERS,
    "classification": (*ENCODERS, *DECODERS),
    "dpo": DECODERS,
}
TEXT_OBJECTIVES = ("causal", "masked", "span_corruption")  # cut running text; the others learn from records
# Which kinds of corpora each can be learnt from.
CORPUS_KINDS_BY_OBJECTIVE = {
    "causal": ("text", "classification"),
    "masked": ("text", "classification"),
    "span_corruption": ("text", "classification"),
    "seq2seq": ("seq2seq",),
    "chat": ("chat",),
    "completion": ("completion",),
    "classification": ("classification",),
    "dpo": ("preference",),
}
NUM_SENTINELS = 100  # of T5: so many gaps a text may have
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
        Literal["causal", "masked", "span_corruption", "seq2seq", "chat", "completion", "classification", "dpo"],
        field(
            "job",
            "Objective",
            "What the model learns: the next token, hidden tokens, hidden spans, a target from a source, answers in a "
            "chat, completions of prompts, labels, or which of two answers is preferred.",
        ),
    ]
    priority: Annotated[
        Literal["low", "normal", "high"],
        field("job", "Priority", "Who goes first when jobs wait; it changes nothing of what is computed."),
    ] = "normal"
    resume_from_checkpoint: Annotated[
        str | None,
        field("job", "Goes on from", "The id of a checkpoint whose weights, optimizer and step the job starts with."),
    ] = None
    base_model: Annotated[
        str | None,
        field(
            "model",
            "Base model",
            "The id of a checkpoint or of an imported model that the job starts from; none starts from random weights.",
        ),
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
    validation_corpora: Annotated[
        list[str],
        field(
            "data",
            "Validation corpora",
            "The ids of corpora that are held out whole; each gets a validation loss of its own.",
            max_length=16,
        ),
    ] = []
    packing: Annotated[
        bool,
        field("data", "Packing", "Puts several records into one sequence; none of them sees another."),
    ] = True
    mlm_probability: Annotated[
        float, field("data", "Masked share", "Share of the tokens that a masked model has to find.", gt=0, le=0.9)
    ] = 0.15
    noise_density: Annotated[
        float, field("data", "Noise density", "Share of the tokens that lie in hidden spans.", gt=0, le=0.9)
    ] = 0.15
    mean_noise_span_length: Annotated[
        float, field("data", "Mean span", "Mean length of a hidden span, in tokens.", ge=1, le=100)
    ] = 3.0
    model_type: Annotated[
        Literal["llama", "qwen2", "gpt2", "bert", "roberta", "t5"],
        field("model", "Architecture", "The family of the network, as transformers names it."),
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
    tuning: Annotated[
        Literal["full", "lora", "qlora"],
        field(
            "model",
            "Tuning",
            "Train all weights, or adapters of low rank beside frozen ones; qlora freezes them in four bits.",
        ),
    ] = "full"
    lora_rank: Annotated[int, field("model", "LoRA rank", "Width of the adapters.", ge=1, le=1024)] = 16
    lora_alpha: Annotated[
        float, field("model", "LoRA alpha", "The adapters' output is scaled by alpha / rank.", gt=0, le=4096)
    ] = 32.0
    lora_dropout: Annotated[
        float, field("model", "LoRA dropout", "Share of the adapters' inputs dropped while training.", ge=0, lt=1)
    ] = 0.0
    max_steps: Annotated[int, field("training", "Steps", "Optimizer steps in all.", ge=1, le=10_000_000)]
    train_batch_size: Annotated[
        int, field("training", "Batch size", "Sequences in one optimizer step, over all processes.", ge=1, le=65_536)
    ]
    per_device_batch_size: Annotated[
        int, field("training", "Micro-batch", "Sequences one process computes at a time.", ge=1, le=4_096)
    ]
    learning_rate: Annotated[float, field("training", "Learning rate", "Its peak, after warm-up.", gt=0, le=10)]
    lr_scheduler_type: Annotated[
        Literal["cosine", "linear", "constant", "warmup_stable_decay"],
        field("training", "Schedule", "How the learning rate falls after warm-up."),
    ]
    decay_steps: Annotated[
        int | None,
        field(
            "training",
            "Decay steps",
            "Steps of the final decay of warmup_stable_decay; none means a fifth of all.",
            ge=1,
            le=10_000_000,
        ),
    ] = None
    optimizer: Annotated[
        Literal["adamw", "muon"],
        field("training", "Optimizer", "AdamW, or Muon for the blocks' matrices and AdamW for the rest."),
    ] = "adamw"
    dpo_beta: Annotated[
        float,
        field(
            "training",
            "DPO beta",
            "How far the model may move from the one it starts as; less is farther.",
            gt=0,
            le=10,
        ),
    ] = 0.1
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
    offload_optimizer: Annotated[
        bool,
        field("hardware", "Offload optimizer", "Keeps the optimizer's state in the machine's memory, not the GPU's."),
    ] = False
    offload_parameters: Annotated[
        bool, field("hardware", "Offload parameters", "Keeps the weights there too, between their uses.")
    ] = False
    gradient_checkpointing: Annotated[
        bool, field("hardware", "Gradient checkpointing", "Computes activations twice to hold fewer of them.")
    ]

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "TrainSpec":
        for check in (_check_width, _check_heads, _check_batch, _check_schedule, _check_objective, _check_tuning):
            check(self)
        _check_hardware(self)
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


def recipe_names() -> list[str]:
    """The recipes that ship with Athanor: decoders by size, then one for each other thing to learn."""
    return [
        "tiny",
        "gpt2-124m",
        "llama-7b",
        "tiny-bert",
        "tiny-t5",
        "seq2seq",
        "chat",
        "completion",
        "classifier",
        "dpo",
    ]


def recipe(name: str) -> dict[str, Any]:
    """The fields a recipe fixes. Raises SpecError for a name that is none."""
    if name not in recipe_names():
        values = {"expected": ", ".join(recipe_names())}
        raise SpecError([SpecProblem(field="recipe", message="must be one of {expected}", values=values)])
    defaults = {key: value.default for key, value in TrainSpec.model_fields.items() if not value.is_required()}
    fields: dict[str, Any] = json.loads((RECIPES / f"{name}.json").read_text())
    return {**defaults, **fields}


def example_spec(name: str) -> TrainSpec:
    """The spec of a recipe on any text, and from any model where it needs one: to say what it would cost."""
    base = {"base_model": "any"} if recipe(name)["objective"] == "dpo" else {}
    return resolve({"recipe": name, "corpora": ["any"], **base})


def resolve(given: dict[str, Any]) -> TrainSpec:
    """Fill what was not given from the recipe (`tiny` if none is named) and check the whole.

    Raises SpecError, which names every wrong field.
    """
    name = given.get("recipe", "tiny")
    if not isinstance(name, str):
        raise SpecError([SpecProblem(field="recipe", message=MESSAGES["string_type"])])
    try:
        return TrainSpec.model_validate({**recipe(name), "recipe": name, **given})
    except ValidationError as error:
        raise SpecError([from_pydantic_error(detail, TrainSpec) for detail in error.errors()]) from None


# ---- what contradicts what ------------------------------------------------------------------------------------------


def _check_width(spec: TrainSpec) -> None:
    heads, rotary = spec.num_attention_heads, spec.model_type in ROTARY
    if spec.hidden_size % heads:
        raise field_error(
            "hidden_size",
            "must be a multiple of num_attention_heads ({num_attention_heads}), but is {hidden_size}: {next} would do",
            hidden_size=spec.hidden_size,
            num_attention_heads=heads,
            next=round_up_to_multiple(spec.hidden_size, heads * (2 if rotary else 1)),
        )
    if rotary and (spec.hidden_size // heads) % 2:
        raise field_error(
            "hidden_size",
            "gives each head an odd width ({width}), which rotary embeddings cannot use: {next} would do",
            width=spec.hidden_size // heads,
            next=round_up_to_multiple(spec.hidden_size, 2 * heads),
        )


def _check_heads(spec: TrainSpec) -> None:
    values = {"num_attention_heads": spec.num_attention_heads, "num_key_value_heads": spec.num_key_value_heads}
    if spec.num_attention_heads % spec.num_key_value_heads:
        raise field_error(
            "num_key_value_heads",
            "must divide num_attention_heads ({num_attention_heads}), but is {num_key_value_heads}: {next} would do",
            **values,
            next=math.gcd(spec.num_attention_heads, spec.num_key_value_heads),
        )
    if spec.model_type not in ROTARY and spec.num_key_value_heads != spec.num_attention_heads:
        raise field_error(
            "num_key_value_heads",
            "must equal num_attention_heads ({num_attention_heads}) for {model_type}, but is {num_key_value_heads}",
            **values,
            model_type=spec.model_type,
        )


def _check_batch(spec: TrainSpec) -> None:
    product = spec.per_device_batch_size * spec.num_processes
    if spec.train_batch_size % product:
        raise field_error(
            "train_batch_size",
            "must be a multiple of per_device_batch_size x num_processes ({product}), but is {train_batch_size}: "
            "{next} would do",
            product=product,
            train_batch_size=spec.train_batch_size,
            next=round_up_to_multiple(spec.train_batch_size, product),
        )


def _check_schedule(spec: TrainSpec) -> None:
    if spec.warmup_steps > spec.max_steps:
        raise field_error(
            "warmup_steps",
            "must not exceed max_steps ({max_steps}), but is {warmup_steps}",
            max_steps=spec.max_steps,
            warmup_steps=spec.warmup_steps,
        )
    room = spec.max_steps - spec.warmup_steps
    if spec.decay_steps is not None and spec.decay_steps > room:
        raise field_error(
            "decay_steps",
            "must not exceed max_steps - warmup_steps ({room}), but is {decay_steps}",
            room=room,
            decay_steps=spec.decay_steps,
        )


def _check_objective(spec: TrainSpec) -> None:
    if spec.model_type not in FAMILIES[spec.objective]:
        raise field_error(
            "model_type",
            "must be one of {expected} for the objective {objective}, but is {model_type}",
            expected=", ".join(FAMILIES[spec.objective]),
            objective=spec.objective,
            model_type=spec.model_type,
        )
    least = MIN_VOCAB_SIZE + {"t5": NUM_SENTINELS, "bert": 1, "roberta": 1}.get(spec.model_type, 0)
    if spec.base_model is None and spec.vocab_size is not None and spec.vocab_size < least:
        values = {"least": least, "model_type": spec.model_type, "vocab_size": spec.vocab_size}
        raise field_error("vocab_size", "must be at least {least} for {model_type}, but is {vocab_size}", **values)
    if spec.model_type == "t5" and spec.base_model is None and not spec.tie_word_embeddings:
        raise field_error(
            "tie_word_embeddings", "must be true for t5, whose encoder, decoder and output share one table"
        )
    if spec.objective == "dpo" and spec.base_model is None:
        raise field_error(
            "base_model", "is missing: dpo moves a model that answers already; choose a checkpoint or a model"
        )
    shared = next((corpus for corpus in spec.validation_corpora if corpus in spec.corpora), None)
    if shared is not None:
        raise field_error(
            "validation_corpora", "holds {corpus}, which is trained on: take it out of one", corpus=shared
        )


def _check_tuning(spec: TrainSpec) -> None:
    if spec.tuning == "full":
        return
    if spec.base_model is None:
        raise field_error("tuning", "must be full without a base_model: adapters need weights that were trained before")
    if spec.optimizer != "adamw":
        raise field_error(
            "optimizer", "must be adamw for {tuning}, but is {optimizer}", tuning=spec.tuning, optimizer=spec.optimizer
        )
    if spec.tuning == "qlora" and spec.precision == "fp32":
        raise field_error(
            "precision", "must be auto or bf16 for qlora, whose frozen weights have four bits, but is fp32"
        )
    if spec.tuning == "qlora" and spec.zero_stage == 3:
        raise field_error("zero_stage", "must be 0, 1 or 2 for qlora, but is 3: weights of four bits cannot be sharded")


def _check_hardware(spec: TrainSpec) -> None:
    if spec.optimizer == "muon" and spec.zero_stage > 0:
        raise field_error(
            "zero_stage",
            "must be 0 for muon, which moves whole matrices, but is {zero_stage}",
            zero_stage=spec.zero_stage,
        )
    if spec.offload_optimizer and spec.zero_stage == 0:
        raise field_error("zero_stage", "must be 1, 2 or 3 for offload_optimizer, but is 0")
    if spec.offload_parameters and spec.zero_stage != 3:
        raise field_error(
            "zero_stage", "must be 3 for offload_parameters, but is {zero_stage}", zero_stage=spec.zero_stage
        )
