"""How right plans are: predicted against measured peak memory and step time of many small models on this machine.

Run: python bench/accuracy.py [CONFIGURATIONS], 48 if not told, some five seconds each. Each trains a few steps in
processes of its own, forked from one that has all libraries, as those of a job are, each with one thread. Between the
steps each measures the rate of matrix products, as a probe would. Times are those of the processor, which do not count
what else the machine does. Goals: median error of memory at most 10 %, of the step's time 15 %, 90 % of what is
measured within the plan's interval.
"""

import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from trainer.data import batch
from trainer.engines import base, factory
from trainer.launch.gang import free_port
from trainer.modeling import cpu_matmul, lora
from trainer.modeling.build import init_model
from trainer.modeling.objectives import objective
from trainer.planning import counts
from trainer.planning.hardware import Node
from trainer.planning.plan import plan
from trainer.spec import TrainSpec, resolve

STEPS, SIDE, LAPS = 4, 768, 2
SEED = 4
# Each kind of training, and how often it is drawn.
KINDS = [
    *[{"model_type": "llama", "objective": "causal"}] * 3,
    {"model_type": "qwen2", "objective": "causal"},
    *[{"model_type": "gpt2", "objective": "causal"}] * 2,
    {"model_type": "llama", "objective": "chat"},
    {"model_type": "llama", "objective": "dpo", "base_model": "b"},
    {"model_type": "llama", "objective": "dpo", "base_model": "b", "tuning": "lora"},
    {"model_type": "llama", "objective": "chat", "base_model": "b", "tuning": "lora"},
    {"model_type": "gpt2", "objective": "causal", "base_model": "b", "tuning": "lora", "lora_rank": 8},
    {"model_type": "bert", "objective": "masked"},
    {"model_type": "roberta", "objective": "masked"},
    {"model_type": "bert", "objective": "classification"},
    {"model_type": "t5", "objective": "span_corruption"},
    {"model_type": "t5", "objective": "seq2seq"},
]
CHOICES = {
    "hidden_size": (128, 256, 384, 512),
    "num_hidden_layers": (2, 4, 8),
    "sequence_length": (128, 256, 512),
    "per_device_batch_size": (1, 2, 4, 8),
    "gradient_accumulation_steps": (1, 1, 2),
    "gradient_checkpointing": (False, False, True),
    "vocab_size": (2048, 8192, 16384),
    "ranks": ((1, 0), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)),
}
MOST_TOKENS = 2048  # in a micro-batch, so that a step takes seconds


def configurations(number: int) -> list[TrainSpec]:
    """A fixed choice: all kinds in turn, the rest drawn."""
    drawing = random.Random(SEED)
    found: list[TrainSpec] = []
    while len(found) < number:
        fields = {name: drawing.choice(values) for name, values in CHOICES.items()}
        spec = specified({**KINDS[len(found) % len(KINDS)], **fields})
        if counts.tokens_per_sample(spec) * spec.per_device_batch_size <= MOST_TOKENS:
            found.append(spec)
    return found


def specified(fields: dict[str, Any]) -> TrainSpec:
    """The spec of a draw."""
    ranks, stage = fields.pop("ranks")
    batch_size = fields.pop("gradient_accumulation_steps") * ranks * fields["per_device_batch_size"]
    heads = fields["hidden_size"] // 32
    more = {"intermediate_size": fields["hidden_size"] * 3, "num_attention_heads": heads, "num_key_value_heads": heads}
    hardware = {"num_processes": ranks, "zero_stage": stage, "train_batch_size": batch_size}
    return resolve({"recipe": "tiny", "corpora": ["c"], "warmup_steps": 0, **fields, **more, **hardware})


