"""The faster products of a CPU: they are what torch's own are."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests.trainer.runs import small_spec
from trainer.modeling import architectures, cpu_matmul, fused_ops

DECIDES = cpu_matmul.prefers_onednn
LIMITS = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor for which oneDNN is faster."""
    monkeypatch.setattr(cpu_matmul, "prefers_onednn", lambda: True)


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "columns"), [(24, 8), (8, 24), (16, 16), (1, 5)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(40,), (3, 7), (2, 3, 5)])
def test_values_and_gradients_are_those_of_a_linear_layer(
    rows: int, columns: int, has_bias: bool, shape: tuple[int, ...]
) -> None:
    given = [numbers(*shape, columns), numbers(rows, columns, seed=2), numbers(rows, seed=3) if has_bias else None]
    ours = [tensor if tensor is None else tensor.clone().requires_grad_() for tensor in given]
    exact = [tensor if tensor is None else tensor.double().requires_grad_() for tensor in given]
    outer = numbers(*shape, rows, seed=4)

    found, expected = cpu_matmul.linear(*ours), nn.functional.linear(*exact)
    found.backward(outer)
    expected.backward(outer.double())

    assert type(found.grad_fn).__name__ == "_LinearBackward"
    torch.testing.assert_close(found, expected.float(), **LIMITS)
    for tensor, true in zip(ours, exact, strict=True):
        if tensor is not None:
            torch.testing.assert_close(tensor.grad, true.grad.float(), **LIMITS)


def test_tensors_that_lie_in_any_way_are_multiplied_alike() -> None:
    left, right = numbers(12, 30).t(), numbers(9, 12, seed=2).t()
    total = torch.ones(30, 9)
    cpu_matmul.addmm_(total, left, right)

    torch.testing.assert_close(cpu_matmul.matmul(left, right), left @ right, **LIMITS)
    torch.testing.assert_close(total, 1 + left @ right, **LIMITS)


def test_only_what_is_asked_for_has_a_gradient() -> None:
    values, matrix = numbers(6, 4).requires_grad_(), numbers(3, 4, seed=2)
    cpu_matmul.linear(values, matrix, None).sum().backward()

    assert values.grad is not None
    assert matrix.grad is None


def test_other_precisions_stay_with_torch() -> None:
    values, matrix = numbers(6, 4).requires_grad_(), numbers(3, 4, seed=2)

    assert type(cpu_matmul.linear(values.double(), matrix.double()).grad_fn).__name__ != "_LinearBackward"
    with torch.autocast("cpu", torch.bfloat16):
        assert cpu_matmul.linear(values, matrix).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("lines", "capability", "is_faster"),
    [
        ("vendor_id\t: AuthenticAMD\n", "AVX512", True),
        ("vendor_id\t: AuthenticAMD\n", "AVX2", False),
        ("vendor_id\t: GenuineIntel\n", "AVX512", False),
        ("CPU implementer\t: 0x41\n", "DEFAULT", False),
        (None, "AVX512", False),
    ],
)
def test_the_processor_decides(
    lines: str | None, capability: str, is_faster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lines is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{lines}cpu family\t: 25\n")
    monkeypatch.setattr(cpu_matmul, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)

    assert DECIDES.__wrapped__() is is_faster


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "bert", "roberta", "t5"])
def test_no_layer_that_multiplies_is_left_out(model_type: str) -> None:
    objective = {"bert": "masked", "roberta": "masked", "t5": "seq2seq"}.get(model_type, "causal")
    heads = {} if model_type in ("llama", "qwen2") else {"num_key_value_heads": 4}
    spec = small_spec(model_type=model_type, objective=objective, **heads)
    made = fused_ops.use_fused_ops(
        architectures.create_config(spec, 300, {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}, [])
    )

    left = [name for name, module in made.named_modules() if type(module) in (nn.Linear, Conv1D)]
    assert left == []
    assert any(isinstance(module, fused_ops.FusedLinear) for module in made.modules())


def test_the_same_product_has_the_same_bits_each_time() -> None:
    values, matrix = numbers(200, 64), numbers(96, 64, seed=2)
    first = cpu_matmul.linear(values, matrix, None)

    assert all(torch.equal(cpu_matmul.linear(values.clone(), matrix.clone()), first) for _ in range(20))
