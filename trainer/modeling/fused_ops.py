"""Faster pieces for transformers' networks: the same names, weights and values. Imports torch and transformers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from trainer.modeling import cpu_matmul
from trainer.planning.memory import LOGITS_CHUNK_ELEMENTS, MIN_CHUNK_ROWS


class FusedRMSNorm(nn.Module):
    """In place of the norms of Llama, Qwen and T5: one operation instead of six."""

    weight: Tensor
    variance_epsilon: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        return F.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


class FusedLinear(nn.Linear):
    """In place of a linear layer where a CPU has faster products than torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        return cpu_matmul.linear(input, self.weight, self.bias)


class FusedConv1D(Conv1D):  # type: ignore[misc]
    """The same of GPT-2, whose weights lie the other way round."""

    def forward(self, x: Tensor) -> Tensor:
        return cpu_matmul.linear(x, self.weight.t(), self.bias)


NORMS = ("LlamaRMSNorm", "Qwen2RMSNorm", "T5LayerNorm")


def use_fused_ops(model: PreTrainedModel) -> PreTrainedModel:
    """Exchange what has a faster equal: norms, layers that multiply, and GPT-2's activation, which transformers spells
    out in eight steps.
    """
    for module in list(model.modules()):
        if type(module).__name__ in NORMS:
            module.__class__ = FusedRMSNorm
        if cpu_matmul.prefers_onednn() and type(module) in (nn.Linear, Conv1D):
            module.__class__ = FusedLinear if type(module) is nn.Linear else FusedConv1D
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


def has_linear_lm_head(model: PreTrainedModel) -> bool:
    """Whether the logits are no more than the last hidden states times a matrix."""
    head: Any = model.get_output_embeddings()
    return type(head) in (nn.Linear, FusedLinear) and head.bias is None


def lm_head_weight(model: PreTrainedModel) -> nn.Parameter:
    """That matrix."""
    head: Any = model.get_output_embeddings()
    weight: nn.Parameter = head.weight
    return weight


def fused_linear_cross_entropy(hidden: Tensor, matrix: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """The summed cross-entropy of `hidden @ matrix.T` against labels, without ever holding all logits: on a CPU those
    at hand stay in its cache.

    `labels` are all valid; one whose weight is 0 costs nothing. The gradients are computed on the way forward, from
    logits that are still there, so training does no product twice.
    """
    hidden, labels = hidden.flatten(0, -2), labels.flatten()
    if weights is not None:
        counting = weights.flatten() != 0
        hidden, labels, weights = hidden[counting], labels[counting], weights.flatten()[counting].float()
    nats: Tensor = _FusedLinearCrossEntropy.apply(hidden, matrix.to(hidden.dtype), labels, weights)  # type: ignore[no-untyped-call]
    return nats


class _FusedLinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, matrix: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        rows = max(MIN_CHUNK_ROWS, LOGITS_CHUNK_ELEMENTS[hidden.device.type] // len(matrix))
        total = hidden.new_zeros((), dtype=torch.float32)
        of_hidden = torch.empty_like(hidden)
        of_matrix = matrix.new_zeros(matrix.t().shape, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for at in range(0, len(hidden), rows):
            some, targets = hidden[at : at + rows], labels[at : at + rows, None]
            factors = None if weights is None else weights[at : at + rows, None]
            logits = cpu_matmul.matmul(some, matrix.t())
            nats, errors = _losses_and_gradients(logits, targets)
            total += (nats if factors is None else nats * factors).sum()
            if factors is not None:
                errors *= factors
            errors = errors.to(matrix.dtype)
            of_hidden[at : at + rows] = cpu_matmul.matmul(errors, matrix)
            if of_matrix is not None:
                cpu_matmul.addmm_(of_matrix, some.t(), errors)
            del logits, errors  # before the next ones
        ctx.of_hidden, ctx.of_matrix = of_hidden, of_matrix
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, of_matrix = ctx.of_hidden, ctx.of_matrix
        del ctx.of_hidden, ctx.of_matrix  # they are changed in place, so there is no second time
        of_hidden *= outer[0]
        if of_matrix is not None:
            of_matrix = (of_matrix.mul_(outer[0])).to(of_hidden.dtype).t()
        return of_hidden, of_matrix, None, None


def _losses_and_gradients(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each row, and its derivative by the logits. fp32 logits are overwritten."""
    logits = logits.float()
    right, peaks = logits.gather(1, targets), logits.amax(1, keepdim=True)
    shares = torch.softmax(logits, 1, out=logits)
    nats = peaks - shares.amax(1, keepdim=True).log() - right  # the peak's share is never near 0, its logarithm exact
    return nats, shares.scatter_add_(1, targets, torch.full_like(right, -1.0))
