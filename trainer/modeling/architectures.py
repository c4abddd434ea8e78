"""Models with random weights: the configuration that a spec describes, by family. Imports transformers."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
    RobertaConfig,
    T5Config,
)
from transformers.configuration_utils import PretrainedConfig

from trainer.families import DECODERS
from trainer.planning.context_length import position_offset
from trainer.spec import TrainSpec

CLASSES: dict[str, Any] = {
    "masked": AutoModelForMaskedLM,
    "span_corruption": AutoModelForSeq2SeqLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classification": AutoModelForSequenceClassification,
}


def model_class(objective: str) -> Any:
    """The class of transformers that has the head of an objective."""
    return CLASSES.get(objective, AutoModelForCausalLM)


def is_classifier(config: PretrainedConfig) -> bool:
    """Whether saved weights have the head of a classifier."""
    return class_name(config).endswith("ForSequenceClassification")


def saved_class(config: PretrainedConfig) -> Any:
    """The class of transformers that opens saved weights as they are: an encoder without a usual head gets none."""
    if is_classifier(config):
        return AutoModelForSequenceClassification
    if config.model_type in DECODERS:
        return AutoModelForCausalLM
    if config.model_type == "t5":
        return AutoModelForSeq2SeqLM
    return AutoModelForMaskedLM if class_name(config).endswith("ForMaskedLM") else AutoModel


def class_name(config: PretrainedConfig) -> str:
    """The class that a configuration names, or nothing."""
    named = config.architectures
    return str(named[0]) if isinstance(named, list) and named else ""


def create_config(spec: TrainSpec, vocab_size: int, ids: dict[str, int], labels: Sequence[str]) -> PreTrainedModel:
    """The model of a spec, with random weights. `ids` are bos_token_id, eos_token_id and pad_token_id, `labels` the
    classes of a classifier.

    There is no dropout: results must not depend on the number of processes.
    """
    shared = {"vocab_size": vocab_size, "tie_word_embeddings": spec.tie_word_embeddings, **ids}
    config = CONFIG_BUILDERS[spec.model_type](spec, shared)
    if spec.objective == "classification":
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
    model: PreTrainedModel = model_class(spec.objective).from_config(config, attn_implementation="sdpa")
    return model


def _usual(spec: TrainSpec, shared: dict[str, Any]) -> dict[str, Any]:
    """The fields that Llama, Qwen 2, BERT and RoBERTa have in common."""
    return {
        **shared,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_hidden_layers,
        "num_attention_heads": spec.num_attention_heads,
        "max_position_embeddings": spec.sequence_length,
    }


def _own_head_dim(spec: TrainSpec) -> dict[str, Any]:
    """Qwen 2's configuration names a width only where it is not the usual one."""
    return {} if spec.head_dim is None else {"head_dim": spec.head_dim}


def _llama(spec: TrainSpec, shared: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(**_usual(spec, shared), num_key_value_heads=spec.num_key_value_heads, head_dim=spec.head_width)


def _qwen2(spec: TrainSpec, shared: dict[str, Any]) -> Qwen2Config:
    return Qwen2Config(**_usual(spec, shared), num_key_value_heads=spec.num_key_value_heads, **_own_head_dim(spec))


def _gpt2(spec: TrainSpec, shared: dict[str, Any]) -> GPT2Config:
    return GPT2Config(
        **shared,
        n_embd=spec.hidden_size,
        n_inner=spec.intermediate_size,
        n_layer=spec.num_hidden_layers,
        n_head=spec.num_attention_heads,
        n_positions=spec.sequence_length,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
    )


def _bert(spec: TrainSpec, shared: dict[str, Any]) -> BertConfig:
    return BertConfig(**_usual(spec, shared), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def _roberta(spec: TrainSpec, shared: dict[str, Any]) -> RobertaConfig:
    usual = _usual(spec, shared)
    usual["max_position_embeddings"] += position_offset("roberta", int(shared["pad_token_id"]))
    return RobertaConfig(**usual, type_vocab_size=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def _t5(spec: TrainSpec, shared: dict[str, Any]) -> T5Config:
    return T5Config(
        **shared,
        d_model=spec.hidden_size,
        d_kv=spec.head_width,
        d_ff=spec.intermediate_size,
        num_layers=spec.num_hidden_layers,
        num_heads=spec.num_attention_heads,
        feed_forward_proj="gated-gelu",  # T5 1.1
        decoder_start_token_id=shared["pad_token_id"],
        dropout_rate=0.0,
    )


CONFIG_BUILDERS: dict[str, Callable[[TrainSpec, dict[str, Any]], PretrainedConfig]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "gpt2": _gpt2,
    "bert": _bert,
    "roberta": _roberta,
    "t5": _t5,
}


def network_fields(config: PretrainedConfig) -> dict[str, Any]:
    """The fields of a spec that define a network (trainer.spec.NETWORK_FIELDS), read from its configuration."""
    is_t5 = config.model_type == "t5"
    match config.model_type:
        case "gpt2":
            intermediate_size = config.n_inner or 4 * config.hidden_size
        case "t5":
            intermediate_size = config.d_ff
        case _:
            intermediate_size = config.intermediate_size
    heads, head_dim = config.num_attention_heads, getattr(config, "d_kv" if is_t5 else "head_dim", None)
    is_usual = isinstance(heads, int) and isinstance(head_dim, int) and heads * head_dim == config.hidden_size
    return {
        "model_type": config.model_type,
        "num_hidden_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        "head_dim": None if is_usual else head_dim,
        "tie_word_embeddings": bool(getattr(config, "tie_word_embeddings", True)),
    }
