"""Checks across the fields of a spec: each raises the error of the field that contradicts others. Pydantic only."""

import math
from typing import TYPE_CHECKING

from trainer.families import CHAT_TEMPLATES, FAMILIES, OWN_HEAD_DIM, ROTARY, smallest_vocabulary
from trainer.rounding import round_up_to_multiple
from trainer.spec_errors import field_error

if TYPE_CHECKING:
    from trainer.spec import TrainSpec


def check(spec: "TrainSpec") -> None:
    """Check a spec whose fields are valid one by one. Raises the exception of field_error, for a validator."""
    for check_some in (
        _check_width,
        _check_heads,
        _check_batch,
        _check_schedule,
        _check_objective,
        _check_mixture,
        _check_split,
        _check_new_tokens,
        _check_tuning,
        _check_hardware,
    ):
        check_some(spec)


def _check_width(spec: "TrainSpec") -> None:
    heads, rotary = spec.num_attention_heads, spec.model_type in ROTARY
    if spec.head_dim is not None and spec.model_type not in OWN_HEAD_DIM:
        raise field_error(
            "head_dim", "must be empty for {model_type}: its heads share the hidden size", model_type=spec.model_type
        )
    if spec.head_dim is None and spec.hidden_size % heads:
        raise field_error(
            "hidden_size",
            "must be a multiple of num_attention_heads ({num_attention_heads}), but is {hidden_size}: {next} would do",
            hidden_size=spec.hidden_size,
            num_attention_heads=heads,
            next=round_up_to_multiple(spec.hidden_size, heads * (2 if rotary else 1)),
        )
    if rotary and spec.head_width % 2:
        name = "hidden_size" if spec.head_dim is None else "head_dim"
        raise field_error(
            name,
            "gives each head an odd width ({width}), which rotary embeddings cannot use: {next} would do",
            width=spec.head_width,
            next=round_up_to_multiple(spec.hidden_size, 2 * heads) if spec.head_dim is None else spec.head_dim + 1,
        )


def _check_heads(spec: "TrainSpec") -> None:
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


def _check_batch(spec: "TrainSpec") -> None:
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


def _check_schedule(spec: "TrainSpec") -> None:
    if spec.max_steps is not None and spec.num_train_epochs is not None:
        raise field_error(
            "num_train_epochs",
            "must be empty if max_steps is set: choose one of the two (epochs are {num_train_epochs}, steps "
            "{max_steps})",
            num_train_epochs=spec.num_train_epochs,
            max_steps=spec.max_steps,
        )
    if spec.max_steps is None and spec.num_train_epochs is None:
        raise field_error("max_steps", "is required, unless num_train_epochs is set")
    if spec.max_steps is None:
        return
    if spec.num_warmup_steps > spec.max_steps:
        raise field_error(
            "warmup_steps",
            "must not exceed max_steps ({max_steps}), but is {warmup_steps}",
            max_steps=spec.max_steps,
            warmup_steps=spec.warmup_steps,
        )
    largest = spec.max_steps - spec.num_warmup_steps
    if spec.decay_steps is not None and spec.decay_steps > largest:
        raise field_error(
            "decay_steps",
            "must not exceed max_steps - warmup_steps ({largest}), but is {decay_steps}",
            largest=largest,
            decay_steps=spec.decay_steps,
        )


def _check_objective(spec: "TrainSpec") -> None:
    if spec.model_type not in FAMILIES[spec.objective]:
        raise field_error(
            "model_type",
            "must be one of {expected} for the objective {objective}, but is {model_type}",
            expected=", ".join(FAMILIES[spec.objective]),
            objective=spec.objective,
            model_type=spec.model_type,
        )
    smallest = smallest_vocabulary(spec.model_type)
    if spec.base_model is None and spec.vocab_size is not None and spec.vocab_size < smallest:
        values = {"smallest": smallest, "model_type": spec.model_type, "vocab_size": spec.vocab_size}
        raise field_error("vocab_size", "must be at least {smallest} for {model_type}, but is {vocab_size}", **values)
    if spec.model_type == "t5" and spec.base_model is None and not spec.tie_word_embeddings:
        raise field_error(
            "tie_word_embeddings", "must be true for t5, whose encoder, decoder and output share one embedding"
        )
    if spec.objective == "dpo" and spec.base_model is None:
        raise field_error(
            "base_model", "is required: dpo fine-tunes a model that already answers; choose a checkpoint or a model"
        )
    template = spec.chat_template
    if template is not None and template not in CHAT_TEMPLATES and ("messages" not in template or "\0" in template):
        raise field_error(
            "chat_template",
            "must be one of {expected}, or a Jinja template that reads messages",
            expected=", ".join(CHAT_TEMPLATES),
        )
    shared = next((corpus for corpus in spec.validation_corpora if corpus in spec.corpora), None)
    if shared is not None:
        raise field_error(
            "validation_corpora",
            "contains {corpus}, which is also a training corpus: remove it from one of the two",
            corpus=shared,
        )


