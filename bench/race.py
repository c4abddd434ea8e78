"""A race with transformers' Trainer: the same model, start, samples, order and loss, by turns in one process.

`PYTHONPATH=. python bench/race.py [THREADS | --smoke]`. Prints JSON: tokens a second, ratios of medians and of minima,
share of the same run's matrix products, and the losses. A second benchmark compares each ZeRO stage of DeepSpeed with
the plain engine. Matrix products are oneDNN's where they would be in a job: where they are measurably faster.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from trainer.engines import base, factory  # before torch: it says which accelerators DeepSpeed looks for

# isort: split
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from bench.support.arguments import IS_SMOKE
from bench.support.forked import Forked
from trainer.launch.environment import free_port
from trainer.modeling import architectures, cpu_matmul
from trainer.modeling.build import init_model
from trainer.modeling.objectives import objective
from trainer.planning.counts import flops
from trainer.spec import TrainSpec, resolve
from trainer.training.matmul_choice import MIN_SPEEDUP

VOCAB_SIZE, LENGTH, ROWS = 8192, 256, 8
WARMUP_STEPS, COMPARED_STEP, BLOCKS, STEPS_PER_BLOCK = 3, 20, 8, 2
SHAPES = {
    "gpt2": {"model_type": "gpt2", "intermediate_size": 1024},
    "llama": {"model_type": "llama", "intermediate_size": 688},
}
SIDE = 2048
COMPILES = True  # the tuned Trainer, by torch.compile
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


def spec_of(shape: str) -> TrainSpec:
    return resolve(
        {
            "name": "race",
            "corpora": ["text"],
            "vocab_size": VOCAB_SIZE,
            "sequence_length": LENGTH,
            "num_hidden_layers": 4,
            "hidden_size": 256,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "train_batch_size": ROWS,
            "per_device_batch_size": ROWS,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "linear",
            "warmup_steps": 0,
            "max_steps": COMPARED_STEP + BLOCKS * STEPS_PER_BLOCK + WARMUP_STEPS,
            **SHAPES[shape],
        }
    )


class Turns:
    """Lets a trainer with its own loop take steps only on request."""

    def __init__(self, run: Callable[["Turns"], None]) -> None:
        self._asked, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.losses: list[float] = []
        threading.Thread(target=run, args=(self,), daemon=True).start()
        self._done.acquire()  # is ready for its first step

    def pause(self) -> None:
        """Called by the trainer before each step and after the last one."""
        self._done.release()
        self._asked.acquire()

    def step(self) -> None:
        self._asked.release()
        self._done.acquire()


def peer(spec: TrainSpec, model: PreTrainedModel, rows: Tensor, **tuned: Any) -> Turns:
    """Transformers' Trainer."""

    def run(turns: Turns) -> None:
        class Pauses(TrainerCallback):
            def on_step_begin(self, *_arguments: Any, **_named: Any) -> None:
                turns.pause()

            def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_named: Any) -> None:
                if "loss" in logs:
                    turns.losses.append(logs["loss"])

            def on_train_end(self, *_arguments: Any, **_named: Any) -> None:
                turns.pause()

        class InOrder(torch.utils.data.IterableDataset[dict[str, Tensor]]):
            def __iter__(self) -> Iterator[dict[str, Tensor]]:
                for row in rows:
                    yield {"input_ids": row[:-1], "shift_labels": row[1:], "labels": row[:-1]}

        with tempfile.TemporaryDirectory() as directory:
            arguments = TrainingArguments(
                directory,
                max_steps=spec.max_steps,
                per_device_train_batch_size=ROWS,
                learning_rate=spec.learning_rate,
                lr_scheduler_type="linear",
                adam_beta1=spec.adam_beta1,
                adam_beta2=spec.adam_beta2,
                weight_decay=spec.weight_decay,
                max_grad_norm=spec.max_grad_norm,
                logging_steps=1,
                logging_first_step=True,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                remove_unused_columns=False,
                seed=spec.seed,
                **tuned,
            )
            trainer = Trainer(model, arguments, train_dataset=InOrder(), callbacks=[Pauses()])
            trainer.remove_callback(PrinterCallback)
            trainer.train()

    return Turns(run)


class Ours:
    """What a job runs: the engine and the objective."""

    def __init__(self, spec: TrainSpec, rows: Tensor) -> None:
        model = init_model(spec, VOCAB_SIZE, 0, 1, torch.device("cpu"))
        self._engine = factory.make_engine(spec, objective(spec, model), torch.device("cpu"))
        self._rows, self._number = rows.numpy(), 0
        self.losses: list[float] = []

    def step(self) -> None:
        rows = self._rows[self._number * ROWS : (self._number + 1) * ROWS]
        batch = {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}
        self._number += 1
        micro_batches = self._engine.split_micro_batches(batch)
        loss, _norm, _stops = self._engine.step(self._number, micro_batches, rows[:, 1:].size, False)
        self.losses.append(loss)


def gemm_rates() -> dict[str, float]:
    """Matrix products in operations a second, the best of five repeats: by torch's default library and by oneDNN."""
    matrix, before = torch.rand(SIDE, SIDE), cpu_matmul.uses_onednn()
    rates = {}
    for name, is_on in (("torch", False), ("onednn", True)):
        cpu_matmul.set_onednn(is_on)
        rates[name] = 2 * SIDE**3 / min(seconds(lambda: cpu_matmul.matmul(matrix, matrix), 1) for _repeat in range(5))
    cpu_matmul.set_onednn(before)
    return rates


