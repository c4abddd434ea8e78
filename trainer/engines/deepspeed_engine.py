"""Training with DeepSpeed: ZeRO stages 0 to 3, offloading, bf16.

Workarounds, each seen in DeepSpeed 0.19.8:
- At stage 0 the fp32 master weights of bf16 cannot be read, so they could not be saved: stage 1 replaces it.
- Buckets are allocated at full size whatever the size of the model: `_config` bounds them by the parameters.
- `DeepSpeedCPUAdam` needs a compiler, so offloading uses torch's AdamW (zero_force_ds_cpu_optimizer).
- Micro-batches are counted by `step`, which therefore is called before every one but the first (`_forward`).
- `backward` averages over micro-batches and ranks: the loss is multiplied by both (`_backward`).
- Moments can be looked up by parameter only if the first parameter group has any: `link_state` does it for all.
- ZeRO-3 gathers a weight only for the module that owns it: the LM head's, which the fused loss reads, is registered
  with the objective (`_shard`).
- DeepSpeed probes for compilers and would compile a shared-memory collective (`init_process_group` in base.py).
- Every check of an optimizer imports DeepSpeed's Muon, whose `torch.compile` takes four seconds of imports: it is
  imported here, uncompiled. Nothing uses it; `optimizers.py` has torch's.
"""

import importlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import deepspeed
import torch
from deepspeed.runtime.zero import register_external_parameter
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.engines.base import MASTER, Engine
from trainer.engines.optimizers import MOMENTS, adamw
from trainer.modeling.fused_ops import has_linear_lm_head, lm_head_weight
from trainer.modeling.objectives import Objective
from trainer.modeling.zero_init import LazyParameters, share_buffers
from trainer.spec import TrainSpec

with patch("deepspeed.runtime.compiler.compile", lambda: lambda function: function):
    importlib.import_module("deepspeed.runtime.zero.muon.original_muon")

MAX_BUCKET = 500_000_000  # values sent at a time, DeepSpeed's default


class DeepSpeedEngine(Engine):
    """DeepSpeed: shards states over the ranks, offloads them to host memory, keeps fp32 master weights under bf16."""

    def __init__(self, spec: TrainSpec, objective: Objective, device: torch.device) -> None:
        super().__init__(spec, objective, device)
        self.holds_master = self.precision == "bf16"
        config = self._config()
        if spec.zero_stage == 3:
            self._shard(config)
        optimizer = adamw(spec, [parameter for parameter in objective.parameters() if parameter.requires_grad])
        self._deepspeed, *_ = deepspeed.initialize(model=objective, optimizer=optimizer, config=config)

    def _shard(self, config: dict[str, Any]) -> None:
        """Shard each weight over the ranks before DeepSpeed would move the whole model to the device."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        deepspeed.zero.Init(module=LazyParameters(self.objective, self.device, dtype), config_dict_or_path=config)
        share_buffers(self.objective, self.device)
        for model in self.objective.children():
            if isinstance(model, PreTrainedModel) and has_linear_lm_head(model):  # its matrix is used past its module
                register_external_parameter(self.objective, lm_head_weight(model))

    def _config(self) -> dict[str, Any]:
        bucket = min(MAX_BUCKET, sum(p.numel() for p in self.model.parameters() if p.requires_grad))
        zero: dict[str, Any] = {
            # Without stages the master weights of bf16 cannot be read, so they could not be saved.
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
            "train_micro_batch_size_per_gpu": self.spec.per_device_batch_size,
            "gradient_accumulation_steps": self.spec.train_batch_size
            // self.world_size
            // self.spec.per_device_batch_size,
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
        sums: Tensor = self._deepspeed(**tensors)
        return sums

    def _backward(self, loss: Tensor, count: int) -> None:
        self._deepspeed.backward(loss * (count * self.world_size))  # it takes the mean over micro-batches and ranks

    def _update(self) -> float:
        self._deepspeed.step()
        return float(self._deepspeed.get_global_grad_norm())

    def gathered_parameters(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        if self.spec.zero_stage < 3:
            return nullcontext()
        gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters)
        return gathered

    def state_keys(self, parameter: nn.Parameter) -> tuple[str, ...]:
        return (*MOMENTS, MASTER) if self.holds_master else MOMENTS

    def get_optimizer_state(self, parameter: nn.Parameter, kind: str, is_mine: bool) -> Tensor | None:
        master = kind == MASTER
        state = safe_get_full_fp32_param(parameter) if master else safe_get_full_optimizer_state(parameter, kind)
        return None if state is None else torch.as_tensor(state)

    def set_optimizer_state(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
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

    def init_optimizer_state(self, num_updates: int) -> None:
        wrapper = self._deepspeed.optimizer
        optimizer = wrapper.optimizer  # torch's own
        groups = optimizer.param_groups
        parameters = [tensor for group in groups for tensor in group["params"]]
        # The tensors that it steps are flat parts of the parameters.
        for tensor in wrapper.fp32_partitioned_groups_flat if self.spec.zero_stage == 3 else parameters:
            moments: dict[str, Any] = {kind: torch.zeros_like(tensor) for kind in MOMENTS}
            optimizer.state[tensor] = {"step": torch.tensor(float(num_updates), device=tensor.device), **moments}
        self.link_state()

    def link_state(self) -> None:
        """Let DeepSpeed look up moments by parameter, which it does by itself only if the first group has any."""
        wrapper = self._deepspeed.optimizer
        if hasattr(wrapper, "_hp_optimizer_states_linked"):
            wrapper._hp_optimizer_states_linked = False
            wrapper._lazy_init_hp_params_optimizer_state()


def _part(value: Tensor, size: int, rank: int) -> Tensor:
    """A rank's flat shard (size,) of a tensor; the last shard is padded with zeros."""
    part = value.flatten()[rank * size : (rank + 1) * size]
    return torch.nn.functional.pad(part, (0, size - part.numel()))
