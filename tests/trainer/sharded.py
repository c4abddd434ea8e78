"""A rank of two for tests: shards a model under ZeRO-3, takes two steps, and says what it held; JSON.

`RANK=... python -m tests.trainer.sharded`, with torchrun's other variables.
"""

import gc
import json
import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tests.trainer.runs import small_spec
from trainer.engines.base import init_process_group
from trainer.engines.factory import make_engine
from trainer.modeling import zero_init
from trainer.modeling.build import init_model
from trainer.modeling.objectives import objective

VOCAB_SIZE = 300
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "sequence_length": 8}


def main() -> None:
    said = steps(init_process_group("cpu"))
    gc.collect()  # as trainer/launch/rank.py does
    dist.destroy_process_group()
    sys.stdout.write(json.dumps(said) + "\n")


def steps(device: torch.device) -> dict[str, Any]:
    """What this rank held before and holds after two steps, and what they gave."""
    drawn = np.random.default_rng(0)
    spec = small_spec(
        num_processes=2, zero_stage=3, warmup_steps=0, learning_rate=0.01, tie_word_embeddings=True, **SIZES
    )
    batch = {"input_ids": drawn.integers(0, VOCAB_SIZE, (8, 8)), "labels": drawn.integers(0, VOCAB_SIZE, (8, 8))}
    model = init_model(spec, VOCAB_SIZE, 0, 1, zero_init.init_device(spec, device))
    learning = objective(spec, model)
    made = [parameter.is_meta for parameter in learning.parameters()]
    engine = make_engine(spec, learning, device)
    return {
        "holds": sum(not is_meta for is_meta in made),
        "parameters": len(made),
        "share": sum(parameter.ds_tensor.numel() for parameter in learning.parameters()),  # type: ignore[attr-defined]
        "values": sum(parameter.ds_numel for parameter in learning.parameters()),  # type: ignore[attr-defined]
        "buffers": [float(buffer.double().sum()) for buffer in learning.buffers()],
        "steps": [engine.step(number, engine.split_micro_batches(batch), 64, False)[:2] for number in (1, 2)],
        "is_tied": model.get_input_embeddings().weight is model.get_output_embeddings().weight,
        "is_on_cpu": all(torch.device("cpu") == buffer.device for buffer in learning.buffers()),
    }


if __name__ == "__main__":
    main()
