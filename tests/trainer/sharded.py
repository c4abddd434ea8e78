"""One of two ranks for tests: shards a model under ZeRO-3, takes two steps, and prints what it allocated as JSON.

`RANK=... python -m tests.trainer.sharded`, with torchrun's other variables.
"""

import gc
import json
import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from tests.trainer.runs import small_spec
from trainer.engines.base import init_process_group
from trainer.engines.factory import make_engine
from trainer.modeling import zero_init
from trainer.modeling.broadcast import broadcast_json
from trainer.modeling.build import init_model
from trainer.modeling.objectives import objective

VOCAB_SIZE = 300
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "sequence_length": 8}


def main() -> None:
    distributed_c10d._tensor_to_object = refuse_pickle  # type: ignore[assignment]
    device = init_process_group("cpu")
    results = steps(device) | {"broadcast": broadcast_json([dist.get_rank(), "天", None])}
    gc.collect()  # as trainer/launch/rank.py does
    dist.destroy_process_group()
    sys.stdout.write(json.dumps(results) + "\n")


def refuse_pickle(*_arguments: object) -> None:
    """In place of torch's function that unpickles what another rank sent."""
    raise AssertionError("ranks exchange pickled objects")


def steps(device: torch.device) -> dict[str, Any]:
    """What this rank allocated before and after sharding, and the results of two steps."""
    rng = np.random.default_rng(0)
    spec = small_spec(
        num_processes=2, zero_stage=3, warmup_steps=0, learning_rate=0.01, tie_word_embeddings=True, **SIZES
    )
    batch = {"input_ids": rng.integers(0, VOCAB_SIZE, (8, 8)), "labels": rng.integers(0, VOCAB_SIZE, (8, 8))}
    model = init_model(spec, VOCAB_SIZE, 0, 1, zero_init.init_device(spec, device))
    learner = objective(spec, model)
    is_meta = [parameter.is_meta for parameter in learner.parameters()]
    engine = make_engine(spec, learner, device)
    return {
        "holds": sum(not meta for meta in is_meta),
        "parameters": len(is_meta),
        "share": sum(parameter.ds_tensor.numel() for parameter in learner.parameters()),  # type: ignore[attr-defined]
        "values": sum(parameter.ds_numel for parameter in learner.parameters()),  # type: ignore[attr-defined]
        "buffers": [float(buffer.double().sum()) for buffer in learner.buffers()],
        "steps": [engine.step(number, engine.split_micro_batches(batch), 64, False)[:2] for number in (1, 2)],
        "is_tied": model.get_input_embeddings().weight is model.get_output_embeddings().weight,
        "is_on_cpu": all(torch.device("cpu") == buffer.device for buffer in learner.buffers()),
    }


if __name__ == "__main__":
    main()
