"""Writes decoders as GGUF files for llama.cpp, Ollama and LM Studio. Imports torch, transformers and gguf."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf.quants import quant_shape_to_byte_shape, quantize
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from trainer.export import gguf_tokenizer
from trainer.export.gguf_tokenizer import PreTokenizerChoice
from trainer.export.verification import ROPE_FREQUENCIES
from trainer.families import GGUF_MODEL_TYPES
from trainer.limits import Limit, Traits
from trainer.limits import limit as limit_of_traits
from trainer.modeling.architectures import is_classifier

ARCHITECTURES = {model_type: gguf.MODEL_ARCH[model_type.upper()] for model_type in GGUF_MODEL_TYPES}
FORMATS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
# Settings that GGUF cannot express for these families, with the values that llama.cpp assumes.
ASSUMED = {
    "hidden_act": "silu",
    "activation_function": "gelu_new",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "scale_attn_by_inverse_layer_idx": False,
}
# Scalings of rotary positions, with the families for which llama.cpp has them: one factor for all frequencies, or one
# for each, which its graphs of other families do not read.
ROPE_SCALINGS = {"default": GGUF_MODEL_TYPES, "linear": ("llama", "qwen2"), "llama3": ("llama",)}
OWN_HEAD_DIM = ("llama",)  # families whose heads, in llama.cpp, need not divide the hidden size
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # GPT-2's Conv1D weights: (inputs, outputs)
BLOCK = 32  # values that share a scale in q8_0


class UnsupportedExport(ValueError):
    """A model that cannot be exported in the requested format, for the reason of `limit`."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(str(limit))
        self.limit = limit


def write(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, quantization: str, name: str
) -> PreTokenizerChoice:
    """Write a model and its tokenizer to a GGUF file. Returns the chosen pre-tokenizer.

    Raises UnsupportedExport for a model or tokenizer that GGUF cannot represent.
    """
    config = model.config
    reason = limit(config, tokenizer)
    if reason is not None:
        raise UnsupportedExport(reason)
    model_type = str(config.model_type)
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[model_type]])
    writer.add_name(name)
    _add_sizes(writer, config)
    writer.add_file_type(FORMATS[quantization][1])
    choice = gguf_tokenizer.choose_pre_tokenizer(tokenizer)
    gguf_tokenizer.write(writer, tokenizer, int(config.vocab_size), choice.name)
    name_map = gguf.get_tensor_name_map(ARCHITECTURES[model_type], int(config.num_hidden_layers))
    weights = _weights(model)
    names = {key: name_map.get_name(key, try_suffixes=(".weight", ".bias")) for key in weights}
    if _rope_type(config) == "llama3":
        names[ROPE_FREQUENCIES] = ROPE_FREQUENCIES
        weights[ROPE_FREQUENCIES] = rope_factors(config)
    assert None not in names.values(), names
    kinds = {}
    for key, tensor in weights.items():
        shape = _to_gguf_layout(key, tensor.to("meta"), config).shape
        kinds[key] = _kind(names[key], shape, quantization)
        num_bytes = math.prod(quant_shape_to_byte_shape(shape, kinds[key]))
        writer.add_tensor_info(names[key], shape, np.dtype(np.float32), num_bytes, raw_dtype=kinds[key])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for key, tensor in weights.items():  # one quantized copy in memory at a time
        writer.write_tensor_data(quantize(_to_gguf_layout(key, tensor.float(), config).numpy(), kinds[key]))
    writer.close()
    return choice


def _weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The model's weights, without a head that is tied to the embedding."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state = {key: tensor for key, tensor in state.items() if key != "lm_head.weight"}
    return {key: tensor.detach() for key, tensor in state.items()}


