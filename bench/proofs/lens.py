"""Compares the token lens with the tensors that the trainer hands to its model, for 10,000 samples of each objective.

`PYTHONPATH=. python bench/proofs/lens.py [OBJECTIVE ...] [--smoke]`, two minutes. A small model trains on random text
or records, with the loop that every job runs; a hook in front of the model keeps the tensors of each micro-batch. Then
`python -m trainer batch`, which the page of a job asks, shows each step; from its answer alone the tensors are rebuilt.
Inputs, labels, weights, positions and masks are compared, the padding counted, and labels read by their names.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bench.support.arguments import IS_SMOKE, names
from bench.support.forked import Forked
from tests.trainer.bases import make_base, start_from
from tests.trainer.chat_fixtures import make_tokenizer
from tests.trainer.datasets.rebuilt_batch import counted_padding, differing_arrays
from tests.trainer.runs import english, make_run
from trainer.__main__ import main as run_trainer
from trainer.batch_shapes import BATCH_VIEW, BatchView, SampleView
from trainer.data.batch import Batch, num_rows, take_rows
from trainer.families import FAMILIES
from trainer.launch import rank
from trainer.run_dir import RunDir
from trainer.training import loop

SAMPLES, BATCH_SIZE, MICRO_BATCH_SIZE = (200, 100, 50) if IS_SMOKE else (10_000, 200, 100)
TEXT_BYTES = 60_000 if IS_SMOKE else 2_500_000
RECORDS = 400 if IS_SMOKE else 12_000
LENGTH = 48
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
COMMON = {
    "sequence_length": LENGTH,
    "vocab_size": 512,
    "max_steps": SAMPLES // BATCH_SIZE,
    "warmup_steps": 1,
    "train_batch_size": BATCH_SIZE,
    "per_device_batch_size": MICRO_BATCH_SIZE,
}
# What each objective trains on: the kind of its corpus, and fields of its job.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "causal": ("text", {}),
    "masked": ("text", {"model_type": "bert"}),
    "span_corruption": ("text", {"model_type": "t5"}),
    "seq2seq": ("seq2seq", {"model_type": "t5"}),
    "classification": ("classification", {"model_type": "bert"}),
    "chat": ("chat", {"sequence_length": 2 * LENGTH}),
    "completion": ("completion", {"packing": False}),
    "dpo": ("preference", {"base_model": "base", "vocab_size": None}),
}
assert RUNS.keys() == FAMILIES.keys()


def documents(kind: str) -> list[str]:
    """Text of the King James Bible, or records whose texts are random parts of it."""
    if kind == "text":
        text = english(TEXT_BYTES)
        return [text[start : start + 5_000] for start in range(0, len(text), 5_000)]
    random, words = np.random.default_rng(13), english(400_000).split()

    def said(most: int = 8) -> str:
        start = int(random.integers(0, len(words) - most))
        return " ".join(words[start : start + int(random.integers(1, most + 1))])

    def turns() -> list[dict[str, str]]:
        roles = ("user", "assistant") * int(random.integers(1, 3))
        return [{"role": role, "content": said(5)} for role in roles]

    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "seq2seq": lambda: {"source": said(), "target": said()},
        "classification": lambda: {"text": said(), "label": f"class {random.integers(0, 5)}"},
        "chat": lambda: {"messages": turns()},
        "completion": lambda: {"prompt": said(), "completion": said()},
        "preference": lambda: {"prompt": said(4), "chosen": said(4), "rejected": f"{said(3)}."},
    }
    return [json.dumps(makers[kind]()) for _ in range(RECORDS * 2 if kind == "chat" else RECORDS)]


@contextlib.contextmanager
def captured_batches() -> Iterator[dict[int, list[Batch]]]:
    """The arrays of every micro-batch that the loop's model gets in an optimizer step, by the number of the step."""
    steps: dict[int, list[Batch]] = {}
    make_engine = loop.make_engine

    def make(*arguments: Any) -> Any:
        engine = make_engine(*arguments)
        take_step, open_step = engine.step, []

        def step(number: int, *rest: Any) -> Any:
            open_step.append(steps.setdefault(number, []))
            try:
                return take_step(number, *rest)
            finally:
                open_step.clear()

        def capture(_module: Any, _arguments: Any, tensors: dict[str, torch.Tensor]) -> None:
            if open_step:  # not in an evaluation or a check
                open_step[0].append({name: tensor.numpy().copy() for name, tensor in tensors.items()})

        engine.step = step
        engine.objective.register_forward_pre_hook(capture, with_kwargs=True)
        return engine

    loop.make_engine = make
    try:
        yield steps
    finally:
        loop.make_engine = make_engine


