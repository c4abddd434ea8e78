"""The network that a run starts from: a base model or random weights, with adapters where the spec asks for them.
Imports torch and transformers.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from trainer import adapters, pretrained
from trainer.failure import Failure
from trainer.spec import TrainSpec


def start(
    spec: TrainSpec,
    base: Path | None,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    precision: str,
    say: Callable[[str], None],
) -> PreTrainedModel:
    """The model of a run before its first step: the same for the same spec on every rank.

    All weights are fp32, but such as adapters leave frozen have the precision that is computed in.
    """
    if base is None:
        return build(spec, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, device)
    torch.manual_seed(spec.seed)
    dtype = torch.bfloat16 if spec.tuning != "full" and precision == "bf16" else torch.float32
    model = pretrained.load(base, spec, device, dtype, say)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        needed = f"one of at most {model.get_input_embeddings().num_embeddings} tokens, as the base model has"
        raise Failure("tokenizer_mismatch", found=f"one of {len(tokenizer)} tokens", needed=needed)
    if spec.tuning != "full":
        adapters.attach(model, spec)
    return _checkpointed(model, spec)


def build(spec: TrainSpec, vocab_size: int, end_of_text: int, padding: int, device: torch.device) -> PreTrainedModel:
    """A model from scratch, in fp32 on the device."""
    torch.manual_seed(spec.seed)
    ids = {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": padding}
    with device:
        network = _llama if spec.model_type == "llama" else _gpt2
        model: PreTrainedModel = network(spec, vocab_size, ids)
    return _checkpointed(model, spec)


def _checkpointed(model: PreTrainedModel, spec: TrainSpec) -> PreTrainedModel:
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def _llama(spec: TrainSpec, vocab_size: int, ids: dict[str, int]) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_hidden_layers,
        num_attention_heads=spec.num_attention_heads,
        num_key_value_heads=spec.num_key_value_heads,
        max_position_embeddings=spec.sequence_length,
        tie_word_embeddings=spec.tie_word_embeddings,
        attn_implementation="sdpa",
        **ids,
    )
    return LlamaForCausalLM(config)


def _gpt2(spec: TrainSpec, vocab_size: int, ids: dict[str, int]) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=vocab_size,
        n_embd=spec.hidden_size,
        n_inner=spec.intermediate_size,
        n_layer=spec.num_hidden_layers,
        n_head=spec.num_attention_heads,
        n_positions=spec.sequence_length,
        tie_word_embeddings=spec.tie_word_embeddings,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        attn_implementation="sdpa",
        **ids,
    )
    return GPT2LMHeadModel(config)