def _kind(name: str, shape: Sequence[int], quantization: str) -> GGMLQuantizationType:
    """Number format of a tensor: fp32 for vectors and positions, as in llama.cpp; fp16 if q8_0 does not fit."""
    if len(shape) == 1 or name.startswith("position_embd") or quantization == "f32":
        return GGMLQuantizationType.F32
    if quantization == "q8_0" and shape[-1] % BLOCK:
        return GGMLQuantizationType.F16
    return FORMATS[quantization][0]


def _to_gguf_layout(key: str, tensor: Tensor, config: Any) -> Tensor:
    """A weight, (rows, columns), in llama.cpp's order of rows and columns."""
    if config.model_type == "gpt2" and key.endswith(TRANSPOSED):
        return tensor.t().contiguous()
    if config.model_type == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
        return _interleave_rotary(tensor, int(heads))
    return tensor.contiguous()


def _interleave_rotary(tensor: Tensor, num_heads: int) -> Tensor:
    """Reorder the rows of a rotary projection, (rows, columns), from transformers' halves to llama.cpp's pairs."""
    rows, columns = tensor.shape
    halves = tensor.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns).contiguous()


def _add_sizes(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_head_count(int(config.num_attention_heads))
    writer.add_vocab_size(int(config.vocab_size))
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(int(config.n_inner or 4 * config.n_embd))
        writer.add_layer_norm_eps(float(config.layer_norm_epsilon))
        return
    width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    writer.add_feed_forward_length(int(config.intermediate_size))
    writer.add_head_count_kv(int(config.num_key_value_heads))
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_rope_dimension_count(width)
    if width * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(width)
        writer.add_value_length(width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    if _rope_type(config) == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(config.rope_parameters["factor"]))


def limit(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> Limit | None:
    """Why a model cannot be written to GGUF, or None."""
    traits = Traits(
        model_type=config.model_type,
        is_classifier=is_classifier(config),
        gguf_limit=own_limit(config, tokenizer),
    )
    return limit_of_traits(traits, "gguf")


def own_limit(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> Limit | None:
    """Why the settings or the tokenizer of a model, whatever its head, cannot be written to GGUF, or None."""
    return _setting_limit(config) or gguf_tokenizer.limit(tokenizer)


def _setting_limit(config: PretrainedConfig) -> Limit | None:
    settings = {name: getattr(config, name, None) for name in ASSUMED}
    name = next((name for name, value in settings.items() if value not in (None, ASSUMED[name])), None)
    if name is not None:
        return Limit(code="gguf_setting", values={"setting": name, "value": str(settings[name])})
    head_dim = getattr(config, "head_dim", None)
    is_usual = head_dim is None or head_dim * config.num_attention_heads == config.hidden_size
    if not is_usual and config.model_type not in OWN_HEAD_DIM:
        return Limit(code="gguf_setting", values={"setting": "head_dim", "value": str(head_dim)})
    scaling = _rope_type(config)
    if config.model_type not in ROPE_SCALINGS.get(scaling, ()):
        return Limit(code="gguf_positions", values={"scaling": scaling, "model_type": config.model_type})
    return None


def _rope_type(config: PretrainedConfig) -> str:
    """How the rotary positions are scaled; "default" if they are not, or if there are none."""
    return str((getattr(config, "rope_parameters", None) or {}).get("rope_type", "default"))


def rope_factors(config: PretrainedConfig) -> Tensor:
    """By what each frequency of the rotary positions is divided, of shape (head width / 2,)."""
    unscaled: Tensor = ROPE_INIT_FUNCTIONS["linear"](
        _with_rope(config, rope_type="linear", factor=1.0), torch.device("cpu")
    )[0]
    scaled = ROPE_INIT_FUNCTIONS[_rope_type(config)](config, torch.device("cpu"))[0]
    factors: Tensor = unscaled / scaled
    return factors


def _with_rope(config: PretrainedConfig, **changes: Any) -> PretrainedConfig:
    """A copy of a configuration with other rotary positions."""
    changed = copy.deepcopy(config)
    changed.rope_parameters = {"rope_theta": config.rope_parameters["rope_theta"], **changes}
    return changed
