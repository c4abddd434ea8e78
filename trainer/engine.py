"""Joins the ranks of a run and turns a spec into an engine that takes optimizer steps: DeepSpeed's or a plain one."""

import logging
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

# DeepSpeed looks for accelerators while it is imported: through NVML, so that a process that imported it may fork;
# and where there is none it would warn, unless it is told.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
import torch

if not torch.cuda.device_count():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator, set_accelerator
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
from deepspeed.runtime.zero import register_external_parameter
from deepspeed.utils import (
    logger,
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer import batch as batches
from trainer import products
from trainer.batch import Batch
from trainer.failure import Failure
from trainer.objectives import Objective
from trainer.optimizers import MOMENTS, MOMENTUM, Muon, adamw, learning_rate, optimizers
from trainer.quick import has_plain_head, head_of
from trainer.sharding import OneByOne, share_buffers
from trainer.spec import TrainSpec

MAX_BUCKET = 500_000_000  # values sent at a time, DeepSpeed's own; it allocates them whatever the size of the model
BUCKET = 25_000_000  # values that the plain engine sends at a time
MASTER = "master"  # the fp32 copy of a weight, beside the optimizer's moments
TIMEOUT = timedelta(minutes=30)  # a rank may wait for another to write a large checkpoint


def join(kind: str) -> torch.device:
    """Join the other ranks, as RANK, WORLD_SIZE and the others of torchrun's variables say, and return the device."""
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
    deepspeed.init_distributed("nccl" if kind == "cuda" else "gloo", timeout=TIMEOUT, verbose=False)
    return device


def precision(spec: TrainSpec, device: torch.device) -> str:
    """fp32 or bf16: `auto` takes bf16 where the GPU has it; a CPU emulates it hundreds of times slower."""
    if spec.precision != "auto":
        return spec.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


class Engine(ABC):
    """Takes optimizer steps on this rank's share of the samples, together with the other ranks."""

    holds_master = False  # whether an fp32 copy of the weights belongs to the optimizer's state

    def __init__(
        self, spec: TrainSpec, objective: Objective, device: torch.device, per_device_batch_size: int | None = None
    ) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        if self.world_size != spec.num_processes:
            why = f"is {spec.num_processes}, but {self.world_size} started; see torchrun --nproc-per-node"
            raise Failure("config_invalid", field="num_processes", why=why)
        self.spec, self.device = spec, device
        self.objective, self.model = objective, objective.model
        self.per_device_batch_size = per_device_batch_size or spec.per_device_batch_size
        self.precision = precision(spec, device)

    def share(self, batch: Batch, size: int | None = None) -> list[dict[str, Tensor]]:
        """This rank's micro-batches of a global batch, of `size` samples where they are not to be the run's own."""
        size = size or self.per_device_batch_size
        count = batches.num_rows(batch) // self.world_size
        mine = batches.rows(batch, slice(self.rank * count, (self.rank + 1) * count))
        return [self._on_device(batches.rows(mine, slice(at, at + size))) for at in range(0, count, size)]

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
        is computed. Raises Failure if either is not finite. `factor` spoils the loss, for tests.
        """
        rate = learning_rate(self.spec, number)
        for group in self._groups():
            group["lr"] = rate
        parts: list[Tensor] = []
        for tensors in micro_batches:
            nats = self._forward(tensors, is_first=not parts)[0] / num_targets * factor
            parts.append(nats.detach())
            self._backward(nats, len(micro_batches))
        loss, stops = self._over_ranks(torch.stack(parts).sum().item(), is_stopping)
        _require_finite("loss", loss, number)
        norm = self._update()
        _require_finite("grad_norm", norm, number)
        return loss, norm, stops

    def compute(self, tensors: dict[str, Tensor]) -> Tensor:
        """The summed loss of a micro-batch as a step computes it, of which DeepSpeed hears nothing."""
        nats: Tensor = self.objective(**tensors)[0]
        return nats

    def _over_ranks(self, loss: float, is_stopping: bool) -> tuple[float, bool]:
        if self.world_size == 1:
            return loss, is_stopping
        sums = torch.tensor([loss, float(is_stopping)], dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums[0].item(), sums[1].item() > 0

    @torch.no_grad()
    def sums(self, micro_batches: list[dict[str, Tensor]]) -> list[float]:
        """The summed loss over all ranks and what else the objective counts. Every rank must bring equally many."""
        self.objective.eval()
        total = torch.zeros(1 + len(self.objective.counted), dtype=torch.float64, device=self.device)
        for tensors in micro_batches:
            total += self._forward(tensors, is_first=True).double()
        self.objective.train()
        if self.world_size > 1:
            dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    @property
    def device_name(self) -> str:
        """What computes, as far as it decides the bits of a result."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu {torch.backends.cpu.get_cpu_capability()}{' oneDNN' if products.has_faster() else ''}"

    def any(self, flag: bool) -> bool:
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
        """What the objective gives for a micro-batch, which may be the first one of a step."""

    @abstractmethod
    def _backward(self, nats: Tensor, count: int) -> None:
        """Add the gradients of one micro-batch of `count`."""

    @abstractmethod
    def _update(self) -> float:
        """Change the weights by the gradients of all ranks. Returns the norm they had before they were clipped."""

    @abstractmethod
    def whole(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        """Within it the parameters are whole on every rank."""

    @abstractmethod
    def kinds(self, parameter: nn.Parameter) -> tuple[str, ...]:
        """What the optimizer's state holds of a parameter that trains."""

    @abstractmethod
    def state_of(self, parameter: nn.Parameter, kind: str, is_mine: bool) -> Tensor | None:
        """That, whole, where this rank asks for it. All ranks take part."""

    @abstractmethod
    def put_state(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        """Put it back; there must be room."""

    @abstractmethod
    def make_room(self, num_updates: int) -> None:
        """Make the state that the optimizer would make at its first step, as if it had taken so many."""

    def link_state(self) -> None:  # noqa: B027 - most have nothing to do
        """Called before state is read or put."""


def _require_finite(series: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise Failure("nan_loss", series=series, value=str(value), step=step)


class PlainEngine(Engine):
    """Torch by itself, where every rank holds everything: there DeepSpeed would only cost time.

    Weights are fp32; under bf16 only what is computed with them is not.
    """

    def __init__(
        self, spec: TrainSpec, objective: Objective, device: torch.device, per_device_batch_size: int | None = None
    ) -> None:
        super().__init__(spec, objective, device, per_device_batch_size)
        self._optimizers = optimizers(spec, self.model)
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        objective.train()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _forward(self, tensors: dict[str, Tensor], *, is_first: bool) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            found: Tensor = self.objective(**tensors)
            return found

    def compute(self, tensors: dict[str, Tensor]) -> Tensor:
        return self._forward(tensors, is_first=True)[0]

    def _backward(self, nats: Tensor, count: int) -> None:
        nats.backward()  # type: ignore[no-untyped-call]

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
        """Add up what the ranks found, a bucket at a time."""
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        for bucket in _buckets(gradients):
            together = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(together)
            parts = torch.split(together, [gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(to) for part, to in zip(parts, bucket, strict=True)])

    def whole(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        return nullcontext()

    def _optimizer_of(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        return next(
            optimizer
            for optimizer in self._optimizers
            if any(parameter is held for group in optimizer.param_groups for held in group["params"])
        )

    def kinds(self, parameter: nn.Parameter) -> tuple[str, ...]:
        return (MOMENTUM,) if isinstance(self._optimizer_of(parameter), Muon) else MOMENTS

    def state_of(self, parameter: nn.Parameter, kind: str, is_mine: bool) -> Tensor | None:
        if not is_mine:
            return None
        found: Tensor | None = self._optimizer_of(parameter).state[parameter].get(kind)
        return torch.zeros_like(parameter) if found is None else found  # it never had a gradient

    def put_state(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        self._optimizer_of(parameter).state[parameter][kind].copy_(value)

    def make_room(self, num_updates: int) -> None:
        for parameter in self._trained:
            made = {kind: torch.zeros_like(parameter) for kind in self.kinds(parameter)}
            if MOMENTUM not in made:  # AdamW counts its steps
                made["step"] = torch.tensor(float(num_updates), device=parameter.device)
            self._optimizer_of(parameter).state[parameter] = made


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


class DeepSpeedEngine(Engine):
    """DeepSpeed: shards what the ranks hold, keeps it in the machine's memory, trains in bf16 beside fp32 weights."""

    def __init__(
        self, spec: TrainSpec, objective: Objective, device: torch.device, per_device_batch_size: int | None = None
    ) -> None:
        super().__init__(spec, objective, device, per_device_batch_size)
        self.holds_master = self.precision == "bf16"
        config = self._config()
        if spec.zero_stage == 3:
            self._shard(config)
        optimizer = adamw(spec, [parameter for parameter in objective.parameters() if parameter.requires_grad])
        self._deepspeed, *_ = deepspeed.initialize(model=objective, optimizer=optimizer, config=config)

    def _shard(self, config: dict[str, Any]) -> None:
        """Leave of each weight a share on each rank, before DeepSpeed would take all of them to the device."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        deepspeed.zero.Init(module=OneByOne(self.objective, self.device, dtype), config_dict_or_path=config)
        share_buffers(self.objective, self.device)
        for model in self.objective.children():
            if isinstance(model, PreTrainedModel) and has_plain_head(model):  # its matrix is used past its module
                register_external_parameter(self.objective, head_of(model))

    def _config(self) -> dict[str, Any]:
        bucket = min(MAX_BUCKET, sum(p.numel() for p in self.model.parameters() if p.requires_grad))
        zero: dict[str, Any] = {
            # Without stages DeepSpeed shows nobody the master weights of bf16, so none could be saved.
            "stage": max(1, self.spec.zero_stage),
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            # Copied together they travel better; one process sends none.
            "contiguous_gradients": self.world_size > 1 or self.spec.offload_optimizer,
        }
        if self.spec.offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": self.device.type == "cuda"}
        if self.spec.offload_parameters:
            zero["offload_param"] = {"device": "cpu", "pin_memory": self.device.type == "cuda"}
        return {
            "train_batch_size": self.spec.train_batch_size,
            "train_micro_batch_size_per_gpu": self.per_device_batch_size,
            "gradient_accumulation_steps": self.spec.train_batch_size // self.world_size // self.per_device_batch_size,
            "gradient_clipping": self.spec.max_grad_norm,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,  # its own AdamW would want a compiler
            "bf16": {"enabled": self.precision == "bf16"},
            "steps_per_print": 2**62,
        }

    def _groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self._deepspeed.optimizer.param_groups
        return groups

    def _forward(self, tensors: dict[str, Tensor], *, is_first: bool) -> Tensor:
        if not is_first:
            self._deepspeed.step()  # counts the micro-batch before; no more than that
        found: Tensor = self._deepspeed(**tensors)
        return found

    def _backward(self, nats: Tensor, count: int) -> None:
        self._deepspeed.backward(nats * (count * self.world_size))  # it takes the mean over micro-batches and ranks

    def _update(self) -> float:
        self._deepspeed.step()
        return float(self._deepspeed.get_global_grad_norm())

    def whole(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        if self.spec.zero_stage < 3:
            return nullcontext()
        gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters)
        return gathered

    def kinds(self, parameter: nn.Parameter) -> tuple[str, ...]:
        return (*MOMENTS, MASTER) if self.holds_master else MOMENTS

    def state_of(self, parameter: nn.Parameter, kind: str, is_mine: bool) -> Tensor | None:
        master = kind == MASTER
        found = safe_get_full_fp32_param(parameter) if master else safe_get_full_optimizer_state(parameter, kind)
        return None if found is None else torch.as_tensor(found)

    def put_state(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        if self.spec.zero_stage == 3:
            part = _part(value, parameter.ds_tensor.numel(), self.rank)  # type: ignore[attr-defined]
            if kind == MASTER:
                safe_set_local_fp32_param(parameter, part)
            else:
                safe_set_local_optimizer_state(parameter, part, kind)
        elif kind == MASTER:
            safe_set_full_fp32_param(parameter, value.to(parameter.device))
        else:
            safe_set_full_optimizer_state(parameter, value.to(parameter.device), kind)

    def make_room(self, num_updates: int) -> None:
        wrapper = self._deepspeed.optimizer
        optimizer = wrapper.optimizer  # torch's own
        groups = optimizer.param_groups
        held = [tensor for group in groups for tensor in group["params"]]
        # The tensors that it steps are flat parts of the parameters.
        for tensor in wrapper.fp32_partitioned_groups_flat if self.spec.zero_stage == 3 else held:
            moments: dict[str, Any] = {kind: torch.zeros_like(tensor) for kind in MOMENTS}
            optimizer.state[tensor] = {"step": torch.tensor(float(num_updates), device=tensor.device), **moments}
        self.link_state()

    def link_state(self) -> None:
        """Let DeepSpeed find the moments by parameter: itself it does so when only the first group has any."""
        wrapper = self._deepspeed.optimizer
        if hasattr(wrapper, "_hp_optimizer_states_linked"):
            wrapper._hp_optimizer_states_linked = False
            wrapper._lazy_init_hp_params_optimizer_state()


def _part(value: Tensor, size: int, rank: int) -> Tensor:
    """What a rank holds of a tensor: equally many values each, the last ones padded with zeros."""
    part = value.flatten()[rank * size : (rank + 1) * size]
    return torch.nn.functional.pad(part, (0, size - part.numel()))


def make_engine(
    spec: TrainSpec, objective: Objective, device: torch.device, per_device_batch_size: int | None = None
) -> Engine:
    """The engine of a run: DeepSpeed's where it buys something."""
    is_plain = spec.optimizer == "muon" or (spec.zero_stage == 0 and precision(spec, device) == "fp32")
    return (PlainEngine if is_plain else DeepSpeedEngine)(spec, objective, device, per_device_batch_size)
