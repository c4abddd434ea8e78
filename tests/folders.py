"""Tiny random models in Hugging Face layout for the tests of base models, as people save them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

VOCAB_SIZE = 300
CARD = "---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n"
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GPT2: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
T5: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}


def network(kind: str) -> PreTrainedModel:
    """A random model of a family."""
    torch.manual_seed(1)
    made: dict[str, Any] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=None)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
        "bert": lambda: BertModel(BertConfig(**SIZES)),
        "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**{**SIZES, "max_position_embeddings": 66})),
        "t5": lambda: T5ForConditionalGeneration(T5Config(**T5)),
    }
    return made[kind]()


@cache
def tokenizer(vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """Byte-level BPE."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|padding|>"]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(["In the beginning God created the heaven and the earth. " * 20], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=special[0], bos_token=special[0])


def saved(directory: Path, kind: str = "llama", **how: Any) -> Path:
    """A folder as `save_pretrained` leaves it; `how` goes there (max_shard_size)."""
    network(kind).save_pretrained(directory, **how)
    tokenizer().save_pretrained(directory)
    (directory / "README.md").write_text(CARD)
    return directory


def change(directory: Path, **fields: Any) -> None:
    """Change fields of config.json; None takes one away."""
    path = directory / "config.json"
    config = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def weights(directory: Path) -> dict[str, torch.Tensor]:
    """The tensors of model.safetensors."""
    return dict(load_file(directory / "model.safetensors"))


def rewrite(directory: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Save others in their place."""
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
