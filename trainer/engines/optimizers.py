"""Optimizers and the learning rate schedule: AdamW, Muon. Imports torch."""

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.spec import TrainSpec

IN_A_BLOCK = re.compile(r"(^|\.)\d+\.")
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's state of a parameter
MOMENTUM = "momentum_buffer"  # Muon's
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # a, b, c of x <- a x + (b A + c A^2) x with A = x x^T


def learning_rate(spec: TrainSpec, step: int) -> float:
    """The rate of a step (1 to max_steps): rises until warmup_steps, then falls to reach zero after the last step."""
    steps, warmup_steps = spec.total_steps, spec.num_warmup_steps
    if step < warmup_steps:
        return spec.learning_rate * step / warmup_steps
    left = (steps + 1 - step) / (steps + 1 - max(1, warmup_steps))
    if spec.lr_scheduler_type == "cosine":
        return spec.learning_rate * 0.5 * (1 - math.cos(math.pi * left))
    if spec.lr_scheduler_type == "warmup_stable_decay":
        decay_steps = spec.decay_steps or min(steps // 5, steps - warmup_steps)
        return spec.learning_rate * min(1.0, (steps + 1 - step) / (decay_steps + 1))
    return spec.learning_rate * (left if spec.lr_scheduler_type == "linear" else 1.0)


def optimizers(spec: TrainSpec, model: nn.Module) -> list[torch.optim.Optimizer]:
    """The optimizers of a model whose parameters are not sharded. The engine sets their rate at each step."""
    matrices = _matrices_of_blocks(model) if spec.optimizer == "muon" else []
    chosen = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in chosen]
    if not matrices:
        return [adamw(spec, rest)]
    return [Muon(matrices, weight_decay=spec.weight_decay), adamw(spec, rest)]


def adamw(spec: TrainSpec, parameters: list[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW that decays matrices, but not norms and biases."""
    groups = [
        {"params": [p for p in parameters if _num_dimensions(p) >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if _num_dimensions(p) < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=0.0, betas=(spec.adam_beta1, spec.adam_beta2), fused=True)


def _num_dimensions(parameter: nn.Parameter) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))  # what it has where DeepSpeed did not shard it


def _matrices_of_blocks(model: nn.Module) -> list[nn.Parameter]:
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2
        and parameter.requires_grad
        and IN_A_BLOCK.search(name)
        and id(parameter) not in embeddings
    ]


class Muon(torch.optim.Muon):
    """Muon (Keller Jordan 2024) as in torch, but in fp32 on a CPU: torch's computes in bf16, which a CPU emulates
    hundreds of times slower.

    Updates are scaled to the RMS of AdamW's (Liu et al. 2025, arXiv:2502.16982), so both take the same learning rate.
    """

    def __init__(self, parameters: list[nn.Parameter], *, weight_decay: float) -> None:
        super().__init__(parameters, lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update each matrix from its gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                self._update_matrix(parameter, group)

    def _update_matrix(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        state = self.state[parameter]
        if MOMENTUM not in state:
            state[MOMENTUM] = torch.zeros_like(parameter)
        momentum: Tensor = state[MOMENTUM].lerp_(gradient, 1 - group["momentum"])
        update = newton_schulz(gradient.lerp(momentum, group["momentum"]))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(parameter.shape)))


def newton_schulz(matrix: Tensor) -> Tensor:
    """Approximately U V^T of the singular value decomposition U S V^T of a matrix (rows, columns), in its dtype.

    Five steps of a quintic Newton-Schulz iteration, whose coefficients bring singular values near 1 in few steps rather
    than exactly to 1: those of Muon (Keller Jordan 2024, https://kellerjordan.github.io/posts/muon).
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16() if matrix.device.type == "cuda" else matrix.clone()
    is_tall = matrix.size(0) > matrix.size(1)
    if is_tall:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _step in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)
