"""Chooses the library of a CPU's fp32 matrix products, so that a resumed run computes the same bits. Imports torch.

Libraries round differently, so the choice belongs to a run: it is written into every checkpoint as a part of the
device's name, and a resumed run follows its checkpoint. A run that starts follows its node: the speedup of oneDNN is
measured once and kept in the cache of the installation, for each kind of processor and version of torch.
"""

import json
import os
import platform
from pathlib import Path

import torch
import torch.distributed as dist

from trainer.data.cache import cache_key, get_or_create
from trainer.modeling import cpu_matmul
from trainer.modeling.broadcast import broadcast_json
from trainer.report import Reporter

VARIABLE = "ATHANOR_FP32_MATMUL"  # auto, torch or onednn
MIN_SPEEDUP = 1.2  # less is not worth a private operator
CPU_INFO = Path("/proc/cpuinfo")
MEASUREMENT = "speedup.json"


def configure_matmul(device: torch.device, cache: Path, checkpoint_device: str | None, report: Reporter) -> None:
    """Choose the library for this process. All ranks take part and follow the first one.

    `checkpoint_device` names the device that wrote the checkpoint to resume from, as `cpu_matmul.cpu_name` does.
    """
    if device.type != "cpu":
        return
    is_faster = dist.get_rank() == 0 and choose_onednn(cache, checkpoint_device, report)
    cpu_matmul.set_onednn(broadcast_json(is_faster))


def choose_onednn(cache: Path, checkpoint_device: str | None, report: Reporter) -> bool:
    """Whether to use oneDNN: by the setting, else as the checkpoint's run did, else by the node's measurement."""
    setting = os.environ.get(VARIABLE, "auto")
    if setting != "auto":
        return setting == "onednn"
    for is_on in (False, True):
        if checkpoint_device == cpu_matmul.cpu_name(is_on):
            return is_on
    speedup = measured_speedup(cache)
    report.line(f"oneDNN computes fp32 matrix products {speedup:.2f} times as fast as torch's default library")
    return speedup >= MIN_SPEEDUP


def measured_speedup(cache: Path) -> float:
    """The speedup of oneDNN on this kind of processor, measured unless the cache has it. Raises OSError."""
    key = cache_key(processor=_processor(), capability=cpu_matmul.cpu_name(False), torch=torch.__version__)
    entry = cache / "fp32-matmul" / key

    def measure(directory: Path) -> None:
        measurement = {"processor": _processor(), "speedup": cpu_matmul.onednn_speedup()}
        (directory / MEASUREMENT).write_text(json.dumps(measurement))

    get_or_create(entry, measure)
    return float(json.loads((entry / MEASUREMENT).read_text())["speedup"])


def _processor() -> str:
    """The model name of the processor, as far as the system reports it."""
    try:
        return CPU_INFO.read_text().partition("model name")[2].partition("\n")[0].strip("\t :")
    except OSError:
        return platform.processor()
