"""Muon: torch's own numbers without bf16, and which weights it moves."""

import pytest
import torch
from torch import nn

from tests.trainer.runs import small_spec
from trainer.engines.optimizers import Muon, newton_schulz, optimizers
from trainer.modeling import architectures

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


@pytest.mark.parametrize("shape", [(6, 16), (16, 6)])
def test_updates_equal_those_of_torchs_muon(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], weight_decay=0.1)
    their = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    mine.param_groups[0]["lr"] = 0.02
    for _step in range(3):
        ours.grad = theirs.grad = torch.randn(shape)
        mine.step()
        their.step()

    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # theirs has the eight bits of bf16


def test_muon_updates_have_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(newton_schulz(torch.randn(12, 20, generator=torch.Generator().manual_seed(1))))

    assert values.min() > 0.5
    assert values.max() < 1.5


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "t5"])
def test_muon_gets_the_matrices_of_the_blocks_and_adamw_the_rest(model_type: str) -> None:
    more = {"objective": "span_corruption"} if model_type == "t5" else {}
    spec = small_spec(optimizer="muon", model_type=model_type, num_key_value_heads=4, **more)
    model = architectures.create_config(spec, 300, IDS, [])
    muon, adamw = optimizers(spec, model)

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moved = [names[id(p)] for group in muon.param_groups for p in group["params"]]
    rest = [names[id(p)] for group in adamw.param_groups for p in group["params"]]
    assert len(moved) + len(rest) == len(names)
    assert len(moved) >= 8
    assert not [name for name in moved if "norm" in name or "embed" in name or "bias" in name or "head" in name]