def samples(spec: TrainSpec) -> batch.Batch:
    """A global batch that is as long as any may be."""
    assert spec.vocab_size is not None
    count, drawing = spec.train_batch_size, np.random.default_rng(1)
    source, target = counts.sample_lengths(spec)

    def ids(*shape: int) -> np.ndarray[Any, Any]:
        return drawing.integers(0, spec.vocab_size, (count, *shape))

    if spec.objective == "dpo":
        pairs = (2, spec.sequence_length)
        answered, weights = np.ones((count, *pairs), dtype=bool), np.ones(count, dtype=np.float32)
        return {"input_ids": ids(*pairs), "labels": ids(*pairs), "answered": answered, "weights": weights}
    if spec.model_type == "t5":
        return {"input_ids": ids(source), "labels": ids(target), "decoder_input_ids": ids(target)}
    made = {"input_ids": ids(source + target)}
    if spec.objective == "classification":
        labels = np.arange(count) % 2
        return {**made, "labels": labels, "attention_mask": np.ones_like(made["input_ids"])}
    made["labels"] = ids(source + target)
    if spec.objective == "masked":
        made["labels"][drawing.random(made["labels"].shape) > spec.mlm_probability] = batch.IGNORE_INDEX
    if spec.objective == "chat":
        places = np.arange(source + target) % (spec.sequence_length // 2)
        made["position_ids"] = np.tile(places, (count, 1))
        made["weights"] = np.ones(made["labels"].shape, dtype=np.float32)
    return made


def trained(spec: TrainSpec, rank: int, port: int) -> dict[str, float]:
    """Train a few steps as one rank: what this process held at most, and the seconds of its processor."""
    given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": spec.num_processes, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in given.items()}, MASTER_ADDR="127.0.0.1", OMP_NUM_THREADS="1")
    assert spec.vocab_size is not None
    device = base.init_process_group("cpu")
    model = init_model(
        spec, spec.vocab_size, 0, 1, device, labels=("a", "b") if spec.objective == "classification" else ()
    )
    if spec.tuning != "full":
        lora.add_lora(model, spec)
    taking = factory.make_engine(spec, objective(spec, model), device)
    whole = samples(spec)
    multiply, operations = cpu_matmul.matmul_benchmark(SIDE, device, torch.float32)
    steps, laps = [], []
    for number in range(1, 1 + STEPS):
        shared = taking.split_micro_batches(whole)
        steps.append(timed(partial(taking.step, number, shared, batch.num_targets(whole), False)))
        laps += [timed(multiply) for _time in range(LAPS)]
        taking.barrier()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak": peak, "seconds": min(steps), "flops": operations / min(laps)}


def timed(work: Callable[[], object]) -> float:
    """Seconds of the processor."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def forked(work: Callable[[], dict[str, float]]) -> tuple[int, int]:
    """A child that does the work; its process id, and where its answer can be read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    return pid, reading


def measured(spec: TrainSpec) -> dict[str, float]:
    """The ranks of a job: the most that one held, the seconds of the slowest, the products that all do together."""
    port = free_port()
    children = [forked(partial(trained, spec, rank, port)) for rank in range(spec.num_processes)]
    answers = []
    for pid, reading in children:
        with os.fdopen(reading) as file:
            answers.append(json.loads(file.read()))
        os.waitpid(pid, 0)
    return {
        "peak": max(answer["peak"] for answer in answers),
        "seconds": max(answer["seconds"] for answer in answers),
        "flops": sum(answer["flops"] for answer in answers),
    }


def compared(spec: TrainSpec, found: dict[str, float]) -> dict[str, float]:
    """The errors of the plan."""
    node = Node(memory_bytes=2**35, num_cpus=spec.num_processes, gemm_flops=found["flops"])
    figures = plan(spec, spec.vocab_size or 0, node).figures
    memory, step = figures["memory_bytes"], figures["step_seconds"]
    return {
        "memory": memory.value / found["peak"] - 1,
        "seconds": step.value / found["seconds"] - 1,
        "memory_inside": memory.low <= found["peak"] <= memory.high,
        "seconds_inside": step.low <= found["seconds"] <= step.high,
    }


def main(number: int) -> None:
    """Print a line for each configuration, and the medians."""
    errors, rates = [], []
    for spec in configurations(number):
        found = measured(spec)
        errors.append(compared(spec, found))
        rates.append(found["flops"] / spec.num_processes)
        shape = f"{spec.hidden_size} x {spec.num_hidden_layers}, {spec.sequence_length} x {spec.per_device_batch_size}"
        more = f"V {spec.vocab_size}, {spec.num_processes} x ZeRO-{spec.zero_stage}"
        more += ", checkpointing" if spec.gradient_checkpointing else ""
        print(
            f"{spec.model_type:8} {spec.objective:16} {spec.tuning:5} {shape:18} {more:38} "
            f"memory {errors[-1]['memory']:+6.1%} of {found['peak'] / 2**20:.0f} MiB, "
            f"step {errors[-1]['seconds']:+6.1%} of {found['seconds']:.2f} s",
            flush=True,
        )
    for what in ("memory", "seconds"):
        error = statistics.median(abs(each[what]) for each in errors)
        inside = statistics.mean(each[f"{what}_inside"] for each in errors)
        print(f"{what}: median error {error:.1%}, {inside:.0%} within the interval")
    print(f"matrix products at {statistics.median(rates) / 1e9:.0f} GFLOP/s of one core")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 48)
