"""The model that a run starts from: a base model or random weights, with adapters where the spec asks for them.
Imports torch and transformers.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from trainer.data.chat_template import set_stop_tokens
from trainer.data.tokenizer import document_separator_id, old_pieces, open_base
from trainer.failure import Failure
from trainer.modeling import architectures, lora, pretrained, vocabulary, zero_init
from trainer.modeling.fused_ops import use_fused_ops
from trainer.spec import TrainSpec


def build_model(
    spec: TrainSpec,
    base: Path | None,
    tokenizer: PreTrainedTokenizerFast,
    labels: Sequence[str],
    device: torch.device,
    precision: str,
    say: Callable[[str], None],
) -> PreTrainedModel:
    """The model of a run before its first step: the same for the same spec on every rank. `labels` are its classes.

    Weights are fp32, but those that LoRA freezes have the run's precision. Under ZeRO-3 they are on no device yet.
    Raises Failure where the base model does not match spec and tokenizer.
    """
    device = zero_init.init_device(spec, device)
    if base is None:
        end_of_text, padding = document_separator_id(tokenizer), int(tokenizer.pad_token_id)
        model = init_model(spec, len(tokenizer), end_of_text, padding, device, labels)
    else:
        model = _load_base(spec, base, tokenizer, labels, device, precision, say)
    set_stop_tokens(model, tokenizer)
    return model


def _load_base(
    spec: TrainSpec,
    base: Path,
    tokenizer: PreTrainedTokenizerFast,
    labels: Sequence[str],
    device: torch.device,
    precision: str,
    say: Callable[[str], None],
) -> PreTrainedModel:
    torch.manual_seed(spec.seed)
    dtype = torch.bfloat16 if spec.tuning != "full" and precision == "bf16" else torch.float32
    model = pretrained.load(base, spec, device, dtype, say, labels)
    if spec.new_tokens:
        pieces = old_pieces(open_base(base), spec.new_tokens)
        vocabulary.add_tokens(model, dict(zip(tokenizer.convert_tokens_to_ids(spec.new_tokens), pieces, strict=True)))
        say(f"{len(pieces)} new tokens start as the means of {sum(map(len, pieces))} old ones")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        needed = f"one of at most {model.get_input_embeddings().num_embeddings} tokens, as the base model has"
        raise Failure("tokenizer_mismatch", found=f"one of {len(tokenizer)} tokens", needed=needed)
    if spec.objective == "classification" or model.config.pad_token_id is None:
        # A classifier looks for the last token before the padding, which is the tokenizer's in every program.
        model.config.pad_token_id = tokenizer.pad_token_id
    if spec.tuning != "full":
        lora.add_lora(model, spec)
    return _ready(model, spec)


def init_model(
    spec: TrainSpec,
    vocab_size: int,
    end_of_text: int,
    padding: int,
    device: torch.device,
    labels: Sequence[str] = (),
) -> PreTrainedModel:
    """A model with random weights from the spec's seed, in fp32 on the device."""
    torch.manual_seed(spec.seed)
    ids = {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": padding}
    with device:
        model = architectures.create_config(spec, vocab_size, ids, labels)
    return _ready(model, spec)


def _ready(model: PreTrainedModel, spec: TrainSpec) -> PreTrainedModel:
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return use_fused_ops(model)
