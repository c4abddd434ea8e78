"""How right plans are: predicted against measured peak memory and step time of many small models on this machine.

Run: python bench/accuracy.py [CONFIGURATIONS], 40 if not told, about ten seconds each. Each trains three steps in a
process of its own and measures the rate of matrix products beside them, as a probe would. Goals: median error of
memory at most 10 %, of the step's time 15 %, 90 % of what is measured within the plan's interval.
"""

import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from trainer import engine
from trainer.model import build
from trainer.objectives import objective
from trainer.plan import Node, plan
from trainer.spec import resolve

STEPS, LAPS, SIDE = 3, 5, 1024
VOCABULARIES = (2048, 8192, 16384)
WIDTHS = (128, 256, 384, 512)


def configurations(number: int) -> list[dict[str, Any]]:
    """A fixed choice among all combinations that a small machine can hold."""
    every = itertools.product(
        ("llama", "gpt2"), WIDTHS, (2, 4, 8), (128, 256, 512), (1, 4, 8), (False, True), (0, 1, 2), VOCABULARIES
    )
    names = (
        *("model_type", "hidden_size", "num_hidden_layers", "sequence_length", "per_device_batch_size"),
        *("gradient_checkpointing", "zero_stage", "vocab_size"),
    )
    found = [dict(zip(names, values, strict=True)) for values in every]
    small = [each for each in found if each["sequence_length"] * each["per_device_batch_size"] <= 2048]
    return random.Random(2).sample(small, number)


def measured(fields: dict[str, Any]) -> dict[str, float]:
    """Train a few steps in this process; the errors of its plan."""
    heads = fields["hidden_size"] // 32
    more = {"intermediate_size": fields["hidden_size"] * 3, "num_attention_heads": heads, "num_key_value_heads": heads}
    batch_size = {"train_batch_size": fields["per_device_batch_size"], "warmup_steps": 0}
    spec = resolve({"recipe": "tiny", "corpora": ["c"], **fields, **more, **batch_size})
    assert spec.vocab_size is not None
    given = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ.update(given, MASTER_PORT=str(20_000 + os.getpid() % 20_000))
    device = engine.join("cpu")
    trained = engine.make_engine(spec, objective(spec, build(spec, spec.vocab_size, 0, 1, device)), device)
    rows = np.random.default_rng(1).integers(0, spec.vocab_size, (spec.train_batch_size, spec.sequence_length + 1))
    samples = {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}
    torch.set_num_threads(1)
    times = [
        timed(partial(trained.step, step, trained.share(samples), spec.tokens_per_step, False))
        for step in range(1, 1 + STEPS)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    matrix = torch.rand(SIDE, SIDE)
    rate = 2 * SIDE**3 / min(timed(partial(torch.mm, matrix, matrix)) for _lap in range(LAPS))
    figures = plan(spec, spec.vocab_size, Node(memory_bytes=2**34, num_cpus=1, gemm_flops=rate)).figures
    memory, step = figures["memory_bytes"], figures["step_seconds"]
    return {
        "memory": memory.value / peak - 1,
        "seconds": step.value / min(times) - 1,
        "memory_inside": memory.low <= peak <= memory.high,
        "seconds_inside": step.low <= min(times) <= step.high,
        "gigaflops": rate / 1e9,
        "step_seconds": min(times),
    }


def timed(work: Callable[[], object]) -> float:
    """Seconds of the processor, which do not count what else the machine does."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main(number: int) -> None:
    """Print a line for each configuration, and the medians."""
    found = []
    for fields in configurations(number):
        command = [sys.executable, __file__, "--one", json.dumps(fields)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        said = " ".join(str(value) for value in fields.values())
        errors = f"memory {found[-1]['memory']:+6.1%}, step {found[-1]['seconds']:+6.1%}"
        print(f"{said:44} {errors} of {found[-1]['step_seconds']:.2f} s", flush=True)
    for what in ("memory", "seconds"):
        error = statistics.median(abs(each[what]) for each in found)
        inside = statistics.mean(each[f"{what}_inside"] for each in found)
        print(f"{what}: median error {error:.1%}, {inside:.0%} within the interval")
    print(f"matrix products at {statistics.median(each['gigaflops'] for each in found):.0f} GFLOP/s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measured(json.loads(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 40)
