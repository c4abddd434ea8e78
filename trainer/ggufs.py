"""Writes decoders as GGUF, the file that llama.cpp, Ollama and LM Studio read. Imports torch, transformers and gguf."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "gpt2": gguf.MODEL_ARCH.GPT2}
FORMATS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
# How llama.cpp is told to part text before byte pairs are merged; it knows such rules by name only. Ours keeps numbers
# in threes and runs of letters as Llama 3's does, but cuts Chinese into runs of eight, which it has no rule for.
PRE_TOKENIZER = {"qwen2": "qwen2", "gpt2": "gpt-2", "llama": "llama-bpe"}
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # GPT-2's own layers hold columns where others have rows
BLOCK = 32  # values that q8_0 scales together


def write(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, quantization: str, name: str) -> None:
    """Write a model with its tokenizer. Raises ValueError for a tokenizer that is not byte-level BPE."""
    config = model.config
    model_type = str(config.model_type)
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[model_type]])
    writer.add_name(name)
    _add_sizes(writer, config)
    writer.add_file_type(FORMATS[quantization][1])
    _add_tokenizer(writer, tokenizer, model_type)
    names = gguf.get_tensor_name_map(ARCHITECTURES[model_type], int(config.num_hidden_layers))
    for key, tensor in _weights(model).items():
        found = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert found is not None, key
        values = _arranged(key, tensor, config).numpy()
        kind = _kind(values, quantization)
        writer.add_tensor(found, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """What the file holds: a tied head is the embedding again, and left out."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state = {key: tensor for key, tensor in state.items() if key != "lm_head.weight"}
    return {key: tensor.detach().float().cpu() for key, tensor in state.items()}


def _kind(values: "np.ndarray[Any, Any]", quantization: str) -> GGMLQuantizationType:
    """Vectors stay fp32, as llama.cpp wants them; rows that blocks do not divide keep half precision."""
    if values.ndim == 1 or quantization == "f32":
        return GGMLQuantizationType.F32
    if quantization == "q8_0" and values.shape[-1] % BLOCK:
        return GGMLQuantizationType.F16
    return FORMATS[quantization][0]


def _arranged(key: str, tensor: Tensor, config: Any) -> Tensor:
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


def _add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerFast, model_type: str) -> None:
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    if described["model"]["type"] != "BPE" or described["decoder"]["type"] != "ByteLevel":
        raise ValueError("its tokenizer is not byte-level BPE, the only kind that is written as GGUF here")
    special = {entry["id"] for entry in described["added_tokens"] if entry["special"]}
    added = {entry["id"]: entry["content"] for entry in described["added_tokens"]}
    by_number = {number: token for token, number in described["model"]["vocab"].items()} | added
    size = max(max(by_number) + 1, len(tokenizer))
    tokens = [by_number.get(number, f"[unused{number}]") for number in range(size)]
    kinds = [
        TokenType.CONTROL if number in special else TokenType.NORMAL if number in by_number else TokenType.UNUSED
        for number in range(size)
    ]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in described["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER[model_type])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(False)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(int(number))
    if tokenizer.chat_template:
        writer.add_chat_template(str(tokenizer.chat_template))


def read(directory: Path, name: str) -> PreTrainedModel:
    """The model in a GGUF file, as transformers reads it back."""
    config = AutoConfig.from_pretrained(directory, gguf_file=name, local_files_only=True)
    if config.model_type == "gpt2":  # whose width inside a block transformers does not read
        config.n_inner = GGUFReader(directory / name).fields["gpt2.feed_forward_length"].contents()
    made: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory, gguf_file=name, config=config, dtype=torch.float32, local_files_only=True
    )
    return made.eval()
