"""Verifies an export: its logits on fixed probe tokens must be those of the checkpoint. Imports torch."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from trainer.modeling import lora
from trainer.modeling.architectures import saved_class

GOLDEN = "golden.safetensors"  # probe tokens and the checkpoint's logits
GGUF_MODEL = "model.gguf"
ROPE_FREQUENCIES = "rope_freqs.weight"  # of a GGUF file: by what each frequency of the rotary positions is divided
PROBES, PROBE_TOKENS = 4, 32


def load(directory: Path) -> PreTrainedModel:
    """Load a checkpoint or base model in fp32 with the head that is saved with it, in evaluation mode."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    model: PreTrainedModel = saved_class(config).from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    return model.eval()


def probe_tokens(model: PreTrainedModel) -> dict[str, Tensor]:
    """Fixed model inputs of shape (PROBES, PROBE_TOKENS) or shorter, drawn uniformly from the whole vocabulary."""
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (PROBES, PROBE_TOKENS))
    positions = getattr(model.config, "max_position_embeddings", None) or PROBE_TOKENS
    ids = torch.from_numpy(tokens[:, : min(PROBE_TOKENS, max(1, positions - 4))]).contiguous()
    return {"input_ids": ids, **({"decoder_input_ids": ids.clone()} if model.config.is_encoder_decoder else {})}


@torch.no_grad()
def logits(model: nn.Module, probes: dict[str, Tensor]) -> Tensor:
    """The model's fp32 logits for probe tokens: (PROBES, tokens, vocabulary), of classifiers (PROBES, labels).

    Of a model without a head, its last hidden state: (PROBES, tokens, hidden size).
    """
    outputs: Tensor = model(**probes, attention_mask=torch.ones_like(probes["input_ids"]))[0]
    return outputs.float().contiguous()


def verify(directory: Path, form: str, base: Path | None) -> float:
    """The largest difference of an export's logits from its checkpoint's, relative to the largest logit.

    `form` is safetensors, adapter or gguf; `base` is the base model of an adapter. Raises ValueError if it is missing.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    probes = load_file(directory / GOLDEN)
    golden = probes.pop("logits")
    if form == "gguf":
        model: nn.Module = _load_gguf(directory)
    elif form == "adapter":
        if base is None:
            raise ValueError("an adapter needs its base model: give --base")
        model = lora.load_with_adapter(base, directory)
    else:
        model = load(directory)
    return float((logits(model, probes) - golden).abs().max() / golden.abs().max())


def _load_gguf(directory: Path) -> PreTrainedModel:
    """Load the model of a GGUF file with transformers."""
    config = AutoConfig.from_pretrained(directory, gguf_file=GGUF_MODEL, local_files_only=True)
    reader = GGUFReader(directory / GGUF_MODEL)
    fields = reader.fields
    if config.model_type == "gpt2":  # transformers reads neither the feed-forward size nor the context length
        config.n_inner = fields["gpt2.feed_forward_length"].contents()
        config.n_positions = fields["gpt2.context_length"].contents()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory, gguf_file=GGUF_MODEL, config=config, dtype=torch.float32, local_files_only=True
    )
    for tensor in reader.tensors:
        if tensor.name == ROPE_FREQUENCIES:  # which transformers does not read
            model.model.rotary_emb.inv_freq /= torch.from_numpy(tensor.data.copy())
    scaling = fields.get(f"{config.model_type}.rope.scaling.factor")
    if scaling is not None and config.rope_parameters["rope_type"] == "default":
        model.model.rotary_emb.inv_freq /= scaling.contents()
    return model.eval()
