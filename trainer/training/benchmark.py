"""Measures the cost of a run before its first step, without changing weights, gradients or random state. Imports torch.

It measures the rate of matrix products; the time and memory of one micro-batch, the largest of the first step, forward
and, where possible, backward; and the speed of the disk. A run that does not fit runs out of memory here, before
anything was trained.
"""

import contextlib
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.datasets.base import Dataset
from trainer.engines.base import Engine
from trainer.modeling import cpu_matmul
from trainer.report import Reporter
from trainer.training import checkpoint

MATRIX_SIZES = {"cpu": 512, "cuda": 4096}  # rows and columns of the matrices that are multiplied
REPEATS = 3
WRITTEN_BYTES = 4 << 20
# The time of a step as a multiple of its forward pass: the backward pass takes twice as long as the forward pass, which
# gradient checkpointing repeats.
STEP_PER_FORWARD = 3.0
STEP_PER_FORWARD_RECOMPUTED = 4.0


def run(engine: Engine, samples: Dataset, first: int, directory: Path, report: Reporter) -> None:
    """Measure, and write the results to the journal and the log. All ranks take part.

    `first` is the position of the next step's first sample; `directory` is on the disk that checkpoints are written to.
    """
    spec = engine.spec
    micro_batches = engine.split_micro_batches(samples.train_batch(first, spec.train_batch_size))
    largest = max(micro_batches, key=lambda tensors: tensors["input_ids"].numel())
    rate = _rate(engine)
    has_backward, seconds = time_micro_batch(engine, largest)
    step_seconds = seconds * len(micro_batches)
    if not has_backward:
        step_seconds *= STEP_PER_FORWARD_RECOMPUTED if spec.gradient_checkpointing else STEP_PER_FORWARD
    slowest, peak = _over_ranks(engine, step_seconds, peak_bytes(engine.device))
    saving = _seconds_to_write(directory, checkpoint.num_bytes(engine)) if engine.rank == 0 else None
    report.event(
        "probe",
        precision=engine.precision,
        gemm_flops=rate,
        step_seconds=slowest,
        peak_bytes=int(peak),
        save_seconds=saving,
        is_whole=has_backward,
    )
    how = "forward and backward" if has_backward else "forward only"
    report.line(
        f"probe ({how}): about {slowest:.3g} s a step, {peak / 2**20:.0f} MiB, {rate / 1e9:.3g} GFLOP/s in products"
    )


def report_resource_usage(engine: Engine, step: int, seconds: Sequence[float], report: Reporter) -> None:
    """Report the median time of the steps so far, in seconds, and the peak memory. All ranks take part."""
    slowest, peak = _over_ranks(engine, statistics.median(seconds), peak_bytes(engine.device))
    report.event("usage", step=step, step_seconds=slowest, peak_bytes=int(peak))


def peak_bytes(device: torch.device) -> int:
    """The peak memory of this process so far, in bytes: of its GPU, or main memory on a CPU."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        outside_torch = total - free - torch.cuda.memory_reserved(device)  # the context, libraries, other processes
        return torch.cuda.max_memory_reserved(device) + outside_torch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rate(engine: Engine) -> float:
    """The rate of matrix products in FLOP/s, at the precision of the run; on a CPU always in fp32."""
    dtype = torch.bfloat16 if engine.precision == "bf16" else torch.float32
    if engine.device.type == "cpu":
        dtype = torch.float32  # bf16 would take minutes there
    size = MATRIX_SIZES[engine.device.type]
    multiply, operations = cpu_matmul.matmul_benchmark(size, engine.device, dtype)
    return operations / min(_timed(engine.device, multiply) for _repeat in range(1 + REPEATS))


def time_micro_batch(engine: Engine, tensors: dict[str, Tensor]) -> tuple[bool, float]:
    """Time one micro-batch. Returns whether the backward pass was included, and the seconds.

    The backward pass is left out where complete gradients take more memory than a step holds: ranks share them (ZeRO 2
    and 3), or they are offloaded. ZeRO-3 also records the order in which weights are used, which part of a step would
    disturb.
    """
    spec = engine.spec
    engine.objective.train()
    if spec.zero_stage >= 2 or spec.offload_optimizer or spec.offload_parameters:
        return False, _timed(engine.device, lambda: engine.evaluate_sums([tensors]))
    trained = [parameter for parameter in engine.objective.parameters() if parameter.requires_grad]

    def compute() -> None:
        # Gradients are returned, not stored in the parameters: DeepSpeed's hooks do not run.
        torch.autograd.grad(engine.forward_loss(tensors), trained, allow_unused=True)

    with torch.random.fork_rng([engine.device] if engine.device.type == "cuda" else []):
        return True, _timed(engine.device, compute)


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def _over_ranks(engine: Engine, *values: float) -> list[float]:
    """The maximum of each value over all ranks."""
    maxima = torch.tensor(values, dtype=torch.float64, device=engine.device)
    if engine.world_size > 1:
        dist.all_reduce(maxima, dist.ReduceOp.MAX)
    return [float(value) for value in maxima.tolist()]


def _seconds_to_write(directory: Path, num_bytes: int) -> float | None:
    """The seconds that the disk takes to write so many bytes, or None if it cannot be written now."""
    path = directory / "probe.bin"
    try:
        begin = time.perf_counter()
        with path.open("wb") as file:
            file.write(bytes(WRITTEN_BYTES))
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - begin) * num_bytes / WRITTEN_BYTES
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