def train(home: Path, objective: str) -> tuple[RunDir, dict[int, Batch]]:
    """A run of an objective, and the batches that its model got, by step."""
    kind, fields = RUNS[objective]
    sizes = {"num_key_value_heads": 4} if objective == "dpo" else {**TINY, "num_key_value_heads": 2}
    fields = {**COMMON, **sizes, **fields, "kind": kind, "objective": objective}
    run_dir = make_run(home, objective, documents(kind), **fields)
    if objective == "dpo":
        start_from(run_dir, make_base(home / "base", "llama", Path(make_tokenizer(home))))
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    torch.set_num_threads(1)
    with captured_batches() as steps, contextlib.redirect_stdout(io.StringIO()):
        code = rank.run(run_dir, 1, "cpu", is_supervised=False)
    if code:
        raise RuntimeError(f"the trainer ended with {code}")
    return run_dir, {number: _joined(parts) for number, parts in steps.items()}


def _joined(parts: list[Batch]) -> Batch:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def look(run_dir: RunDir, step: int) -> BatchView:
    """What the lens shows of a step."""
    sys.argv = ["trainer", "batch", str(run_dir.path), "--step", str(step)]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = run_trainer()
    if code:
        raise RuntimeError(f"`trainer batch` ended with {code}")
    return BATCH_VIEW.validate_json(output.getvalue())


def is_same(sample: SampleView, row: Batch, objective: str, labels: list[str]) -> bool:
    """Whether a sample of the lens says what the model got."""
    if objective == "classification" and sample.segments[0].label != labels[int(row["labels"])]:
        return False
    return not differing_arrays(sample, row, objective) and sample.num_padding == counted_padding(row, objective)


def compare(objective: str) -> dict[str, int]:
    """Train with an objective, and count the samples that the lens shows otherwise than the model got them."""
    counts = dict.fromkeys(("samples", "learned", "different"), 0)
    distinct = set()
    with TemporaryDirectory() as directory:
        run_dir, batches = train(Path(directory), objective)
        labels = sorted({json.loads(text)["label"] for text in documents("classification")})
        assert list(batches) == list(range(1, SAMPLES // BATCH_SIZE + 1))
        for step, batch in batches.items():
            view = look(run_dir, step)
            assert len(view.samples) == num_rows(batch) == BATCH_SIZE
            for number, sample in enumerate(view.samples):
                row = {name: values[0] for name, values in take_rows(batch, slice(number, number + 1)).items()}
                counts["samples"] += 1
                counts["different"] += not is_same(sample, row, objective, labels)
                distinct.add(row["input_ids"].tobytes() + row["labels"].tobytes())
            counts["learned"] += view.num_learned
    return {**counts, "distinct": len(distinct)}


def main() -> None:
    """Print a line for each objective."""
    chosen = names(RUNS)
    failed = 0
    for objective in chosen:
        counts = Forked(partial(compare, objective)).result()
        failed += counts["different"]
        print(
            f"{objective}: {counts['samples']:,} samples from the trainer, {counts['distinct']:,} of them distinct, "
            f"{counts['learned']:,} labels; shown otherwise: {counts['different']}",
            flush=True,
        )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
