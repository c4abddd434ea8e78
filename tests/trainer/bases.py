"""Base models for tests: random weights and a tokenizer in Hugging Face layout."""

from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Fast

from trainer.run_dir import RunDir


def make_base(directory: Path, model_type: str, tokenizer_path: Path, max_shard_size: str = "5GB") -> Path:
    """Write a base model with the sizes of `runs.SMALL`."""
    tokenizer = Fast.from_pretrained(tokenizer_path)
    torch.manual_seed(1)
    model = {"llama": _llama, "gpt2": _gpt2}[model_type](len(tokenizer))
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(directory)
    return directory


def start_from(run_dir: RunDir, base: Path, **fields: object) -> RunDir:
    """Make attempt 1 of a run start from a base model."""
    inputs = run_dir.inputs(1).model_copy(update={"base": str(base), **fields})
    run_dir.create(run_dir.spec(), inputs, fence=1)
    return run_dir


def _llama(vocab_size: int) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
        )
    )


def _gpt2(vocab_size: int) -> PreTrainedModel:
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab_size, n_embd=64, n_inner=128, n_layer=2, n_head=4, n_positions=64, **ids)
    )
