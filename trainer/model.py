"""Builds the network of a spec from scratch. Imports torch and transformers."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from trainer import networks
from trainer.spec import TrainSpec


def build(
    spec: TrainSpec,
    vocab_size: int,
    end_of_text: int,
    padding: int,
    device: torch.device,
    labels: Sequence[str] = (),
) -> PreTrainedModel:
    """A freshly initialized model in fp32 on the device: the same for the same spec on every rank."""
    torch.manual_seed(spec.seed)
    ids = {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": padding}
    with device:
        model = networks.create(spec, vocab_size, ids, labels)
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model
