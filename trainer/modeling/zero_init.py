"""Weights that no device holds whole: the first rank makes them in the machine's memory, and every rank gets its share
of one after the other. Imports torch.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn

from trainer.spec import TrainSpec


def init_device(spec: TrainSpec, device: torch.device) -> torch.device:
    """Where a rank makes its model. Where ZeRO shards weights only the first rank has values, until all get theirs."""
    if spec.zero_stage < 3:
        return device
    return torch.device("cpu" if dist.get_rank() == 0 else "meta")


def broadcast_from_rank0(names: list[str] | None) -> list[str]:
    """What the first rank says, on every rank."""
    said = [names]
    dist.broadcast_object_list(said)
    assert said[0] is not None
    return said[0]


class LazyParameters(nn.Module):
    """Parameters that get room only when they are asked for: DeepSpeed shards each before it asks for the next."""

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._inner, self._device, self._dtype = module, device, dtype

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Each once, on the device."""
        for parameter in self._inner.parameters(recurse):
            if parameter.is_meta:
                room = torch.empty_like(parameter, device=self._device, dtype=self._dtype)
                # Modules that share a parameter go on sharing it.
                made = nn.Parameter(room, requires_grad=parameter.requires_grad)
                torch.utils.swap_tensors(parameter, made)  # type: ignore[no-untyped-call]
            else:
                parameter.data = parameter.data.to(self._device, self._dtype)
            yield parameter


def share_buffers(module: nn.Module, device: torch.device) -> None:
    """Give every rank all of the first one's buffers. All ranks take part."""
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            whole = torch.empty_like(buffer, device=device) if buffer.is_meta else buffer.to(device)
            dist.broadcast(whole, 0)
            setattr(owner, name, whole)
