"""A process for tests: prints three steps of a tiny model with each ZeRO stage and precision as JSON.

With the argument `probed`, a micro-batch is timed before the first step.
"""

import json
import os
import sys

import numpy as np

from tests.trainer.runs import small_spec
from trainer.engines.base import init_process_group
from trainer.engines.factory import make_engine
from trainer.launch.environment import set_rank_environment
from trainer.modeling.build import init_model
from trainer.modeling.objectives import objective
from trainer.training import benchmark


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    set_rank_environment(0, 1)
    device = init_process_group("cpu")
    rows = np.random.default_rng(0).integers(0, 20, (8, 9))
    batch = {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}
    offloaded = {"offload_optimizer": True}
    for precision in ("fp32", "bf16"):
        for zero_stage, more in [*((stage, {}) for stage in range(4)), (2, offloaded)]:
            sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "sequence_length": 8}
            spec = small_spec(
                precision=precision, zero_stage=zero_stage, warmup_steps=0, learning_rate=0.01, **sizes, **more
            )
            engine = make_engine(spec, objective(spec, init_model(spec, 300, 0, 1, device)), device)
            if "probed" in sys.argv:
                benchmark.time_micro_batch(engine, engine.split_micro_batches(batch)[0])
            steps = [engine.step(number, engine.split_micro_batches(batch), 64, False)[:2] for number in (1, 2, 3)]
            sys.stdout.write(json.dumps({"precision": precision, "steps": steps}) + "\n")


if __name__ == "__main__":
    main()
