"""Runs one rank: joins the process group, trains and returns the exit code. Imports torch and DeepSpeed."""

import gc
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist

from trainer.datasets import prepare as preparation
from trainer.engines.base import init_process_group
from trainer.events import Journal
from trainer.launch.process import StopRequest, run_and_report
from trainer.report import Reporter, log_to_stdout
from trainer.run_dir import RunDir, publish
from trainer.training.loop import train


def run(run_dir: RunDir, fence: int, kind: str, *, is_supervised: bool) -> int:
    """Train as the rank given by the environment variable RANK. Returns the exit code. `kind` is cpu or cuda.

    Without a supervisor, the first rank also prepares the run and publishes its checkpoints.
    """
    log_to_stdout()
    is_stopping = StopRequest(signal.SIGTERM) if is_supervised else StopRequest(signal.SIGTERM, signal.SIGINT)
    is_first = os.environ["RANK"] == "0"
    report = Reporter(Journal(run_dir.events_path(fence)) if is_first else None)

    def on_saved(directory: Path, step: int) -> None:
        if not is_supervised:
            publish(directory, run_dir.checkpoint_path(step, fence))

    def work() -> int:
        device = init_process_group(kind)
        if not is_supervised:
            if is_first:
                preparation.prepare(run_dir, fence, report)
            dist.barrier()
        code = train(run_dir, fence, device, report, is_stopping, on_saved, is_verified=is_supervised)
        gc.collect()  # an engine that outlives its process groups can abort the interpreter at exit
        dist.destroy_process_group()
        return code

    return run_and_report(report, work)


def best_device() -> str:
    """The default kind of device: cuda if there is a GPU, otherwise cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"
