"""Writes decoders as GGUF, the file that llama.cpp, Ollama and LM Studio read. Imports torch, transformers and gguf."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType
from gguf.quants import quant_shape_to_byte_shape, quantize
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.configuration_utils import PretrainedConfig

from trainer.export import gguf_tokenizer
from trainer.export.gguf_tokenizer import PreTokenizerChoice

ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "gpt2": gguf.MODEL_ARCH.GPT2}
FORMATS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
# What llama.cpp takes for granted of these families.
NAMELESS = {
    "hidden_act": "silu",
    "activation_function": "gelu_new",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "scale_attn_by_inverse_layer_idx": False,
}
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # GPT-2's own layers hold columns where others have rows
BLOCK = 32  # values that q8_0 scales together


def write(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, quantization: str, name: str
) -> PreTokenizerChoice:
    """Write a model with its tokenizer, and return how llama.cpp is told to part text.

    Raises ValueError for what has no words in GGUF.
    """
    config = model.config
    why = unsupported_reason(config) or gguf_tokenizer.unsupported_reason(tokenizer)
    if why is not None:
        raise ValueError(why)
    model_type = str(config.model_type)
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[model_type]])
    writer.add_name(name)
    _add_sizes(writer, config)
    writer.add_file_type(FORMATS[quantization][1])
    chosen = gguf_tokenizer.choose_pre_tokenizer(tokenizer)
    gguf_tokenizer.write(writer, tokenizer, int(config.vocab_size), chosen.name)
    names = gguf.get_tensor_name_map(ARCHITECTURES[model_type], int(config.num_hidden_layers))
    weights = _weights(model)
    found = {key: names.get_name(key, try_suffixes=(".weight", ".bias")) for key in weights}
    assert None not in found.values(), found
    kinds = {}
    for key, tensor in weights.items():
        shape = _to_gguf_layout(key, tensor.to("meta"), config).shape
        kinds[key] = _kind(found[key], shape, quantization)
        num_bytes = math.prod(quant_shape_to_byte_shape(shape, kinds[key]))
        writer.add_tensor_info(found[key], shape, np.dtype(np.float32), num_bytes, raw_dtype=kinds[key])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for key, tensor in weights.items():  # of which only one is in memory a second time
        writer.write_tensor_data(quantize(_to_gguf_layout(key, tensor.float(), config).numpy(), kinds[key]))
    writer.close()
    return chosen


def _weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """What the file holds: a tied head is the embedding again, and left out."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state = {key: tensor for key, tensor in state.items() if key != "lm_head.weight"}
    return {key: tensor.detach() for key, tensor in state.items()}


def _kind(name: str, shape: Sequence[int], quantization: str) -> GGMLQuantizationType:
    """Vectors and positions stay fp32, as in llama.cpp; rows that blocks do not divide keep half precision."""
    if len(shape) == 1 or name.startswith("position_embd") or quantization == "f32":
        return GGMLQuantizationType.F32
    if quantization == "q8_0" and shape[-1] % BLOCK:
        return GGMLQuantizationType.F16
    return FORMATS[quantization][0]


def _to_gguf_layout(key: str, tensor: Tensor, config: Any) -> Tensor:
    """A weight in the order that llama.cpp computes in."""
    if config.model_type == "gpt2" and key.endswith(TRANSPOSED):
        return tensor.t().contiguous()
    if config.model_type == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
        return _interleaved(tensor, int(heads))
    return tensor.contiguous()


def _interleaved(tensor: Tensor, num_heads: int) -> Tensor:
    """Rotary pairs beside each other: transformers keeps a head's first halves before the second ones."""
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
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))


def unsupported_reason(config: PretrainedConfig) -> str | None:
    """Why a model cannot be written; None where it can."""
    if config.model_type not in ARCHITECTURES:
        return f"GGUF is for {', '.join(ARCHITECTURES)}, this is {config.model_type}"
    if config.architectures[0].endswith("Classification"):
        return "GGUF is for decoders that write, and this one classifies"
    found = {name: getattr(config, name, None) for name in NAMELESS}
    name = next((name for name, value in found.items() if value not in (None, NAMELESS[name])), None)
    if name is not None:
        return f"its {name} is {found[name]}, which GGUF has no word for in this family"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return None if rope == "default" else f"its positions are scaled by {rope}, which is not written as GGUF here"


def read(directory: Path, name: str) -> PreTrainedModel:
    """The model in a GGUF file, as transformers reads it back."""
    config = AutoConfig.from_pretrained(directory, gguf_file=name, local_files_only=True)
    if config.model_type == "gpt2":  # of which transformers reads neither the width inside a block nor the positions
        fields = GGUFReader(directory / name).fields
        config.n_inner = fields["gpt2.feed_forward_length"].contents()
        config.n_positions = fields["gpt2.context_length"].contents()
    made: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory, gguf_file=name, config=config, dtype=torch.float32, local_files_only=True
    )
    return made.eval()