def _check_mixture(spec: "TrainSpec") -> None:
    num_weights, num_corpora = len(spec.corpus_weights), len(spec.corpora)
    if num_weights and num_weights != num_corpora:
        raise field_error(
            "corpus_weights",
            "must have one number for each of the corpora in their order ({count}), but has {found}",
            count=num_corpora,
            found=num_weights,
        )
    if num_weights and spec.corpus_temperature is not None:
        raise field_error("corpus_temperature", "must be empty if corpus_weights are set: choose one of the two")


def _check_split(spec: "TrainSpec") -> None:
    if not spec.validation_fraction and spec.split != "column" and not spec.validation_corpora:
        raise field_error(
            "validation_fraction",
            "must be above 0 without validation_corpora: nothing would be left to evaluate the model on",
        )
    if spec.split == "label" and spec.objective != "classification":
        raise field_error(
            "split", "must not be label for {objective}, whose records have no labels", objective=spec.objective
        )


def _check_new_tokens(spec: "TrainSpec") -> None:
    if not spec.new_tokens:
        return
    if spec.base_model is None:
        raise field_error("new_tokens", "must be empty without a base_model: a new tokenizer learns them from the text")
    if spec.tuning != "full":
        raise field_error(
            "new_tokens",
            "must be empty for {tuning}, which neither trains nor saves embeddings: choose the tuning full",
            tuning=spec.tuning,
        )
    if spec.zero_stage == 3:
        raise field_error("zero_stage", "must be 0, 1 or 2 for new_tokens, but is 3")
    repeated = next((token for token in spec.new_tokens if spec.new_tokens.count(token) > 1), None)
    if repeated is not None:
        raise field_error("new_tokens", "has {token} twice", token=repeated)
    blank = next((number for number, token in enumerate(spec.new_tokens, 1) if not token.strip()), None)
    if blank is not None:
        raise field_error("new_tokens", "must not have tokens of spaces only, as number {number} is", number=blank)


def _check_tuning(spec: "TrainSpec") -> None:
    if spec.tuning == "full":
        return
    if spec.base_model is None:
        raise field_error("tuning", "must be full without a base_model: adapters need pretrained weights")
    if spec.optimizer != "adamw":
        raise field_error(
            "optimizer", "must be adamw for {tuning}, but is {optimizer}", tuning=spec.tuning, optimizer=spec.optimizer
        )
    if spec.tuning == "qlora" and spec.precision == "fp32":
        raise field_error(
            "precision", "must be auto or bf16 for qlora, whose frozen weights are quantized to four bits, but is fp32"
        )
    if spec.tuning == "qlora" and spec.zero_stage == 3:
        raise field_error("zero_stage", "must be 0, 1 or 2 for qlora, but is 3: four-bit weights cannot be sharded")


def _check_hardware(spec: "TrainSpec") -> None:
    if spec.optimizer == "muon" and spec.zero_stage > 0:
        raise field_error(
            "zero_stage",
            "must be 0 for muon, which updates whole matrices, but is {zero_stage}",
            zero_stage=spec.zero_stage,
        )
    if spec.offload_optimizer and spec.zero_stage == 0:
        raise field_error("zero_stage", "must be 1, 2 or 3 for offload_optimizer, but is 0")
    if spec.offload_parameters and spec.zero_stage != 3:
        raise field_error(
            "zero_stage", "must be 3 for offload_parameters, but is {zero_stage}", zero_stage=spec.zero_stage
        )
