"""Loads a base model: weights in Hugging Face layout from any source. Imports torch and transformers."""

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.configuration_utils import PretrainedConfig
from transformers.utils import logging as transformers_logging

from trainer.failure import config_invalid
from trainer.modeling import architectures
from trainer.modeling.broadcast import broadcast_json
from trainer.planning.context_length import context_length
from trainer.spec import TrainSpec

IN_A_BLOCK = re.compile(r"\.\d+\.")

# Without these a base model is another network. The other NETWORK_FIELDS follow its configuration.
COMPARED_FIELDS = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads")


def load(
    directory: Path,
    spec: TrainSpec,
    device: torch.device,
    dtype: torch.dtype,
    say: Callable[[str], None],
    labels: Sequence[str] = (),
) -> PreTrainedModel:
    """The model in a directory, with the head of the objective, which is new if the directory has none.

    Only safetensors are read, and no code. Raises Failure for a model that the spec cannot start from.
    """
    config, quantized = _config(directory, spec, labels), _quantized(spec, device)
    dropouts = {name: value for name, value in config.to_dict().items() if "drop" in name and isinstance(value, float)}
    _set(config, dict.fromkeys(dropouts, 0.0))  # as from scratch: what is computed must not depend on ranks
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if device.type == "meta":  # without values: rank 0, which has them, reports which are new
        with device:
            model = architectures.model_class(spec.objective).from_config(
                config, dtype=dtype, attn_implementation="sdpa"
            )
        return _with_new_marked(model, broadcast_json(list[str]()), dropouts)
    try:
        model, loading = architectures.model_class(spec.objective).from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=spec.objective == "classification",  # its head may know other labels
            output_loading_info=True,
            **quantized,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise config_invalid("base_model", "base_unreadable", error=str(error)) from None
    new = sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])})
    absent = next((name for name in new if IN_A_BLOCK.search(name)), None)
    if absent is not None:
        raise config_invalid("base_model", "weight_missing", name=absent)
    if new:
        say(f"the base model has no {', '.join(new)}: initialized from the seed")
    if loading["unexpected_keys"]:
        say(f"not used of the base model: {', '.join(sorted(loading['unexpected_keys']))}")
    if quantized:
        # What is saved are merged weights of full width, not what this would write.
        del model.config.quantization_config
        model.hf_quantizer = None
    if spec.zero_stage == 3:
        broadcast_json(new)
    return _with_new_marked(model if quantized else model.to(device), new, dropouts)


def _with_new_marked(model: PreTrainedModel, new: list[str], dropouts: dict[str, float]) -> PreTrainedModel:
    """Ready to train: dropout restored in the configuration, and `is_new` set on each parameter."""
    _set(model.config, dropouts)
    for name, parameter in model.named_parameters():
        parameter.is_new = name in new
    return model.train()


def _config(directory: Path, spec: TrainSpec, labels: Sequence[str]) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise config_invalid("base_model", "base_unreadable", error=str(error)) from None
    fields = architectures.network_fields(config)
    for name in COMPARED_FIELDS:
        if getattr(spec, name) != fields[name]:
            raise config_invalid(name, "base_differs", value=getattr(spec, name), base_value=fields[name])
    longest = context_length(config)
    if longest is not None and spec.sequence_length > longest:
        raise config_invalid("sequence_length", "context", value=spec.sequence_length, longest=longest)
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
    return config


def _quantized(spec: TrainSpec, device: torch.device) -> dict[str, Any]:
    """Arguments of from_pretrained that quantize weights for qlora. Raises Failure where they cannot be."""
    if spec.tuning != "qlora":
        return {}
    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise config_invalid("tuning", "qlora")
    return {"quantization_config": nf4_config(), "device_map": {"": device}}


def nf4_config() -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantization, computed in bf16 (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _set(config: PretrainedConfig, values: dict[str, float]) -> None:
    for name, value in values.items():
        setattr(config, name, value)
