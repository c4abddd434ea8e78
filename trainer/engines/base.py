"""Joins the ranks of a run; the interface of the engines that take optimizer steps, DeepSpeed's and torch's."""

import logging
import math
import os
import sys
import warnings
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any

# DeepSpeed looks for accelerators while it is imported: through NVML, so that a process that imported it may fork;
# without any it would warn, unless it is configured.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
import torch

if not torch.cuda.device_count():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
try:
    # Its autotuner, which nothing uses, would import MLflow: a quarter of the time that the imports of a rank take.
    _mlflow = sys.modules.get("mlflow")
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    import deepspeed
finally:
    del sys.modules["mlflow"]
    if _mlflow is not None:
        sys.modules["mlflow"] = _mlflow
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator, set_accelerator
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
from deepspeed.utils import logger
from torch import Tensor, nn

from trainer.data import batch as batches
from trainer.data.batch import Batch
from trainer.engines import process_group
from trainer.engines.optimizers import learning_rate
from trainer.failure import Failure, config_invalid
from trainer.modeling import cpu_matmul
from trainer.modeling.objectives import Objective
from trainer.spec import TrainSpec

MASTER = "master"  # the fp32 copy of a weight, next to the optimizer's moments


def init_process_group(kind: str) -> torch.device:
    """Join the other ranks by RANK, WORLD_SIZE and torchrun's other variables, and return the device.

    Raises Failure for several machines without a named interface.
    """
    # DeepSpeed would compile a shared-memory collective with g++ at its first use; gloo needs none. Giving the table
    # of usable compiled operations also spares the probe for compilers.
    deepspeed.ops.__compatible_ops__ = {}
    logger.setLevel(logging.WARNING)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # DeepSpeed's own calls
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Determinism needs no NaN written into every new buffer; DeepSpeed's have gigabytes.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    device = torch.device("cpu")
    if kind == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if kind == "cpu" and get_accelerator().device_name() != "cpu":
        set_accelerator(CPU_Accelerator())
    process_group.join(device)
    # It takes the group that exists.
    deepspeed.init_distributed("nccl" if kind == "cuda" else "gloo", timeout=process_group.TIMEOUT, verbose=False)
    return device


def precision(spec: TrainSpec, device: torch.device) -> str:
    """fp32 or bf16: `auto` takes bf16 where the GPU has it; a CPU emulates it hundreds of times slower."""
    if spec.precision != "auto":
        return spec.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


class Engine(ABC):
    """Takes optimizer steps on this rank's share of the samples, together with the other ranks."""

    holds_master = False  # whether an fp32 copy of the weights belongs to the optimizer's state

    def __init__(self, spec: TrainSpec, objective: Objective, device: torch.device) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        if self.world_size != spec.num_processes:
            raise config_invalid("num_processes", "processes", value=spec.num_processes, num_started=self.world_size)
        self.spec, self.device = spec, device
        self.objective, self.model = objective, objective.model
        self.precision = precision(spec, device)

    def split_micro_batches(self, batch: Batch, size: int | None = None) -> list[dict[str, Tensor]]:
        """This rank's micro-batches of a global batch, of `size` samples; by default the run's size."""
        size = size or self.spec.per_device_batch_size
        count = batches.num_rows(batch) // self.world_size
        local = batches.take_rows(batch, slice(self.rank * count, (self.rank + 1) * count))
        return [self._on_device(batches.take_rows(local, slice(at, at + size))) for at in range(0, count, size)]

    def _on_device(self, batch: Batch) -> dict[str, Tensor]:
        return {name: torch.from_numpy(values).to(self.device) for name, values in batch.items()}

    def step(
        self,
        number: int,
        micro_batches: list[dict[str, Tensor]],
        num_targets: float,
        is_stopping: bool,
        factor: float = 1.0,
    ) -> tuple[float, float, bool]:
        """Take optimizer step `number`. Returns loss and gradient norm over all ranks, and whether any is stopping.

        `num_targets` is that of the global batch, which divides the sum, so neither ranks nor accumulation change what
        is computed. `factor` multiplies the loss, for tests. Raises Failure if loss or gradient norm is not finite.
        """
        rate = learning_rate(self.spec, number)
        for group in self._groups():
            group["lr"] = rate
        losses: list[Tensor] = []
        for tensors in micro_batches:
            loss = self._forward(tensors, is_first=not losses)[0] / num_targets * factor
            losses.append(loss.detach())
            self._backward(loss, len(micro_batches))
        mean_loss, stops = self._over_ranks(torch.stack(losses).sum().item(), is_stopping)
        _require_finite("loss", mean_loss, number)
        norm = self._update()
        _require_finite("grad_norm", norm, number)
        return mean_loss, norm, stops

    def forward_loss(self, tensors: dict[str, Tensor]) -> Tensor:
        """The summed loss of a micro-batch in nats, a scalar, as a step computes it, but past DeepSpeed's counters."""
        loss_sum: Tensor = self.objective(**tensors)[0]
        return loss_sum

    def _over_ranks(self, loss: float, is_stopping: bool) -> tuple[float, bool]:
        if self.world_size == 1:
            return loss, is_stopping
        sums = torch.tensor([loss, float(is_stopping)], dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums[0].item(), sums[1].item() > 0

    @torch.no_grad()
    def evaluate_sums(self, micro_batches: list[dict[str, Tensor]]) -> list[float]:
        """The loss summed over all ranks, in nats, then the objective's other sums. Every rank must bring equally many
        micro-batches.
        """
        self.objective.eval()
        total = torch.zeros(1 + len(self.objective.metric_names), dtype=torch.float64, device=self.device)
        for tensors in micro_batches:
            total += self._forward(tensors, is_first=True).double()
        self.objective.train()
        if self.world_size > 1:
            dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    @property
    def device_name(self) -> str:
        """The device, in as much detail as decides the bits of a result."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return cpu_matmul.cpu_name(cpu_matmul.uses_onednn())

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(flags)
        return flags.item() > 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            dist.barrier()

    @abstractmethod
    def _groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups of parameters."""

    @abstractmethod
    def _forward(self, tensors: dict[str, Tensor], *, is_first: bool) -> Tensor:
        """The objective's output (1 + num_metrics,) for a micro-batch, which may be the first one of a step."""

    @abstractmethod
    def _backward(self, loss: Tensor, count: int) -> None:
        """Add the gradients of one micro-batch of `count`."""

    @abstractmethod
    def _update(self) -> float:
        """Update the weights by the gradients of all ranks. Returns the gradients' norm before clipping."""

    @abstractmethod
    def gathered_parameters(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        """Context in which every rank holds the full parameters."""

    @abstractmethod
    def state_keys(self, parameter: nn.Parameter) -> tuple[str, ...]:
        """Names of the tensors that the optimizer keeps for a trainable parameter."""

    @abstractmethod
    def get_optimizer_state(self, parameter: nn.Parameter, kind: str, is_mine: bool) -> Tensor | None:
        """The full tensor `kind` of a parameter's optimizer state, on ranks that set `is_mine`. All ranks take part."""

    @abstractmethod
    def set_optimizer_state(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        """Restore the full tensor `kind` of a parameter's optimizer state, which `init_optimizer_state` created."""

    @abstractmethod
    def init_optimizer_state(self, num_updates: int) -> None:
        """Create the state that the optimizer would create at its first step, with `num_updates` steps counted."""

    def link_state(self) -> None:  # noqa: B027 - most have nothing to do
        """Called before optimizer state is read or written."""


def _require_finite(series: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise Failure("nan_loss", series=series, value=str(value), step=step)