def choose_matmul() -> dict[str, Any]:
    """Choose the library of matrix products as a job does, and describe it."""
    speedup = cpu_matmul.onednn_speedup()
    cpu_matmul.set_onednn(speedup >= MIN_SPEEDUP)
    rates = {f"{name}_gflops": rate / 1e9 for name, rate in gemm_rates().items()}
    return {
        "threads": torch.get_num_threads(),
        "onednn_speedup": speedup,
        "uses_onednn": cpu_matmul.uses_onednn(),
        **rates,
    }


def random_rows(spec: TrainSpec) -> Tensor:
    """Token ids (steps * rows, length + 1) for all steps, distributed by Zipf's law as words are."""
    return torch.from_numpy(np.random.default_rng(1).zipf(1.3, (spec.max_steps * ROWS, LENGTH + 1)) % VOCAB_SIZE)


def join() -> None:
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    base.init_process_group("cpu")


def by_turns(trainers: Mapping[str, Turns | Ours]) -> dict[str, list[float]]:
    """Seconds of a step, of each in each block."""
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for block in range(BLOCKS):
        turn = list(trainers.items())
        for name, each in turn if block % 2 == 0 else reversed(turn):
            times[name].append(seconds(each.step, STEPS_PER_BLOCK) / STEPS_PER_BLOCK)
    return times


def zero_overhead(shape: str) -> dict[str, Any]:
    """Overhead of DeepSpeed without anything to shard: one process, each stage compared with the plain engine."""
    matmul = choose_matmul()
    join()
    spec = spec_of(shape)
    rows = random_rows(spec)
    stages = {stage: Ours(spec.model_copy(update={"zero_stage": stage}), rows) for stage in range(4)}
    trainers = {"plain" if stage == 0 else f"zero_{stage}": each for stage, each in stages.items()}
    for each in trainers.values():
        seconds(each.step, WARMUP_STEPS)
    times = by_turns(trainers)
    plain = times.pop("plain")
    figures: dict[str, Any] = {"shape": shape, **matmul}
    for name, each in times.items():
        figures[name] = {
            "speed_of_plain_by_medians": statistics.median(plain) / statistics.median(each),
            "speed_of_plain_by_minima": min(plain) / min(each),
        }
    return figures


def race(shape: str) -> dict[str, Any]:
    """Both trainers and the tuned Trainer: speeds, losses and shares of the fastest matrix products."""
    matmul = choose_matmul()
    spec = spec_of(shape)
    rows = random_rows(spec)
    start = init_model(spec, VOCAB_SIZE, 0, 1, torch.device("cpu")).state_dict()

    def plain() -> PreTrainedModel:
        model = architectures.create_config(spec, VOCAB_SIZE, IDS, [])
        model.load_state_dict(start)
        return model

    trainers: dict[str, Turns | Ours] = {
        "trainer": peer(spec, plain(), rows),
        "trainer_tuned": peer(spec, plain(), rows, optim="adamw_torch_fused", torch_compile=COMPILES),
    }
    join()  # after the others: where there is a process group, Trainer would wrap its model for it
    trainers["ours"] = Ours(spec, rows)
    first_steps = {name: seconds(each.step, WARMUP_STEPS) for name, each in trainers.items()}
    for each in trainers.values():
        seconds(each.step, COMPARED_STEP - WARMUP_STEPS)
    times = by_turns(trainers)
    rate = max(gemm_rates().values())
    work = flops(spec, VOCAB_SIZE).model_flops * spec.tokens_per_step
    figures: dict[str, Any] = {"shape": shape, **matmul}
    for name, each in trainers.items():
        median, best = statistics.median(times[name]), min(times[name])
        figures[name] = {
            "tokens_per_second": spec.tokens_per_step / median,
            "share_of_gemm": work / best / rate,
            "first_steps_seconds": first_steps[name],
            "compared_loss": each.losses[COMPARED_STEP - 1],
        }
        if name != "ours":
            ours = times["ours"]
            figures[name]["ours_is_faster_by_medians"] = median / statistics.median(ours)
            figures[name]["ours_is_faster_by_minima"] = best / min(ours)
    return figures


def seconds(step: Callable[[], Any], count: int) -> float:
    started_at = time.perf_counter()
    for _step in range(count):
        step()
    return time.perf_counter() - started_at


BENCHMARKS: dict[str, Callable[[str], dict[str, Any]]] = {"race": race, "zero_overhead": zero_overhead}


def show(figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


def main() -> None:
    """Run each benchmark in its own process, which calls this again with benchmark and shape."""
    if len(sys.argv) > 3:
        show(BENCHMARKS[sys.argv[2]](sys.argv[3]))
        return
    threads = sys.argv[1] if len(sys.argv) > 1 else str(os.cpu_count() or 1)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    for benchmark, shape in itertools.product(BENCHMARKS, SHAPES):
        subprocess.run(
            [sys.executable, "-W", "ignore", __file__, threads, benchmark, shape], env=environment, check=True
        )


if __name__ == "__main__":
    if IS_SMOKE:
        VOCAB_SIZE, LENGTH, ROWS, SIDE = 512, 16, 2, 64
        WARMUP_STEPS, COMPARED_STEP, BLOCKS, STEPS_PER_BLOCK = 1, 2, 1, 1
        COMPILES = False
        for benchmark, shape in (("race", "gpt2"), ("zero_overhead", "llama")):
            show(Forked(partial(BENCHMARKS[benchmark], shape)).result())
    else:
        main()
