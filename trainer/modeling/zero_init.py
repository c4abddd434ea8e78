"""Initialization under ZeRO-3, for weights that no single device can hold: the first rank creates them in host memory,
and DeepSpeed shards one after the other. Imports torch.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn

from trainer.spec import TrainSpec


def init_device(spec: TrainSpec, device: torch.device) -> torch.device:
    """The device that a rank creates its model on: under ZeRO-3 the first rank's host memory, `meta` on all others."""
    if spec.zero_stage < 3:
        return device
    return torch.device("cpu" if dist.get_rank() == 0 else "meta")


class LazyParameters(nn.Module):
    """Allocates each parameter only when it is iterated over: DeepSpeed shards one before it requests the next."""

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._inner, self._device, self._dtype = module, device, dtype

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Each parameter once, allocated on the device."""
        for parameter in self._inner.parameters(recurse):
            if parameter.is_meta:
                room = torch.empty_like(parameter, device=self._device, dtype=self._dtype)
                # Modules that share a parameter keep sharing it.
                allocated = nn.Parameter(room, requires_grad=parameter.requires_grad)
                torch.utils.swap_tensors(parameter, allocated)  # type: ignore[no-untyped-call]
            else:
                parameter.data = parameter.data.to(self._device, self._dtype)
            yield parameter


def share_buffers(module: nn.Module, device: torch.device) -> None:
    """Broadcast the first rank's buffers to every rank. All ranks take part."""
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            full = torch.empty_like(buffer, device=device) if buffer.is_meta else buffer.to(device)
            dist.broadcast(full, 0)
            setattr(owner, name, full)
