"""Matrix products on a CPU, by the library that is fastest there. Imports torch.

Torch leaves fp32 products to MKL, which on processors of another maker than its own keeps to AVX2. oneDNN, which torch
has for lower precisions, uses AVX-512 on them, and takes half the time (docs/measurements/trainer.md).
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CPU_INFO = Path("/proc/cpuinfo")


@cache
def prefers_onednn() -> bool:
    """Whether oneDNN is asked for fp32 products. Told by the processor, never by timing, so that a run that goes on on
    such a machine has the same bits.
    """
    is_wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    has_both = torch._C.has_mkl and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return is_wide and has_both and _maker() == "AuthenticAMD"


def _maker() -> str:
    try:
        return CPU_INFO.read_text().partition("vendor_id")[2].partition("\n")[0].strip("\t :")
    except OSError:
        return ""


def linear(values: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """`values @ matrix.T + bias`: values (..., columns), matrix (rows, columns), with gradients."""
    if not _is_faster_for(values, matrix):
        return F.linear(values, matrix, bias)
    made: Tensor = _Linear.apply(values, matrix, bias)  # type: ignore[no-untyped-call]
    return made


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` of two matrices, without gradients."""
    return _multiplied(left, right.t()) if _is_faster_for(left, right) else left @ right


def addmm_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to `total`, which is fp32, without gradients."""
    if _is_faster_for(left, right):
        total += _multiplied(left, right.t())
    elif left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def matmul_benchmark(side: int, device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """Something to be timed, and its operations: a square layer, forward and backward, as a step multiplies."""
    given = [torch.ones(side, side, dtype=dtype, device=device, requires_grad=True) for _each in range(2)]
    return lambda: torch.autograd.grad(linear(*given), given, given[0].detach()), 6 * side**3


def _is_faster_for(left: Tensor, right: Tensor) -> bool:
    is_asked = left.device.type == "cpu" and left.dtype == right.dtype == torch.float32
    return is_asked and prefers_onednn() and not torch.is_autocast_enabled("cpu")


def _multiplied(values: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """`values @ matrix.T + bias`."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(values, matrix, bias, "none", [], "")
    return made


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, matrix)
        return _multiplied(values, matrix, bias)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        values, matrix = ctx.saved_tensors
        of_values = of_matrix = of_bias = None
        if ctx.needs_input_grad[0]:
            of_values = _multiplied(outer[0], matrix.t())
        flat = outer[0].flatten(0, -2)
        if ctx.needs_input_grad[1]:
            of_matrix = _skinny_matmul(flat.t(), values.flatten(0, -2).t())
        if ctx.needs_input_grad[2]:
            of_bias = flat.sum(0)
        return of_values, of_matrix, of_bias


def _skinny_matmul(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right.T`, few rows and columns and a long sum: faster with the fewer of them as rows."""
    if len(left) <= len(right):
        return _multiplied(left, right)
    return _multiplied(right, left).t()
