"""Training with PyTorch alone: one process, or several that average their gradients."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.engines.base import Engine
from trainer.engines.optimizers import MOMENTS, MOMENTUM, Muon, optimizers
from trainer.modeling.objectives import Objective
from trainer.spec import TrainSpec

BUCKET = 25_000_000  # values sent at a time


class TorchEngine(Engine):
    """Torch alone, where every rank holds everything: there DeepSpeed would only cost time.

    Weights are fp32; bf16 is autocast of the computation.
    """

    def __init__(self, spec: TrainSpec, objective: Objective, device: torch.device) -> None:
        super().__init__(spec, objective, device)
        self._optimizers = optimizers(spec, self.model)
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        objective.train()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _forward(self, tensors: dict[str, Tensor], *, is_first: bool) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            sums: Tensor = self.objective(**tensors)
            return sums

    def forward_loss(self, tensors: dict[str, Tensor]) -> Tensor:
        return self._forward(tensors, is_first=True)[0]

    def _backward(self, loss: Tensor, count: int) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def _update(self) -> float:
        if self.world_size > 1:
            self._add_gradients()
        limit = self.spec.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._trained, limit)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return norm.item()

    def _add_gradients(self) -> None:
        """Sum the ranks' gradients, a bucket at a time."""
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        for bucket in _buckets(gradients):
            together = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(together)
            parts = torch.split(together, [gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(to) for part, to in zip(parts, bucket, strict=True)])

    def gathered_parameters(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        return nullcontext()

    def _optimizer_of(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        return next(
            optimizer
            for optimizer in self._optimizers
            if any(parameter is other for group in optimizer.param_groups for other in group["params"])
        )

    def state_keys(self, parameter: nn.Parameter) -> tuple[str, ...]:
        return (MOMENTUM,) if isinstance(self._optimizer_of(parameter), Muon) else MOMENTS

    def get_optimizer_state(self, parameter: nn.Parameter, kind: str, is_mine: bool) -> Tensor | None:
        if not is_mine:
            return None
        state: Tensor | None = self._optimizer_of(parameter).state[parameter].get(kind)
        return torch.zeros_like(parameter) if state is None else state  # it never had a gradient

    def set_optimizer_state(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        self._optimizer_of(parameter).state[parameter][kind].copy_(value)

    def init_optimizer_state(self, num_updates: int) -> None:
        for parameter in self._trained:
            state = {kind: torch.zeros_like(parameter) for kind in self.state_keys(parameter)}
            if MOMENTUM not in state:  # AdamW counts its steps
                state["step"] = torch.tensor(float(num_updates), device=parameter.device)
            self._optimizer_of(parameter).state[parameter] = state


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel()
        if size >= BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
