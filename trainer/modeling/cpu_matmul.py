"""fp32 matrix products on a CPU by oneDNN, where they are faster than those of torch's default library. Imports torch.

Torch computes fp32 products with MKL, which on other makers' processors than Intel's may keep to AVX2. oneDNN, which
torch ships for lower precisions, uses AVX-512 on all of them. Which is faster is measured once per node
(trainer/training/matmul_choice.py); until `set_onednn` enables it, every product is torch's own.

The operator, `torch.ops.mkldnn._linear_pointwise`, is private to torch, which compiles linear layers to it. Where it
is missing or fails, oneDNN counts as unavailable.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BENCHMARK_SIDE = 512  # rows and columns of the square layer that both libraries are timed with
BENCHMARK_REPEATS = 15

_is_onednn_on = False


def set_onednn(is_on: bool) -> None:
    """Let oneDNN compute this process's fp32 products from now on, if it is available, or let torch do so."""
    global _is_onednn_on
    _is_onednn_on = is_on and has_onednn()


def uses_onednn() -> bool:
    """Whether oneDNN computes this process's fp32 products."""
    return _is_onednn_on


@cache
def has_onednn() -> bool:
    """Whether this build of torch has oneDNN's operator and it computes the right values. Never raises."""
    values, weight, bias = torch.arange(6.0).view(1, 2, 3), torch.arange(12.0).view(3, 4).t(), torch.ones(4)
    try:
        return torch.allclose(_onednn_linear(values, weight, bias), F.linear(values, weight, bias))
    except (AttributeError, RuntimeError):
        return False


def cpu_name(is_onednn_on: bool) -> str:
    """What decides the bits of a CPU's results, such as `cpu AVX512 oneDNN`."""
    return f"cpu {torch.backends.cpu.get_cpu_capability()}{' oneDNN' if is_onednn_on else ''}"


def onednn_speedup() -> float:
    """How many times as fast as torch's own a linear layer is by oneDNN, forward and backward; 0 without oneDNN.

    The fastest repeats, alternating on one thread, are compared in CPU time: neither what other processes take nor
    threads that wait for each other count.
    """
    if not has_onednn():
        return 0.0
    multiply, _operations = matmul_benchmark(BENCHMARK_SIDE, torch.device("cpu"), torch.float32)
    before, num_threads = uses_onednn(), torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _repeat in range(1 + BENCHMARK_REPEATS):
        for is_on, times in seconds.items():
            set_onednn(is_on)
            start = time.process_time()
            multiply()
            times.append(time.process_time() - start)
    set_onednn(before)
    torch.set_num_threads(num_threads)
    return min(seconds[False]) / min(seconds[True])


def matmul_benchmark(side: int, device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """A square linear layer (side, side), forward and backward, as a function to be timed; and its operations."""
    inputs = [torch.ones(side, side, dtype=dtype, device=device, requires_grad=True) for _each in range(2)]
    return lambda: torch.autograd.grad(linear(*inputs), inputs, inputs[0].detach()), 6 * side**3


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`values @ weight.T + bias` with gradients: (..., columns), (rows, columns), (rows) to (..., rows)."""
    if not _is_for_onednn(values, weight):
        return F.linear(values, weight, bias)
    product: Tensor = _OneDNNLinear.apply(values, weight, bias)  # type: ignore[no-untyped-call]
    return product


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` without gradients: (rows, n), (n, columns) to (rows, columns)."""
    return _onednn_linear(left, right.t()) if _is_for_onednn(left, right) else left @ right


def addmm_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to `total` in place, without gradients: (rows, n), (n, columns), fp32 (rows, columns)."""
    if _is_for_onednn(left, right):
        total += _onednn_linear(left, right.t())
    elif left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _is_for_onednn(left: Tensor, right: Tensor) -> bool:
    is_fp32_on_cpu = left.device.type == "cpu" and left.dtype == right.dtype == torch.float32
    return is_fp32_on_cpu and uses_onednn() and not torch.is_autocast_enabled("cpu")


def _onednn_linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`values @ weight.T + bias` without gradients. Raises AttributeError where torch lacks the operator."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
    return product


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return _onednn_linear(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, *output_grads: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = ctx.saved_tensors
        values_grad = weight_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            values_grad = _onednn_linear(output_grads[0], weight.t())
        output_grad = output_grads[0].flatten(0, -2)
        if ctx.needs_input_grad[1]:
            weight_grad = _skinny_matmul(output_grad.t(), values.flatten(0, -2).t())
        if ctx.needs_input_grad[2]:
            bias_grad = output_grad.sum(0)
        return values_grad, weight_grad, bias_grad


def _skinny_matmul(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right.T` of (rows, n) and (columns, n) with large n: faster with the smaller side as rows."""
    if len(left) <= len(right):
        return _onednn_linear(left, right)
    return _onednn_linear(right, left).t()
