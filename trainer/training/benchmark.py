"""Measures what a run will cost before its first step, and leaves every bit as it was. Imports torch.

The rate of matrix products; one micro-batch, the largest of the first step, forward and backward as far as that can be
done without the engine's gradients; the memory that it takes; how fast the disk takes a file. A machine on which that
does not fit runs out of memory here, before anything was trained.
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

SIDES = {"cpu": 512, "cuda": 4096}  # of the matrices that are multiplied
LAPS = 3
WRITTEN_BYTES = 4 << 20
# A step takes so many times the seconds of a forward pass: the backward pass twice as long, and again the forward pass
# where activations are not kept.
STEP_OF_FORWARD, STEP_OF_FORWARD_AGAIN = 3.0, 4.0


def run(engine: Engine, samples: Dataset, first: int, directory: Path, report: Reporter) -> None:
    """Measure, and report what was found. `first` is the number of the first sample of the next step, `directory` one
    on the disk that checkpoints are written to. All ranks take part.
    """
    spec = engine.spec
    micro_batches = engine.split_micro_batches(samples.train_batch(first, spec.train_batch_size))
    largest = max(micro_batches, key=lambda tensors: tensors["input_ids"].numel())
    rate = _rate(engine)
    is_whole, seconds = time_micro_batch(engine, largest)
    step_seconds = seconds * len(micro_batches)
    if not is_whole:
        step_seconds *= STEP_OF_FORWARD_AGAIN if spec.gradient_checkpointing else STEP_OF_FORWARD
    slowest, peak = _over_ranks(engine, step_seconds, peak_bytes(engine.device))
    saving = _seconds_to_write(directory, checkpoint.num_bytes(engine)) if engine.rank == 0 else None
    report.event(
        "probe",
        precision=engine.precision,
        gemm_flops=rate,
        step_seconds=slowest,
        peak_bytes=int(peak),
        save_seconds=saving,
        is_whole=is_whole,
    )
    how = "forward and backward" if is_whole else "forward only"
    report.line(
        f"probe ({how}): about {slowest:.3g} s a step, {peak / 2**20:.0f} MiB, {rate / 1e9:.3g} GFLOP/s in products"
    )


def report_resource_usage(engine: Engine, step: int, seconds: Sequence[float], report: Reporter) -> None:
    """Report what the steps so far really took. All ranks take part."""
    slowest, peak = _over_ranks(engine, statistics.median(seconds), peak_bytes(engine.device))
    report.event("usage", step=step, step_seconds=slowest, peak_bytes=int(peak))


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process held so far: of its GPU, or of the machine."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        beside = total - free - torch.cuda.memory_reserved(device)  # the context, libraries, other processes
        return torch.cuda.max_memory_reserved(device) + beside
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rate(engine: Engine) -> float:
    """Operations a second of matrix products, at the precision of the run."""
    side, dtype = SIDES[engine.device.type], torch.bfloat16 if engine.precision == "bf16" else torch.float32
    if engine.device.type == "cpu":
        dtype = torch.float32  # bf16 would take minutes there
    multiply, operations = cpu_matmul.matmul_benchmark(side, engine.device, dtype)
    return operations / min(_timed(engine.device, multiply) for _lap in range(1 + LAPS))


def time_micro_batch(engine: Engine, tensors: dict[str, Tensor]) -> tuple[bool, float]:
    """Whether a micro-batch was computed forward and backward, or only forward, and the seconds it took.

    Whole gradients are more than a step holds where ranks share them, or where they leave the device; and ZeRO-3
    follows the order in which weights are used, which half a step would confuse.
    """
    spec = engine.spec
    engine.objective.train()
    if spec.zero_stage >= 2 or spec.offload_optimizer or spec.offload_parameters:
        return False, _timed(engine.device, lambda: engine.evaluate_sums([tensors]))
    trained = [parameter for parameter in engine.objective.parameters() if parameter.requires_grad]

    def compute() -> None:
        # Gradients that are returned, not kept: neither the parameters nor DeepSpeed hear of them.
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
    """The greatest of each."""
    maxima = torch.tensor(values, dtype=torch.float64, device=engine.device)
    if engine.world_size > 1:
        dist.all_reduce(maxima, dist.ReduceOp.MAX)
    return [float(value) for value in maxima.tolist()]


def _seconds_to_write(directory: Path, num_bytes: int) -> float | None:
    """What the disk needs for so many bytes; none where it takes nothing now."""
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
