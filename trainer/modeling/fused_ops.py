"""Fused operations for transformers' models: the same weights, names and values in fewer kernels. Imports torch and
transformers.
"""

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
    """Root mean square norm (Zhang and Sennrich 2019) as one operation; transformers' takes six."""

    def __init__(self, norm: Any) -> None:
        """Take over the parameter of a norm of Llama, Qwen 2 or T5."""
        super().__init__()
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalize hidden_states (..., hidden_size)."""
        return F.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


class FusedLinear(nn.Linear):
    """A linear layer multiplied by `cpu_matmul`."""

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> "FusedLinear":
        """A layer with the parameters of another."""
        fused = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        fused.weight, fused.bias = linear.weight, linear.bias
        return fused.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """input (..., in_features) to (..., out_features)."""
        return cpu_matmul.linear(input, self.weight, self.bias)


class FusedConv1D(Conv1D):  # type: ignore[misc]
    """GPT-2's linear layer, whose weight is (in_features, out_features), multiplied by `cpu_matmul`."""

    @classmethod
    def from_conv1d(cls, conv: Conv1D) -> "FusedConv1D":
        """A layer with the parameters of another."""
        with torch.device("meta"):
            fused = cls(conv.nf, conv.nx)
        fused.weight, fused.bias = conv.weight, conv.bias
        return fused.train(conv.training)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) to (..., out_features)."""
        return cpu_matmul.linear(x, self.weight.t(), self.bias)


NORMS = ("LlamaRMSNorm", "Qwen2RMSNorm", "T5LayerNorm")


def use_fused_ops(model: PreTrainedModel) -> PreTrainedModel:
    """Replace modules of the model that have a fused equivalent: norms, GPT-2's activation, which transformers computes
    in eight operations, and with oneDNN switched on the linear layers. Parameters and their names stay.
    """
    fused: dict[nn.Module, nn.Module] = {}  # a module with two names stays one
    for parent in list(model.modules()):
        for name, module in list(parent._modules.items()):
            if module is not None and module not in fused and (replacement := _fused(module)) is not None:
                fused[module] = replacement
            if module in fused:
                setattr(parent, name, fused[module])
    return model


def _fused(module: nn.Module) -> nn.Module | None:
    if type(module).__name__ in NORMS:
        return FusedRMSNorm(module)
    if isinstance(module, NewGELUActivation):
        return nn.GELU(approximate="tanh")
    if not cpu_matmul.uses_onednn():
        return None
    if type(module) is nn.Linear:
        return FusedLinear.from_linear(module)
    return FusedConv1D.from_conv1d(module) if type(module) is Conv1D else None


def has_linear_lm_head(model: PreTrainedModel) -> bool:
    """Whether the logits are the last hidden states times one matrix, without a bias."""
    head: Any = model.get_output_embeddings()
    return type(head) in (nn.Linear, FusedLinear) and head.bias is None


def lm_head_weight(model: PreTrainedModel) -> nn.Parameter:
    """The matrix (vocab_size, hidden_size) of a linear LM head."""
    head: Any = model.get_output_embeddings()
    weight: nn.Parameter = head.weight
    return weight


def fused_linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, label_weights: Tensor | None) -> Tensor:
    """The summed cross-entropy, in nats, of the logits `hidden @ weight.T` against `labels`: a scalar in fp32.

    hidden (..., hidden_size), weight (vocab_size, hidden_size), labels (...), label_weights (...). Every label is a
    token id, but for those whose weight is 0.

    The logits (..., vocab_size) never exist as a whole: they are computed for a chunk of rows at a time, small enough
    for the cache of a CPU. Where gradients are wanted they are computed in the same pass, while a chunk's logits exist,
    so that training multiplies no chunk twice. Both tricks are those of Liger Kernel (Hsu et al. 2024,
    arXiv:2410.10989); compare "Cut Your Losses" (Wijmans et al. 2024, arXiv:2411.09009).
    """
    hidden, labels = hidden.flatten(0, -2), labels.flatten()
    if label_weights is not None:
        counts = label_weights.flatten() != 0
        hidden, labels, label_weights = hidden[counts], labels[counts], label_weights.flatten()[counts].float()
    # Read here, because autograd disables gradients within a Function, where a parameter requires one even under
    # no_grad.
    with_gradients = torch.is_grad_enabled()
    loss_sum: Tensor = _FusedLinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight.to(hidden.dtype), labels, label_weights, with_gradients
    )
    return loss_sum


class _FusedLinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, label_weights: Tensor | None, with_gradients: bool
    ) -> Tensor:
        chunk_rows = max(MIN_CHUNK_ROWS, LOGITS_CHUNK_ELEMENTS[hidden.device.type] // len(weight))
        loss_sum = hidden.new_zeros((), dtype=torch.float32)
        hidden_grad = weight_grad = None
        if with_gradients:
            hidden_grad = torch.empty_like(hidden)
            if ctx.needs_input_grad[1]:
                weight_grad = weight.new_zeros(weight.t().shape, dtype=torch.float32)
        for start in range(0, len(hidden), chunk_rows):
            rows = slice(start, start + chunk_rows)
            factors = None if label_weights is None else label_weights[rows, None]
            logits = cpu_matmul.matmul(hidden[rows], weight.t())
            losses, logits_grad = _losses_and_gradients(logits, labels[rows, None])
            loss_sum += (losses if factors is None else losses * factors).sum()
            if hidden_grad is not None:
                if factors is not None:
                    logits_grad *= factors
                logits_grad = logits_grad.to(weight.dtype)
                hidden_grad[rows] = cpu_matmul.matmul(logits_grad, weight)
                if weight_grad is not None:
                    cpu_matmul.addmm_(weight_grad, hidden[rows].t(), logits_grad)
            del logits, logits_grad  # before the next chunk's exist
        ctx.hidden_grad, ctx.weight_grad = hidden_grad, weight_grad
        return loss_sum

    @staticmethod
    def backward(ctx: Any, *output_grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, weight_grad = ctx.hidden_grad, ctx.weight_grad
        del ctx.hidden_grad, ctx.weight_grad  # they are scaled in place, so there is no second backward pass
        hidden_grad *= output_grads[0]
        if weight_grad is not None:
            weight_grad = weight_grad.mul_(output_grads[0]).to(hidden_grad.dtype).t()
        return hidden_grad, weight_grad, None, None, None


def _losses_and_gradients(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (rows, 1) and its derivative (rows, vocab_size) by the logits (rows, vocab_size); labels (rows, 1).

    Both are fp32, and fp32 logits are overwritten.
    """
    logits = logits.float()
    label_logits, peaks = logits.gather(1, labels), logits.amax(1, keepdim=True)
    probabilities = torch.softmax(logits, 1, out=logits)
    # The largest probability is never near 0, so its logarithm is exact.
    losses = peaks - probabilities.amax(1, keepdim=True).log() - label_logits
    return losses, probabilities.scatter_add_(1, labels, torch.full_like(label_logits, -1.0))
