"""`TrainSpec`: all settings of a training job, shared by form, REST API, database and trainer. Pydantic only."""

import hashlib
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer import spec_checks
from trainer.families import MIN_VOCAB_SIZE
from trainer.formats.messages import message
from trainer.spec_errors import MESSAGES, SpecError, SpecProblem, from_pydantic_error

RECIPES = Path(__file__).parent / "recipes"
FROM_SCRATCH = "from_scratch"  # of a recipe: other values where there is no base model
MAX_STEPS = 10_000_000
WARMUP_DIVISOR = 20


def field(group: str, title: str, description: str, **limits: Any) -> Any:
    """A pydantic `Field` with the group of the form in which it is shown."""
    return Field(title=title, description=description, json_schema_extra={"group": group}, **limits)


class TrainSpec(BaseModel):
    """All settings that determine what a job computes. Fully resolved, so that a stored spec never changes its meaning.

    Field names follow transformers' TrainingArguments and model configurations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, field("job", "Name", "Name shown in the job list.", min_length=1, max_length=80)]
    recipe: Annotated[str, field("job", "Recipe", "Preset whose values fill the fields left unset.", max_length=40)]
    objective: Annotated[
        Literal["causal", "masked", "span_corruption", "seq2seq", "chat", "completion", "classification", "dpo"],
        field(
            "job",
            "Objective",
            "What the model learns to predict: the next token, masked tokens, masked spans, a target from a "
            "source, the assistant's messages in a chat, completions of prompts, labels, or which of two answers "
            "is preferred.",
        ),
    ]
    priority: Annotated[
        Literal["low", "normal", "high"],
        field("job", "Priority", "Queue priority. Does not affect the result."),
    ] = "normal"
    resume_from_checkpoint: Annotated[
        str | None,
        field(
            "job", "Train further from", "ID of a checkpoint whose weights, optimizer state and step it continues from."
        ),
    ] = None
    base_model: Annotated[
        str | None,
        field(
            "model",
            "Base model",
            "ID of a checkpoint or imported model to start from. Leave empty to start from random weights.",
        ),
    ] = None
    new_tokens: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]],
        field(
            "model",
            "New tokens",
            "Words that become tokens of the base model's vocabulary, such as names of a field, separated by commas. "
            "Each starts as the mean of the tokens that spelled it before.",
            max_length=10_000,
        ),
    ] = []
    corpora: Annotated[
        list[str],
        field("data", "Corpora", "IDs of the corpora to train on, in this order.", min_length=1, max_length=64),
    ]
    corpus_weights: Annotated[
        list[Annotated[float, Field(gt=0, le=1_000_000)]],
        field(
            "data",
            "Corpus weights",
            "Shares of the corpora in what the job sees, one number for each in their order, such as 3, 1. Leave empty "
            "to see each sample of each corpus equally often.",
            max_length=64,
        ),
    ] = []
    corpus_temperature: Annotated[
        float | None,
        field(
            "data",
            "Corpus temperature",
            "In place of weights: shares by the size of each corpus to the power of 1 / temperature. 1 keeps the "
            "sizes; larger values show small corpora more often.",
            ge=1,
            le=100,
        ),
    ] = None
    tokenizer: Annotated[
        str | None, field("data", "Tokenizer", "ID of a tokenizer to reuse. Leave empty to train one on the corpora.")
    ]
    vocab_size: Annotated[
        int | None,
        field(
            "data",
            "Vocabulary size",
            "The most tokens of a newly trained tokenizer; a short text yields fewer. Leave empty to derive the size "
            "from the corpus size.",
            ge=MIN_VOCAB_SIZE,
            le=262_144,
        ),
    ]
    sequence_length: Annotated[int, field("data", "Sequence length", "Tokens per training sequence.", ge=8, le=131_072)]
    validation_fraction: Annotated[
        float,
        field(
            "data",
            "Validation fraction",
            "Fraction of the text held out for validation. 0 with validation corpora trains on all of it.",
            ge=0,
            le=0.5,
        ),
    ]
    split: Annotated[
        Literal["default", "document", "group", "label", "column"],
        field(
            "data",
            "Split",
            "What is held out. default: the last sequences of a text, or random records. document: whole documents, "
            "by the hash of their content, so that each stays on its side in later versions. group: all documents of "
            "a group, such as an author, on one side. label: the same share of each label. column: what a column "
            "calls train or validation.",
        ),
    ] = "default"
    validation_corpora: Annotated[
        list[str],
        field(
            "data",
            "Validation corpora",
            "IDs of corpora held out entirely. Each gets a validation loss of its own.",
            max_length=16,
        ),
    ] = []
    packing: Annotated[
        bool,
        field("data", "Packing", "Pack several records into one sequence. Attention does not cross records."),
    ] = True
    chat_template: Annotated[
        str | None,
        field(
            "data",
            "Chat template",
            "How conversations become text: chatml, llama-3, mistral, zephyr, plain, or a Jinja template. Leave empty "
            "to use the base model's own, or ChatML if it has none.",
            min_length=1,
            max_length=20_000,
        ),
    ] = None
    on_record_error: Annotated[
        Literal["skip", "stop"],
        field(
            "data",
            "On unusable records",
            "What to do with records that the chat template refuses, or whose text contains its marks: skip them and "
            "name them on the job's page, or stop.",
        ),
    ] = "skip"
    mlm_probability: Annotated[
        float,
        field(
            "data",
            "Masked fraction",
            "Fraction of the tokens that a masked language model has to predict.",
            gt=0,
            le=0.9,
        ),
    ] = 0.15
    noise_density: Annotated[
        float, field("data", "Noise density", "Fraction of the tokens that span corruption removes.", gt=0, le=0.9)
    ] = 0.15
    mean_noise_span_length: Annotated[
        float, field("data", "Mean span length", "Mean length of a removed span, in tokens.", ge=1, le=100)
    ] = 3.0
    model_type: Annotated[
        Literal["llama", "qwen2", "gpt2", "bert", "roberta", "t5"],
        field("model", "Architecture", "Model family, by its name in transformers."),
    ]
    num_hidden_layers: Annotated[int, field("model", "Layers", "Number of transformer blocks.", ge=1, le=200)]
    hidden_size: Annotated[int, field("model", "Hidden size", "Width of the residual stream.", ge=8, le=32_768)]
    intermediate_size: Annotated[
        int, field("model", "Feed-forward size", "Width of the feed-forward layers.", ge=8, le=131_072)
    ]
    num_attention_heads: Annotated[int, field("model", "Attention heads", "Query heads per block.", ge=1, le=256)]
    num_key_value_heads: Annotated[
        int,
        field(
            "model",
            "Key-value heads",
            "Key and value heads per block. Fewer than query heads save memory.",
            ge=1,
            le=256,
        ),
    ]
    head_dim: Annotated[
        int | None,
        field(
            "model",
            "Head size",
            "Width of each attention head (llama, qwen2 and t5). Leave empty for the hidden size divided by the heads.",
            ge=2,
            le=1_024,
        ),
    ] = None
    tie_word_embeddings: Annotated[
        bool, field("model", "Tied embeddings", "Share one matrix between input and output embeddings.")
    ]
    tuning: Annotated[
        Literal["full", "lora", "qlora"],
        field(
            "model",
            "Tuning",
            "Train all weights, or low-rank adapters on frozen weights. qlora quantizes the frozen weights to "
            "four bits.",
        ),
    ] = "full"
    lora_rank: Annotated[int, field("model", "LoRA rank", "Rank of the adapters.", ge=1, le=1024)] = 16
    lora_alpha: Annotated[
        float, field("model", "LoRA alpha", "The adapters' output is scaled by alpha / rank.", gt=0, le=4096)
    ] = 32.0
    lora_dropout: Annotated[
        float,
        field("model", "LoRA dropout", "Dropout probability of the adapters' inputs during training.", ge=0, lt=1),
    ] = 0.0
    max_steps: Annotated[
        int | None,
        field(
            "training",
            "Steps",
            "Total number of optimizer steps. To train for a number of epochs, leave it empty and set the epochs.",
            ge=1,
            le=MAX_STEPS,
        ),
    ]
    num_train_epochs: Annotated[
        float | None,
        field(
            "training",
            "Epochs",
            "Passes over the training data, in place of a number of steps. The steps are counted once the data are "
            "tokenized.",
            gt=0,
            le=10_000,
        ),
    ] = None
    train_batch_size: Annotated[
        int, field("training", "Batch size", "Sequences per optimizer step, over all processes.", ge=1, le=65_536)
    ]
    per_device_batch_size: Annotated[
        int, field("training", "Micro-batch", "Sequences each process computes at a time.", ge=1, le=4_096)
    ]
    learning_rate: Annotated[
        float, field("training", "Learning rate", "Peak learning rate, reached after warm-up.", gt=0, le=10)
    ]
    lr_scheduler_type: Annotated[
        Literal["cosine", "linear", "constant", "warmup_stable_decay"],
        field("training", "Schedule", "How the learning rate decays after warm-up."),
    ]
    decay_steps: Annotated[
        int | None,
        field(
            "training",
            "Decay steps",
            "Steps of the final decay of warmup_stable_decay. Leave empty for a fifth of all steps.",
            ge=1,
            le=10_000_000,
        ),
    ] = None
    optimizer: Annotated[
        Literal["adamw", "muon"],
        field("training", "Optimizer", "AdamW, or Muon for the matrices of the blocks and AdamW for the rest."),
    ] = "adamw"
    dpo_beta: Annotated[
        float,
        field(
            "training",
            "DPO beta",
            "How strongly the model is kept close to its starting point. Lower values allow larger changes.",
            gt=0,
            le=10,
        ),
    ] = 0.1
    warmup_steps: Annotated[
        int | None,
        field(
            "training",
            "Warm-up steps",
            "Steps over which the learning rate rises from zero to its peak. Leave empty for a twentieth of all steps.",
            ge=0,
            le=1_000_000,
        ),
    ]
    weight_decay: Annotated[
        float, field("training", "Weight decay", "Weight decay of AdamW, applied to matrices only.", ge=0, le=1)
    ]
    adam_beta1: Annotated[float, field("training", "Adam beta 1", "Decay rate of AdamW's first moment.", ge=0, lt=1)]
    adam_beta2: Annotated[float, field("training", "Adam beta 2", "Decay rate of AdamW's second moment.", ge=0, lt=1)]
    max_grad_norm: Annotated[
        float, field("training", "Gradient clipping", "Maximum gradient norm. 0 turns clipping off.", ge=0, le=1_000)
    ]
    on_divergence: Annotated[
        Literal["stop", "skip"],
        field(
            "training",
            "On divergence",
            "What to do when the loss is not finite or spikes: stop, or return to the last checkpoint and skip "
            "that step.",
        ),
    ] = "stop"
    seed: Annotated[
        int,
        field("training", "Seed", "Random seed of the initial weights, sample order and noise.", ge=0, le=2**31 - 1),
    ]
    eval_steps: Annotated[
        int,
        field(
            "watching",
            "Evaluate every",
            "Steps between two evaluations, each with a validation loss and a sample.",
            ge=1,
            le=1_000_000,
        ),
    ]
    evaluation_corpora: Annotated[
        list[str],
        field("watching", "Evaluate at the end", "IDs of corpora to evaluate the best checkpoint on.", max_length=16),
    ] = []
    early_stopping_patience: Annotated[
        int | None,
        field(
            "watching", "Stop early", "Evaluations without a better validation loss that end the job.", ge=1, le=1_000
        ),
    ] = None
    save_steps: Annotated[int, field("watching", "Save every", "Steps between two checkpoints.", ge=1, le=1_000_000)]
    save_total_limit: Annotated[
        int | None,
        field(
            "watching",
            "Keep the newest",
            "Checkpoints to keep besides the best, the pinned and the regular ones. Leave empty to keep all.",
            ge=2,
            le=1_000,
        ),
    ] = None
    keep_every: Annotated[
        int, field("watching", "Keep every", "Keep one of every this many checkpoints permanently.", ge=1, le=10_000)
    ] = 10
    sample_prompt: Annotated[
        str, field("watching", "Sample prompt", "Text that the model continues at every evaluation.", max_length=500)
    ]
    num_processes: Annotated[
        int, field("hardware", "Processes", "DeepSpeed ranks: one per GPU, or CPU processes.", ge=1, le=64)
    ]
    zero_stage: Annotated[
        Literal[0, 1, 2, 3],
        field(
            "hardware",
            "ZeRO stage",
            "What is sharded across processes: 1 the optimizer state, 2 also gradients, 3 also weights.",
        ),
    ]
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        field("hardware", "Precision", "Number format. auto uses bf16 on GPUs that support it, otherwise fp32."),
    ]
    offload_optimizer: Annotated[
        bool,
        field("hardware", "Offload optimizer", "Keep the optimizer state in host memory instead of GPU memory."),
    ] = False
    offload_parameters: Annotated[
        bool, field("hardware", "Offload parameters", "Keep weights that are not in use in host memory too.")
    ] = False
    gradient_checkpointing: Annotated[
        bool, field("hardware", "Gradient checkpointing", "Recompute activations in the backward pass to save memory.")
    ]

    @model_validator(mode="after")
    def _check_consistency(self) -> "TrainSpec":
        spec_checks.check(self)
        return self

    @property
    def head_width(self) -> int:
        """Width of each attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def is_mixture(self) -> bool:
        """Whether the corpora have shares of their own, in place of those of their sizes."""
        return bool(self.corpus_weights) or self.corpus_temperature is not None

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches per process whose gradients are summed for one optimizer step."""
        return self.train_batch_size // (self.per_device_batch_size * self.num_processes)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run. `max_steps` must be resolved."""
        assert self.max_steps is not None, "with_steps resolves num_train_epochs"
        return self.max_steps

    @property
    def num_warmup_steps(self) -> int:
        """Steps over which the learning rate rises: `warmup_steps`, or a twentieth of all steps."""
        return self.total_steps // WARMUP_DIVISOR if self.warmup_steps is None else self.warmup_steps

    def steps_for_epochs(self, num_train_samples: float) -> int:
        """Steps that take `num_train_epochs` over so many training samples, the last one rounded up."""
        epochs = Fraction(str(self.num_train_epochs))
        return max(1, math.ceil(epochs * Fraction(num_train_samples) / self.train_batch_size))

    def with_steps(self, max_steps: int) -> "TrainSpec":
        """The spec with steps in place of epochs. Raises SpecError if other fields contradict them."""
        return _validated({**self.model_dump(), "max_steps": max_steps, "num_train_epochs": None})

    @property
    def tokens_per_step(self) -> int:
        """Tokens trained on in one optimizer step, over all processes."""
        return self.train_batch_size * self.sequence_length

    def sha256(self) -> str:
        """Hash of every field that affects the result: all but `name`, `priority` and `evaluation_corpora`."""
        # Fields that came later are left out where they have their defaults, so that hashes stay as they were.
        added = ("split", "corpus_weights", "corpus_temperature", "new_tokens", "early_stopping_patience")
        unchanged = (name for name in added if getattr(self, name) == type(self).model_fields[name].default)
        ignored = {"name", "priority", "evaluation_corpora", *unchanged}
        text = json.dumps(self.model_dump(exclude=ignored), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def recipe_names() -> list[str]:
    """The recipes that ship with Athanor: decoders by size, then one for each other objective."""
    decoders = ["tiny", "gpt2-124m", "llama-7b"]
    return [*decoders, "tiny-bert", "tiny-t5", "seq2seq", "chat", "completion", "classifier", "dpo"]


def recipe(name: str, *, is_from_scratch: bool = True) -> dict[str, Any]:
    """Fields of a recipe with defaults, for a new model or one with a base. Raises SpecError for an unknown name."""
    if name not in recipe_names():
        expected = ", ".join(recipe_names())
        raise SpecError([SpecProblem(field="recipe", message=message(MESSAGES, "literal_error", expected=expected))])
    defaults = {key: value.default for key, value in TrainSpec.model_fields.items() if not value.is_required()}
    fields: dict[str, Any] = json.loads((RECIPES / f"{name}.json").read_text())
    scratch = fields.pop(FROM_SCRATCH, {})
    return {**defaults, **fields, **(scratch if is_from_scratch else {})}


def example_spec(name: str) -> TrainSpec:
    """A recipe with placeholder corpora and, for dpo, a placeholder base model, to estimate its cost."""
    base = {"base_model": "any"} if recipe(name)["objective"] == "dpo" else {}
    return resolve({"recipe": name, "corpora": ["any"], **base})


def resolve(fields: dict[str, Any]) -> TrainSpec:
    """Complete partial fields from their recipe (default `tiny`) and validate the spec.

    Raises SpecError, which names every invalid field.
    """
    name = fields.get("recipe", "tiny")
    if not isinstance(name, str):
        raise SpecError([SpecProblem(field="recipe", message=message(MESSAGES, "string_type"))])
    return _validated({"recipe": name, **fill_from_recipe(name, fields)})


def fill_from_recipe(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec with those of a recipe in place of missing ones. Raises SpecError for an unknown name."""
    defaults = recipe(name, is_from_scratch=not fields.get("base_model"))
    if fields.get("num_train_epochs") is not None:
        defaults["warmup_steps"] = None  # that of the recipe is for its own steps
    return replace_fields(defaults, fields)


def replace_fields(defaults: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with these fields in place of theirs: steps also replace epochs, and epochs replace steps."""
    replaced = {**defaults, **fields}
    for name, other in (("max_steps", "num_train_epochs"), ("num_train_epochs", "max_steps")):
        if fields.get(name) is not None and other not in fields:
            replaced[other] = None
    return replaced


def _validated(fields: dict[str, Any]) -> TrainSpec:
    try:
        return TrainSpec.model_validate(fields)
    except ValidationError as error:
        raise SpecError([from_pydantic_error(detail, TrainSpec) for detail in error.errors()]) from None
