"""DeepSpeed: joins the ranks of a run and turns a spec into an engine that takes optimizer steps."""

import logging
import math
import os
import warnings
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
from deepspeed.utils import logger
from torch import Tensor

from trainer import batch as batches
from trainer.batch import Batch
from trainer.failure import Failure
from trainer.objectives import Objective
from trainer.spec import TrainSpec

MAX_BUCKET = 500_000_000  # values sent at a time, DeepSpeed's own; it allocates them whatever the size of the model
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


def learning_rate(spec: TrainSpec, step: int) -> float:
    """The rate of a step (1 to max_steps): rises until warmup_steps, then falls, to reach zero behind the end."""
    if step < spec.warmup_steps:
        return spec.learning_rate * step / spec.warmup_steps
    left = (spec.max_steps + 1 - step) / (spec.max_steps + 1 - max(1, spec.warmup_steps))
    if spec.lr_scheduler_type == "cosine":
        return spec.learning_rate * 0.5 * (1 - math.cos(math.pi * left))
    return spec.learning_rate * (left if spec.lr_scheduler_type == "linear" else 1.0)


class Engine:
    """Takes optimizer steps on this rank's share of the samples, together with the other ranks."""

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
        # DeepSpeed clips a plain fp32 model without telling the norm, so there the clipping is ours.
        self._clips_itself = spec.zero_stage > 0 or self.precision == "bf16"
        self._deepspeed = self._initialize()

    def _initialize(self) -> Any:
        optimizer = _optimizer(self.spec, self.objective)
        engine, *_ = deepspeed.initialize(model=self.objective, optimizer=optimizer, config=self._config())
        return engine

    def _config(self) -> dict[str, Any]:
        bucket = min(MAX_BUCKET, sum(parameter.numel() for parameter in self.model.parameters()))
        return {
            "train_batch_size": self.spec.train_batch_size,
            "train_micro_batch_size_per_gpu": self.per_device_batch_size,
            "gradient_accumulation_steps": self.spec.train_batch_size // self.world_size // self.per_device_batch_size,
            "gradient_clipping": self.spec.max_grad_norm if self._clips_itself else 0.0,
            "zero_optimization": {
                # Without stages DeepSpeed shows nobody the master weights of bf16, so none could be saved.
                "stage": max(self.spec.zero_stage, 1 if self.precision == "bf16" else 0),
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": bucket,
            },
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": self.precision == "bf16"},
            "steps_per_print": 2**62,
        }

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
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = rate
        loss, stops = 0.0, is_stopping
        norm: float | None = None
        # DeepSpeed takes the mean over micro-batches and ranks.
        divisor = num_targets / (len(micro_batches) * self.world_size)
        for place, tensors in enumerate(micro_batches, start=1):
            nats = self._deepspeed(**tensors)[0] / divisor * factor
            loss += nats.item() / len(micro_batches)
            self._deepspeed.backward(nats)
            if place == len(micro_batches):
                loss, stops = self._over_ranks(loss, is_stopping)
                _require_finite("loss", loss, number)
                norm = self._clip()
            self._deepspeed.step()
        norm = float(self._deepspeed.get_global_grad_norm()) if norm is None else norm
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
        return sums[0].item() / self.world_size, sums[1].item() > 0

    def _clip(self) -> float | None:
        """Clip, where DeepSpeed does not do it with a norm to read."""
        if self._clips_itself:
            return None
        limit = self.spec.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))

    @torch.no_grad()
    def sums(self, micro_batches: list[dict[str, Tensor]]) -> list[float]:
        """The summed loss over all ranks and what else the objective counts. Every rank must bring equally many."""
        self._deepspeed.eval()
        total = torch.zeros(1 + len(self.objective.counted), dtype=torch.float64, device=self.device)
        for tensors in micro_batches:
            total += self._deepspeed(**tensors).double()
        self._deepspeed.train()
        if self.world_size > 1:
            dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    @property
    def is_plain(self) -> bool:
        """Whether every rank holds weights and optimizer whole, as torch made them."""
        return not self._clips_itself

    @property
    def inner_optimizer(self) -> torch.optim.Optimizer:
        """Torch's own optimizer, below what DeepSpeed wraps around it."""
        optimizer = self._deepspeed.optimizer
        found: torch.optim.Optimizer = optimizer if self.is_plain else optimizer.optimizer
        return found

    @property
    def masters(self) -> list[Tensor]:
        """The tensors that the inner optimizer steps: parameters, or flat parts of them."""
        wrapper = self._deepspeed.optimizer
        if self.spec.zero_stage == 3:
            return list(wrapper.fp32_partitioned_groups_flat)
        return [held for group in self.inner_optimizer.param_groups for held in group["params"]]

    def link_moments(self) -> None:
        """Let DeepSpeed find the moments by parameter: itself it does so when only the first group has any."""
        wrapper = self._deepspeed.optimizer
        if hasattr(wrapper, "_hp_optimizer_states_linked"):
            wrapper._hp_optimizer_states_linked = False
            wrapper._lazy_init_hp_params_optimizer_state()

    @property
    def device_name(self) -> str:
        """What computes, as far as it decides the bits of a result."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"

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


def _require_finite(series: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise Failure("nan_loss", series=series, value=str(value), step=step)


def _optimizer(spec: TrainSpec, module: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW that decays matrices, but not norms and biases. Its rate is set at each step."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=0.0, betas=(spec.adam_beta1, spec.adam_beta2), fused=True)
