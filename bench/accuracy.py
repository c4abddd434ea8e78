"""How accurate plans are: predicted against measured peak memory and step time of many small models on this machine.

`PYTHONPATH=. python bench/accuracy.py [NUM_CONFIGURATIONS | --whole-runs [SEED] | --smoke]`. By default 48 drawn
configurations, some five seconds each, and those of LARGE_VOCABULARY. Each evaluates once and trains a few steps in
processes of its own, forked from one that has all libraries, as those of a job are, each with one thread. Between the
steps each measures the rate of matrix products, as the trainer's benchmark does. Times are CPU times, which do not
count what else the machine does. With --whole-runs, the runs of support/whole_runs.py instead: real data, evaluations,
samples and saves; with a seed, 24 drawn shapes of them. Of these only the memory is compared.
Goals: median error of memory at most 10 %, of the step's time 15 %, 90 % of the measurements within the plan's
interval.
"""

import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bench.support import whole_runs
from bench.support.arguments import IS_SMOKE, WORDS, size
from bench.support.forked import Forked
from trainer.data import batch
from trainer.engines import base, factory
from trainer.launch.environment import free_port
from trainer.modeling import cpu_matmul, lora
from trainer.modeling.build import init_model
from trainer.modeling.objectives import objective
from trainer.planning import counts
from trainer.planning.hardware import NodeHardware
from trainer.planning.plan import plan
from trainer.spec import TrainSpec, resolve

NUM_CONFIGURATIONS, NUM_DRAWN = 48, 24
STEPS, SIDE, REPEATS = 4, 768, 2
SEED = 4
# Each kind of training, as often as it is drawn.
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
    "ranks": ((1, 0), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)),  # processes, zero_stage
}
MAX_TOKENS = 2048  # in a micro-batch, so that a step takes seconds
# Small models whose logits would be most of the memory: (kind of training, micro-batch).
LARGE_VOCABULARY = [
    ({"model_type": "llama", "objective": "causal"}, 256),
    ({"model_type": "llama", "objective": "chat"}, 128),
    ({"model_type": "gpt2", "objective": "causal", "base_model": "b", "tuning": "lora", "lora_rank": 8}, 128),
    ({"model_type": "llama", "objective": "dpo", "base_model": "b"}, 16),
    ({"model_type": "bert", "objective": "masked"}, 32),
    ({"model_type": "t5", "objective": "seq2seq"}, 32),
]


def configurations(number: int) -> list[TrainSpec]:
    """The same `number` specs each time: all kinds in turn, the other fields drawn."""
    generator = random.Random(SEED)
    specs: list[TrainSpec] = []
    while len(specs) < number:
        fields = {name: generator.choice(values) for name, values in CHOICES.items()}
        spec = make_spec({**KINDS[len(specs) % len(KINDS)], **fields})
        if counts.tokens_per_sample(spec) * spec.per_device_batch_size <= MAX_TOKENS:
            specs.append(spec)
    return specs


def large_vocabulary(kind: dict[str, Any], batch_size: int) -> TrainSpec:
    """A spec of the `tiny` recipe with 32,768 tokens in its vocabulary, and sequences of 64."""
    sizes = {"vocab_size": 32_768, "sequence_length": 64, "hidden_size": 128, "num_hidden_layers": 4}
    return make_spec({**sizes, "per_device_batch_size": batch_size, **kind})


def make_spec(fields: dict[str, Any]) -> TrainSpec:
    """The spec with these fields, those of CHOICES among them."""
    ranks, stage = fields.pop("ranks", (1, 0))
    batch_size = fields.pop("gradient_accumulation_steps", 1) * ranks * fields["per_device_batch_size"]
    heads = fields["hidden_size"] // 32
    sizes = {"intermediate_size": fields["hidden_size"] * 3, "num_attention_heads": heads, "num_key_value_heads": heads}
    hardware = {"num_processes": ranks, "zero_stage": stage, "train_batch_size": batch_size}
    return resolve({"recipe": "tiny", "corpora": ["c"], "warmup_steps": 0, **fields, **sizes, **hardware})


