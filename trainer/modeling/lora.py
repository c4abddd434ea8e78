"""LoRA (Hu et al. 2021, arXiv:2106.09685): low-rank adapters that train next to frozen weights, by peft. Imports torch
and peft.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trainer.spec import TrainSpec

DIRECTORY = "adapter"  # in a checkpoint, next to the merged weights
WEIGHTS = "adapter_model.safetensors"
NAME = "default"  # peft's own name of the only adapter of a model
IN_A_BLOCK = re.compile(r".*\.\d+\..*")
TASKS = {"classification": "SEQ_CLS", "seq2seq": "SEQ_2_SEQ_LM", "span_corruption": "SEQ_2_SEQ_LM", "masked": None}
HEADS = ("score", "classifier")  # of a classifier, by family: trained in full


def add_lora(model: PreTrainedModel, spec: TrainSpec) -> None:
    """Freeze a model and add adapters to every linear layer of its blocks. A new head is trained in full."""
    heads = [
        name
        for name, parameter in model.named_parameters()
        if getattr(parameter, "is_new", False) or (spec.objective == "classification" and name.split(".")[0] in HEADS)
    ]
    inject_adapter_in_model(_config(model, spec), model)
    # peft would add a copy of such a head. Here it is trained in place; peft copies it only on loading the adapter.
    model.peft_config[NAME].modules_to_save = sorted({name.rpartition(".")[0] for name in heads}) or None
    for name, parameter in model.named_parameters():
        if name in heads:
            parameter.requires_grad_(True)


def _config(model: PreTrainedModel, spec: TrainSpec) -> LoraConfig:
    inner = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and IN_A_BLOCK.fullmatch(name)
    }
    return LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=rf".*\.\d+\.(.*\.)?({'|'.join(sorted(inner))})",
        fan_in_fan_out=spec.model_type == "gpt2",
        task_type=TASKS.get(spec.objective, "CAUSAL_LM"),
    )


def has_lora(model: nn.Module) -> bool:
    """Whether a model trains adapters."""
    return hasattr(model, "peft_config")


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Context in which the model computes without adapters. Which parameters train does not change."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer._disable_adapters = True  # peft's own switch would also set what needs a gradient
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


@dataclass(frozen=True)
class MergedWeight:
    """A weight of a checkpoint: its name without adapters, and its value, computed from these parameters."""

    name: str
    parameters: list[nn.Parameter]
    value: Callable[[], Tensor]


def merged_weights(model: nn.Module) -> Iterator[MergedWeight]:
    """All weights of a model with its adapters merged: W + scale * B @ A. The model itself does not change."""
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        place, _, kind = name.rpartition(".")
        layer = modules[place.removesuffix(".base_layer")] if place.endswith(".base_layer") else None
        if ".lora_" in name:
            continue
        if not isinstance(layer, LoraLayer):
            yield MergedWeight(name, [parameter], parameter.detach)
        elif kind == "weight":
            beside = [layer.lora_A[NAME].weight, layer.lora_B[NAME].weight]
            yield MergedWeight(_plain(name), [parameter, *beside], lambda layer=layer: _sum(layer))  # type: ignore[misc]
        else:
            yield MergedWeight(_plain(name), [parameter], parameter.detach)


@torch.no_grad()
def _sum(layer: LoraLayer) -> Tensor:
    """In fp32, then rounded once, on the CPU: a GPU that holds the model need not hold its merged weights, too."""
    frozen = dequantize_module_weight(layer.get_base_layer())
    total = frozen.float() + layer.get_delta_weight(NAME).float()
    rounded: Tensor = total.to("cpu", frozen.dtype)
    return rounded


def _plain(name: str) -> str:
    return name.replace(".base_layer.", ".")


def key(name: str) -> str:
    """What peft calls a trained parameter in the file of an adapter."""
    return "base_model.model." + name.replace(f".{NAME}.", ".")


def trainable_parameters(model: nn.Module) -> Iterator[MergedWeight]:
    """What trains, by the names of an adapter's file."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield MergedWeight(key(name), [parameter], parameter.detach)


def save(model: PreTrainedModel, weights: dict[str, Tensor], directory: Path) -> None:
    """Write an adapter as peft opens it: gathered weights by name, and how they are used."""
    directory.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, directory / WEIGHTS, {"format": "pt"})
    replace(model.peft_config[NAME], inference_mode=True).save_pretrained(directory)


def load_with_adapter(base: Path, directory: Path) -> nn.Module:
    """A base model with the adapter of an export, loaded by peft. The export's configuration describes the network
    and its labels.
    """
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    model = getattr(transformers, config.architectures[0]).from_pretrained(
        base,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # of a head for other labels, which the adapter replaces
    )
    adapted: nn.Module = PeftModel.from_pretrained(model, directory)
    return adapted.eval()


def add_saved_adapter(model: PreTrainedModel, directory: Path) -> None:
    """Put the adapter of a checkpoint next to the weights of its base, which stay as they are.

    Raises ValueError if it does not fit them.
    """
    config = LoraConfig.from_pretrained(str(directory))
    inject_adapter_in_model(config, model, low_cpu_mem_usage=True)
    placed = set_peft_model_state_dict(model, load_file(directory / WEIGHTS), low_cpu_mem_usage=True)
    misfits = [*placed.unexpected_keys, *(name for name in placed.missing_keys if ".lora_" in name)]
    if misfits:
        raise ValueError(f"the adapter does not fit the model at {misfits[0]}")
