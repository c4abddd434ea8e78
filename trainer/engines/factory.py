"""Which engine trains a spec."""

import torch

from trainer.engines.base import Engine, precision
from trainer.engines.deepspeed_engine import DeepSpeedEngine
from trainer.engines.torch_engine import TorchEngine
from trainer.modeling.objectives import Objective
from trainer.spec import TrainSpec


def make_engine(spec: TrainSpec, objective: Objective, device: torch.device) -> Engine:
    """The engine of a run: DeepSpeed's where it buys something."""
    is_plain = spec.optimizer == "muon" or (spec.zero_stage == 0 and precision(spec, device) == "fp32")
    return (TorchEngine if is_plain else DeepSpeedEngine)(spec, objective, device)
