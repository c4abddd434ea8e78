"""oneDNN's matrix products: the same values and gradients as torch's own."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from trainer.modeling import cpu_matmul

LIMITS = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def onednn() -> Iterator[None]:
    """As on a processor for which oneDNN is faster."""
    cpu_matmul.set_onednn(True)
    yield
    cpu_matmul.set_onednn(False)
    cpu_matmul.has_onednn.cache_clear()


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def without_operator(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """A torch whose operator is missing or broken."""

    def fail(*_arguments: object) -> Tensor:
        raise error

    monkeypatch.setattr(cpu_matmul, "_onednn_linear", fail)
    cpu_matmul.has_onednn.cache_clear()


@pytest.mark.parametrize(("rows", "columns"), [(24, 8), (8, 24), (16, 16), (1, 5)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(40,), (3, 7), (2, 3, 5)])
def test_values_and_gradients_are_those_of_a_linear_layer(
    rows: int, columns: int, has_bias: bool, shape: tuple[int, ...]
) -> None:
    inputs = [numbers(*shape, columns), numbers(rows, columns, seed=2), numbers(rows, seed=3) if has_bias else None]
    ours = [tensor if tensor is None else tensor.clone().requires_grad_() for tensor in inputs]
    exact = [tensor if tensor is None else tensor.double().requires_grad_() for tensor in inputs]
    output_grad = numbers(*shape, rows, seed=4)

    product, expected = cpu_matmul.linear(*ours), nn.functional.linear(*exact)
    product.backward(output_grad)
    expected.backward(output_grad.double())

    assert type(product.grad_fn).__name__ == "_OneDNNLinearBackward"
    torch.testing.assert_close(product, expected.float(), **LIMITS)
    for tensor, reference in zip(ours, exact, strict=True):
        if tensor is not None:
            torch.testing.assert_close(tensor.grad, reference.grad.float(), **LIMITS)


def test_transposed_tensors_are_multiplied_correctly() -> None:
    left, right = numbers(12, 30).t(), numbers(9, 12, seed=2).t()
    total = torch.ones(30, 9)
    cpu_matmul.addmm_(total, left, right)

    torch.testing.assert_close(cpu_matmul.matmul(left, right), left @ right, **LIMITS)
    torch.testing.assert_close(total, 1 + left @ right, **LIMITS)


def test_only_inputs_that_require_a_gradient_get_one() -> None:
    values, weight = numbers(6, 4).requires_grad_(), numbers(3, 4, seed=2)
    cpu_matmul.linear(values, weight, None).sum().backward()

    assert values.grad is not None
    assert weight.grad is None


def test_other_precisions_stay_with_torch() -> None:
    values, weight = numbers(6, 4).requires_grad_(), numbers(3, 4, seed=2)

    assert type(cpu_matmul.linear(values.double(), weight.double()).grad_fn).__name__ != "_OneDNNLinearBackward"
    with torch.autocast("cpu", torch.bfloat16):
        assert cpu_matmul.linear(values, weight).dtype == torch.bfloat16


def test_a_product_has_the_same_bits_each_time() -> None:
    values, weight = numbers(200, 64), numbers(96, 64, seed=2)
    first = cpu_matmul.linear(values, weight, None)

    assert all(torch.equal(cpu_matmul.linear(values.clone(), weight.clone()), first) for _ in range(20))


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_without_the_operator_torch_computes(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    without_operator(monkeypatch, error)

    cpu_matmul.set_onednn(True)

    assert not cpu_matmul.uses_onednn()
    assert cpu_matmul.onednn_speedup() == 0.0
    torch.testing.assert_close(cpu_matmul.matmul(numbers(3, 4), numbers(4, 5)), numbers(3, 4) @ numbers(4, 5))


def test_the_speedup_is_measured_without_changing_the_choice() -> None:
    assert cpu_matmul.onednn_speedup() > 0.1
    assert cpu_matmul.uses_onednn()
