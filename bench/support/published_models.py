"""Tiny base models with random weights, laid out as their authors publish them: tokenizer, configuration, template."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.trainer.tokenizers_of_bases import CHAT_TOKENS, byte_fallback, byte_level, unigram, word_piece
from trainer.export.gguf_tokenizer import PRE_TOKENIZERS

CONTEXT = 128
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
LLAMA_3_TOKENS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "<|reserved_special_token_0|>",
)
LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3_TEMPLATE = (
    "{% for m in messages %}{% set turn = '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim "
    "+ '<|eot_id|>' %}{{ bos_token + turn if loop.first else turn }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class PublishedModel:
    """A base model as it is published: its tokenizer with its settings, and what makes its network."""

    tokenizer: Callable[[], Tokenizer]
    settings: Mapping[str, Any]  # of tokenizer_config.json
    network: Callable[[int, dict[str, Any]], PreTrainedModel]  # of the size of the vocabulary and the ids of its tokens
    config: Mapping[str, Any] | None = None  # what its config.json says in another way than transformers 5 writes

    def write(self, directory: Path) -> Path:
        """Write its folder."""
        tokenizer = self.tokenizer()
        torch.manual_seed(0)
        names = (name for name in ("bos_token", "eos_token", "pad_token") if name in self.settings)
        ids = {f"{name}_id": tokenizer.token_to_id(self.settings[name]) for name in names}
        # Embeddings are padded to a round number, as many are.
        self.network(-(-max(tokenizer.get_vocab_size(), 260) // 64) * 64, ids).save_pretrained(directory)
        path = directory / "config.json"
        config = {**json.loads(path.read_text()), **(self.config or {})}
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}, indent=2))
        tokenizer.save(str(directory / "tokenizer.json"))
        settings = {"clean_up_tokenization_spaces": False, "model_max_length": CONTEXT, **self.settings}
        (directory / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=2))
        return directory


def _llama_3_tokenizer() -> Tokenizer:
    tokenizer = byte_level(LLAMA_3_TOKENS, 420)
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS["llama-bpe"]]
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, plain])
    tokenizer.model.ignore_merges = True
    start = LLAMA_3_TOKENS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.token_to_id(start))]
    )
    return tokenizer


def _qwen_tokenizer() -> Tokenizer:
    tokenizer, own = byte_level(("<|endoftext|>", *CHAT_TOKENS), 420), Qwen2Tokenizer().backend_tokenizer
    tokenizer.normalizer, tokenizer.pre_tokenizer = own.normalizer, own.pre_tokenizer
    return tokenizer


def _t5_tokenizer() -> Tokenizer:
    return unigram(("<pad>", "</s>"))


def _llama(rope: dict[str, Any] | None = None) -> Callable[[int, dict[str, Any]], PreTrainedModel]:
    def network(vocab_size: int, ids: dict[str, Any]) -> PreTrainedModel:
        config = LlamaConfig(vocab_size=vocab_size, num_key_value_heads=2, rope_parameters=rope, **SIZES, **ids)
        return LlamaForCausalLM(config)

    return network


def _mistral(vocab_size: int, ids: dict[str, Any]) -> PreTrainedModel:
    config = MistralConfig(vocab_size=vocab_size, num_key_value_heads=2, sliding_window=None, **SIZES, **ids)
    return MistralForCausalLM(config)


def _qwen2(vocab_size: int, ids: dict[str, Any]) -> PreTrainedModel:
    more = {"tie_word_embeddings": True, "bos_token_id": ids["eos_token_id"]}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocab_size, num_key_value_heads=2, **SIZES, **more, **ids))


def _gpt2(vocab_size: int, ids: dict[str, Any]) -> PreTrainedModel:
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **sizes, **ids))


def _bert(vocab_size: int, ids: dict[str, Any]) -> PreTrainedModel:
    return BertForMaskedLM(BertConfig(vocab_size=vocab_size, **SIZES, **ids))


def _t5(vocab_size: int, ids: dict[str, Any]) -> PreTrainedModel:
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    more = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    more |= {"decoder_start_token_id": ids["pad_token_id"]}
    return T5ForConditionalGeneration(T5Config(vocab_size=vocab_size, **sizes, **more, **ids))


def _old_rope(rope: dict[str, Any]) -> dict[str, Any]:
    """The keys of config.json that transformers 4 writes for rotary positions."""
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    return {"rope_theta": rope["rope_theta"], "rope_scaling": scaling, "rope_parameters": None}


_SPM = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "legacy": False}
MODELS = {
    "Llama 2": PublishedModel(byte_fallback, {"tokenizer_class": "LlamaTokenizer", **_SPM}, _llama()),
    "Llama 3": PublishedModel(
        _llama_3_tokenizer,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": LLAMA_3_TOKENS[0],
            "eos_token": LLAMA_3_TOKENS[1],
            "chat_template": LLAMA_3_TEMPLATE,
        },
        _llama(LLAMA_3_ROPE),
        _old_rope(LLAMA_3_ROPE),
    ),
    "Qwen2": PublishedModel(
        _qwen_tokenizer,
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "additional_special_tokens": list(CHAT_TOKENS),
            "chat_template": CHATML,
        },
        _qwen2,
    ),
    "Mistral": PublishedModel(
        byte_fallback,
        {"tokenizer_class": "LlamaTokenizer", **_SPM, "chat_template": MISTRAL_TEMPLATE},
        _mistral,
    ),
    "GPT-2": PublishedModel(
        lambda: byte_level(("<|endoftext|>",)),
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        _gpt2,
    ),
    "BERT": PublishedModel(
        word_piece,
        {
            "tokenizer_class": "BertTokenizer",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
            "unk_token": "[UNK]",
        },
        _bert,
    ),
    "T5": PublishedModel(
        _t5_tokenizer,
        {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
        _t5,
    ),
}