def random_batch(spec: TrainSpec) -> batch.Batch:
    """A global batch of random token ids in which every sample is as long as the spec allows."""
    assert spec.vocab_size is not None
    count, generator = spec.train_batch_size, np.random.default_rng(1)
    source, target = counts.sample_lengths(spec)

    def ids(*shape: int) -> np.ndarray[Any, Any]:
        return generator.integers(0, spec.vocab_size, (count, *shape))

    if spec.objective == "dpo":
        pairs = (2, spec.sequence_length)
        answered, weights = np.ones((count, *pairs), dtype=bool), np.ones(count, dtype=np.float32)
        return {"input_ids": ids(*pairs), "labels": ids(*pairs), "answered": answered, "weights": weights}
    if spec.model_type == "t5":
        return {"input_ids": ids(source), "labels": ids(target), "decoder_input_ids": ids(target)}
    arrays = {"input_ids": ids(source + target)}
    if spec.objective == "classification":
        labels = np.arange(count) % 2
        return {**arrays, "labels": labels, "attention_mask": np.ones_like(arrays["input_ids"])}
    arrays["labels"] = ids(source + target)
    if spec.objective == "masked":
        arrays["labels"][generator.random(arrays["labels"].shape) > spec.mlm_probability] = batch.IGNORE_INDEX
    if spec.objective == "chat":
        positions = np.arange(source + target) % (spec.sequence_length // 2)
        arrays["position_ids"] = np.tile(positions, (count, 1))
        arrays["weights"] = np.ones(arrays["labels"].shape, dtype=np.float32)
    return arrays


def train_rank(spec: TrainSpec, rank: int, port: int) -> dict[str, float]:
    """Evaluate and train a few steps as one rank.

    Returns this process's peak bytes, of evaluation and in all, CPU seconds of a step, FLOP/s.
    """
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": spec.num_processes, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in variables.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", OMP_NUM_THREADS="1")
    assert spec.vocab_size is not None
    device = base.init_process_group("cpu")
    labels = ("a", "b") if spec.objective == "classification" else ()
    model = init_model(spec, spec.vocab_size, 0, 1, device, labels=labels)
    if spec.tuning != "full":
        lora.add_lora(model, spec)
    engine = factory.make_engine(spec, objective(spec, model), device)
    global_batch = random_batch(spec)
    micro_batches = engine.split_micro_batches(global_batch)
    engine.evaluate_sums(micro_batches)
    evaluation_peak = peak_bytes()
    multiply, operations = cpu_matmul.matmul_benchmark(SIDE, device, torch.float32)
    steps, multiply_seconds = [], []
    for number in range(1, 1 + STEPS):
        steps.append(cpu_seconds(partial(engine.step, number, micro_batches, batch.num_targets(global_batch), False)))
        multiply_seconds += [cpu_seconds(multiply) for _repeat in range(REPEATS)]
        engine.barrier()
    return {
        "evaluation_peak": evaluation_peak,
        "peak": peak_bytes(),
        "seconds": min(steps),
        "flops": operations / min(multiply_seconds),
    }


