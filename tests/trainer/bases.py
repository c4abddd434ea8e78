"""Base models for tests: random weights and a tokenizer in Hugging Face layout."""

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Fast

from tests.trainer.runs import english, small_spec, write_corpus
from trainer.data import tokenizer
from trainer.inference.generation import LoadedModel
from trainer.modeling.build import build_model
from trainer.run_dir import RunDir


def make_base(directory: Path, model_type: str, tokenizer_path: Path, max_shard_size: str = "5GB") -> Path:
    """Write a base model with the sizes of `runs.SMALL`."""
    tokenizer = Fast.from_pretrained(tokenizer_path)
    torch.manual_seed(1)
    model = {"llama": _llama, "gpt2": _gpt2}[model_type](len(tokenizer))
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(directory)
    return directory


def random_checkpoint(home: Path, model_type: str, objective: str, **fields: Any) -> tuple[Path, LoadedModel]:
    """A checkpoint of random weights as a job writes it, with some fields of the small spec replaced."""
    source = write_corpus(home / "corpus", [english(20_000)])
    directory = tokenizer.train_cached([source], 400, home / "cache", lambda done, total: None, model_type)
    hf_tokenizer = tokenizer.PreTrainedTokenizerFast.from_pretrained(directory)
    spec = small_spec(objective=objective, model_type=model_type, num_key_value_heads=4, **fields)
    labels = ("no", "yes", "maybe") if objective == "classification" else ()
    model = build_model(spec, None, hf_tokenizer, labels, torch.device("cpu"), "fp32", lambda line: None)
    model.save_pretrained(home / "out")
    tokenizer.save_pretrained(hf_tokenizer, home / "out")
    return home / "out", LoadedModel(model.eval(), hf_tokenizer)


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
