"""The training loop of one rank, from a prepared run to its last checkpoint. Reads top to bottom."""

import math
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from trainer.data import batch as batches
from trainer.datasets import prepare as preparation
from trainer.datasets.factory import open_dataset
from trainer.engines.base import precision
from trainer.engines.factory import make_engine
from trainer.engines.optimizers import learning_rate
from trainer.events import EXIT_OK, EXIT_RESUMABLE
from trainer.failure import Failure
from trainer.fault_injection import Failpoints
from trainer.inference.generation import LoadedModel
from trainer.modeling.build import build_model
from trainer.modeling.objectives import objective
from trainer.report import Reporter
from trainer.run_dir import RunDir
from trainer.training import benchmark, checkpoint, optimizer_state
from trainer.training.async_checkpoint import AsyncCheckpointer
from trainer.training.checkpoint import CheckpointWriter
from trainer.training.evaluation import Evaluation
from trainer.training.loop_state import MIN_HISTORY, LoopState
from trainer.training.matmul_choice import configure_matmul
from trainer.training.sanity_checks import FirstStepChecks

STEPS_PER_LINE = 10
STEP_TIME_WINDOW = 1000  # steps whose median time is reported


def train(
    run_dir: RunDir,
    fence: int,
    device: torch.device,
    report: Reporter,
    is_stopping: Callable[[], bool],
    on_saved: Callable[[Path, int], None],
    is_verified: bool = False,
) -> int:
    """Train a prepared run to its end and return 0, or stop after the current step when asked to and return 75.

    Every rank calls it. `is_stopping` returns whether to stop. `on_saved` is called on rank 0 with the directory and
    the step of each complete checkpoint. `is_verified` means that the files of the checkpoint to resume from have been
    verified already. Raises Failure.
    """
    report.phase("load", 0, 1)
    inputs, prepared = run_dir.inputs(fence), preparation.read(run_dir, fence)
    spec = run_dir.spec().with_steps(prepared.max_steps)
    failpoints = Failpoints(fence)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(prepared.tokenizer, local_files_only=True)
    samples = open_dataset(Path(prepared.tokens), spec, tokenizer)
    resumed = checkpoint.find(Path(inputs.resume), prepared, is_verified=is_verified) if inputs.resume else None
    configure_matmul(device, Path(inputs.cache), resumed.manifest.get("device") if resumed else None, report)
    base = Path(inputs.base) if inputs.base else None
    model = build_model(spec, base, tokenizer, samples.labels, device, precision(spec, device), report.line)
    learning = objective(spec, model)  # before loading a checkpoint: the reference of DPO is the model at the start
    if resumed is not None:
        checkpoint.restore(optimizer_state.load_weights, model, resumed.directory, report.heartbeat)
        if failpoints.has("flip", resumed.step):
            optimizer_state.flip_one_bit(model)
    engine = make_engine(spec, learning, device)
    if resumed is not None:
        checkpoint.restore(
            optimizer_state.load_optimizer_state,
            engine,
            resumed.directory,
            resumed.loop_state.num_updates,
            report.heartbeat,
        )
    loaded = LoadedModel(model, tokenizer)
    held_out = {
        corpus: open_dataset(Path(tokens), spec, tokenizer, is_held_out=True)
        for corpus, tokens in prepared.held_out.items()
    }
    evaluation = Evaluation(spec, samples, held_out, engine, loaded, prepared.sample_prompt)
    saver = AsyncCheckpointer(engine, report, run_dir.path, on_saved)
    total, trained = checkpoint.num_parameters(model)
    report.line(
        f"{total} parameters, {trained} of them train, on {engine.world_size} x {device.type}, {engine.precision}, "
        f"ZeRO-{spec.zero_stage}"
    )
    start_at = resumed.step if resumed is not None else 0
    if start_at < spec.total_steps:
        benchmark.run(engine, samples, start_at * spec.train_batch_size, run_dir.attempt_path(fence), report)
    report.phase("load", 1, 1)

    if resumed is not None:
        state = resumed.loop_state
        if not resumed.directory.is_relative_to(run_dir.path):  # of another job, with other validation samples maybe
            state.best_eval_loss, state.num_worse_evals = None, 0
        report.event("resumed", step=resumed.step, differs=resumed.differs(engine))
        report.line(f"resumed after step {resumed.step}")
    else:
        state = LoopState(evaluation.run(0, report))
        state.note_eval_loss(state.metrics["eval_loss"])
        first_step = FirstStepChecks(spec, engine, samples, report)
        first_step.before(len(tokenizer))
    step_times: deque[float] = deque(maxlen=STEP_TIME_WINDOW)
    step = start_at
    last_step = start_at if state.has_converged(spec.early_stopping_patience) else spec.total_steps
    while step < last_step:
        step += 1
        report.phase("train", step - 1, spec.total_steps)
        _seed(spec.seed, step, engine.rank)
        failpoints.reach(step, engine.rank, spec.per_device_batch_size)

        # One optimizer step on samples that depend on nothing but seed and step.
        started_at = time.perf_counter()
        batch = samples.train_batch((step - 1) * spec.train_batch_size, spec.train_batch_size)
        num_targets = batches.num_targets(batch)
        if step in inputs.skipped_steps:
            stopping = engine.any_rank(is_stopping())
            loss = grad_norm = math.nan
            report.warning(f"step {step} is skipped: it diverged")
        else:
            factor = failpoints.factor(step)
            try:
                loss, grad_norm, stopping = engine.step(
                    step, engine.split_micro_batches(batch), num_targets, is_stopping(), factor
                )
            except Failure:  # raised on all ranks: wait for the checkpoint to resume from
                saver.finish()
                raise
            if step == 1:
                first_step.after(loss)
            median = state.note_loss(loss)
            if median is not None:
                report.warning(f"step {step}: the loss jumped to {loss:.4f}, from {median:.4f}")
                if spec.on_divergence == "skip" or state.has_diverged:
                    raise Failure("loss_diverged", step=step, loss=loss, median=median)
        seconds = time.perf_counter() - started_at
        step_times.append(seconds)

        # Points of the curves.
        rate = learning_rate(spec, step)
        tokens_per_second = math.nan if step in inputs.skipped_steps else samples.num_tokens_of(batch) / seconds
        num_bytes = samples.num_bytes(batch)
        state.metrics = {"loss": loss}  # of this step only: a checkpoint must not bear the losses of another one
        points = {"loss": loss, "learning_rate": rate, "grad_norm": grad_norm, "tokens_per_second": tokens_per_second}
        if num_bytes:
            points["bits_per_byte"] = loss * num_targets / math.log(2) / num_bytes
        report.points(step, **points)
        if step % STEPS_PER_LINE == 0 or step in (1, spec.total_steps):
            report.line(f"step {step}/{spec.total_steps} loss {loss:.4f} lr {rate:.2e} {tokens_per_second:.0f} tok/s")
        report.phase("train", step, spec.total_steps)

        saver.poll()
        # `stopping` is the same on all ranks, so they run the same evaluations and checkpoints.
        is_best = False
        if step == last_step or step % spec.eval_steps == 0:
            state.metrics.update(evaluation.run(step, report))
            state.note_eval_loss(state.metrics["eval_loss"])
            # A run that may end early keeps its best weights, wherever they fall between two regular checkpoints.
            is_best = spec.early_stopping_patience is not None and state.num_worse_evals == 0
            if state.has_converged(spec.early_stopping_patience) and step < last_step:
                last_step = step
                report.line(f"step {step} is the last: evaluations without a better loss: {state.num_worse_evals}")
        is_last = step == last_step
        if is_last or is_best or stopping or step % spec.save_steps == 0:
            directory = run_dir.attempt_path(fence) / f"step-{step}"
            save = CheckpointWriter(directory, step, engine, loaded, prepared, state)
            saver.start(save, is_full=failpoints.has("full", step), is_lost=failpoints.has("writer", step))
        if is_last and (problem := saver.finish()) is not None:
            raise Failure("disk_full", step=step, free=problem.free, needed=problem.needed)
        if is_last or stopping or step == start_at + MIN_HISTORY:  # after evaluation and saving: both are in the peak
            benchmark.report_resource_usage(engine, step, step_times, report)
        if stopping and not is_last:
            saver.finish()
            report.line(f"stopped after step {step}, as asked")
            engine.barrier()
            return EXIT_RESUMABLE
    report.event("finished", step=step)
    engine.barrier()
    return EXIT_OK


def _seed(seed: int, step: int, rank: int) -> None:
    """Seed the random generators of Python, NumPy and torch for a step, independent of the steps before it."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]))
