"""Estimates what a job does before its first step: training a tokenizer, tokenizing, loading. Arithmetic only."""

from pydantic import BaseModel

from trainer.families import TEXT_OBJECTIVES
from trainer.planning.hardware import NodeHardware
from trainer.planning.training_data import TrainingData
from trainer.spec import TrainSpec

# Starting the processes, building the model, the benchmark and the checks of the first step. On CPUs what three jobs of
# 73, 117 and 250 s took beyond their plan and their tokenizer (docs/measurements/plan.md).
LOAD_SECONDS = {"cuda": 20.0, "cpu": 13.0}
TOKENIZER_TRAINING_BYTES = 256 << 20  # of a longer text only so much is trained on
# Seconds of one thread per byte, measured on Python source: learning merges, encoding running text, encoding records.
TRAINING_SECONDS, TEXT_SECONDS, RECORD_SECONDS = 0.35e-6, 0.01e-6, 0.4e-6


class StartupTime(BaseModel):
    """Seconds before the first step, by cause, before the node's correction."""

    tokenizer: float
    tokenizing: float
    loading: float

    @property
    def seconds(self) -> float:
        """The sum of all parts."""
        return self.tokenizer + self.tokenizing + self.loading


def estimate_startup(spec: TrainSpec, node: NodeHardware, data: TrainingData) -> StartupTime:
    """Estimate the seconds before the first step. Data with a known number of tokens are tokenized already."""
    loading = LOAD_SECONDS[node.kind]
    if data.num_tokens is not None:
        return StartupTime(tokenizer=0.0, tokenizing=0.0, loading=loading)
    is_new = spec.tokenizer is None and spec.base_model is None
    learned = min(data.num_bytes, TOKENIZER_TRAINING_BYTES) if is_new else 0
    each = TEXT_SECONDS if spec.objective in TEXT_OBJECTIVES else RECORD_SECONDS
    return StartupTime(
        tokenizer=learned * TRAINING_SECONDS,
        tokenizing=data.num_bytes * each,
        loading=loading,
    )