def peak_bytes() -> int:
    """The most memory that this process has held at a time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process that the work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(spec: TrainSpec) -> dict[str, float]:
    """Train the spec: peak bytes of the largest rank, of evaluation and in all, seconds of the slowest, FLOP/s of all
    ranks together.
    """
    port = free_port()
    children = [Forked(partial(train_rank, spec, rank, port)) for rank in range(spec.num_processes)]
    results = [child.result() for child in children]
    return {
        "evaluation_peak": max(result["evaluation_peak"] for result in results),
        "peak": max(result["peak"] for result in results),
        "seconds": max(result["seconds"] for result in results),
        "flops": sum(result["flops"] for result in results),
    }


def compare(spec: TrainSpec, measured: dict[str, float]) -> dict[str, float]:
    """The relative errors of the plan, and whether the measurements lie within its intervals."""
    node = NodeHardware(memory_bytes=2**35, num_cpus=spec.num_processes, gemm_flops=measured["flops"])
    figures = plan(spec, spec.vocab_size or 0, node).figures
    memory, step = figures["memory_bytes"], figures["step_seconds"]
    return {
        "memory": memory.value / measured["peak"] - 1,
        "seconds": step.value / measured["seconds"] - 1,
        "memory_inside": memory.low <= measured["peak"] <= memory.high,
        "seconds_inside": step.low <= measured["seconds"] <= step.high,
    }


def describe(spec: TrainSpec, measured: dict[str, float], errors: dict[str, float]) -> str:
    """One line about a configuration."""
    shape = f"{spec.hidden_size} x {spec.num_hidden_layers}, {spec.sequence_length} x {spec.per_device_batch_size}"
    more = f"V {spec.vocab_size}, {spec.num_processes} x ZeRO-{spec.zero_stage}"
    more += ", checkpointing" if spec.gradient_checkpointing else ""
    return (
        f"{spec.model_type:8} {spec.objective:16} {spec.tuning:5} {shape:18} {more:38} "
        f"memory {errors['memory']:+6.1%} of {measured['peak'] / 2**20:.0f} MiB "
        f"({measured['evaluation_peak'] / 2**20:.0f} after evaluation), "
        f"step {errors['seconds']:+6.1%} of {measured['seconds']:.2f} s"
    )


def main(specs: list[TrainSpec]) -> None:
    """Print a line for each configuration, and the medians."""
    errors, rates = [], []
    for spec in specs:
        measured = measure(spec)
        errors.append(compare(spec, measured))
        rates.append(measured["flops"] / spec.num_processes)
        print(describe(spec, measured, errors[-1]), flush=True)
    for quantity in ("memory", "seconds"):
        error = statistics.median(abs(each[quantity]) for each in errors)
        inside = statistics.mean(each[f"{quantity}_inside"] for each in errors)
        print(f"{quantity}: median error {error:.1%}, {inside:.0%} within the interval")
    print(f"matrix products at {statistics.median(rates) / 1e9:.0f} GFLOP/s of one core")


def compare_whole_runs(shapes: list[dict[str, Any]]) -> None:
    """Print the planned and the measured peak memory of whole runs, and the median error."""
    errors, inside = [], []
    for number, fields in enumerate(shapes, start=1):
        spec = whole_runs.make_spec(dict(fields))
        with TemporaryDirectory() as home:
            peak = whole_runs.whole_run_peak(spec, Path(home))
        node = NodeHardware(memory_bytes=2**35, num_cpus=spec.num_processes)
        memory = plan(spec, spec.vocab_size or 0, node).figures["memory_bytes"]
        errors.append(memory.value / peak - 1)
        inside.append(memory.low <= peak <= memory.high)
        shape = f"{spec.hidden_size} x {spec.num_hidden_layers}, {spec.sequence_length} x {spec.per_device_batch_size}"
        more = f"V {spec.vocab_size}, {spec.num_processes} x ZeRO-{spec.zero_stage}"
        print(
            f"{number:2} {spec.model_type:8} {spec.objective:16} {spec.tuning:5} {shape:19} {more:22} measured "
            f"{peak / 2**20:6.0f} MiB, planned {memory.value / 2**20:6.0f} ({memory.low / 2**20:.0f} to "
            f"{memory.high / 2**20:.0f}), {errors[-1]:+6.1%}{'' if inside[-1] else ' OUTSIDE'}",
            flush=True,
        )
    median = statistics.median(map(abs, errors))
    print(f"memory of whole runs: median error {median:.1%}, {sum(inside)} of {len(inside)} within the interval")


if __name__ == "__main__":
    if "--whole-runs" in sys.argv:
        compare_whole_runs(whole_runs.drawn_shapes(NUM_DRAWN, int(WORDS[0])) if WORDS else whole_runs.SHAPES)
    elif IS_SMOKE:
        compare_whole_runs([whole_runs.shape(whole_runs.CHAT, 1_100, 64, 4, hidden_size=64)])
        STEPS, SIDE, REPEATS = 1, 64, 1
        main([large_vocabulary({"model_type": "llama", "objective": "causal", "vocab_size": 512}, 1)])
    else:
        main(
            [
                *configurations(size(NUM_CONFIGURATIONS, smoke=0)),
                *(large_vocabulary(*fields) for fields in LARGE_VOCABULARY),
            ]
        )
