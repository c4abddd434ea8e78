"""Measures packing on a CPU: trained tokens per second of conversations, packed and with one per sequence.

`PYTHONPATH=. python bench/proofs/packing.py [--smoke]`, one minute. The conversations have one to eight turns of 2 to
40 words. Both ways take turns on the same network and the same records; padding is no token. Packed sequences need a
mask, which costs attention its fast way; sequences of one record need none.
"""

import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from bench.support.arguments import IS_SMOKE
from tests.trainer.runs import english, write_corpus
from trainer.data import tokenized_records, tokenizer
from trainer.data.chat_template import preset
from trainer.datasets.causal import SFTDataset
from trainer.families import DEFAULT_CHAT_TEMPLATE
from trainer.modeling.build import init_model
from trainer.modeling.objectives import Objective, objective
from trainer.spec import TrainSpec, resolve

ROWS, REPEATS = 4, 12
TALKS, TEXT_BYTES, VOCAB_SIZE = 600, 400_000, 4096
SIZES: dict[str, int] = {}  # by default those of the recipe


def talks(count: int) -> list[str]:
    """Conversations in words of the King James text."""
    random, words = np.random.default_rng(0), english().split()

    def said() -> str:
        start = random.integers(0, len(words) - 40)
        return " ".join(words[start : start + random.integers(2, 40)])

    records = []
    for _ in range(count):
        turns = range(2 * random.integers(1, 9))
        messages = [{"role": "assistant" if turn % 2 else "user", "content": said()} for turn in turns]
        records.append(json.dumps({"messages": messages}))
    return records


def seconds(learning: Objective, samples: SFTDataset, repeat: int) -> tuple[float, int]:
    """How long one batch takes forward and back, and how many tokens it holds."""
    batch = samples.train_batch(repeat * ROWS, ROWS)
    started = time.perf_counter()
    learning(**{name: torch.from_numpy(values) for name, values in batch.items()}).sum().backward()
    return time.perf_counter() - started, samples.num_tokens_of(batch)


def open_talks(home: Path, spec: TrainSpec, texts: PreTrainedTokenizerFast) -> SFTDataset:
    source = write_corpus(home / "talks", talks(TALKS)).model_copy(update={"kind": "chat"})
    return SFTDataset(
        tokenized_records.tokenize_cached([source], spec, texts, "talks", home, lambda done, total: None), spec, texts
    )


def main() -> None:
    with TemporaryDirectory() as place:
        home = Path(place)
        text = write_corpus(home / "text", [english(TEXT_BYTES)])
        tokenizer.save(tokenizer.train([text], VOCAB_SIZE, lambda done, total: None), home / "tokenizer")
        texts = PreTrainedTokenizerFast.from_pretrained(home / "tokenizer")
        texts.chat_template = preset(DEFAULT_CHAT_TEMPLATE, texts)
        spec = resolve({"recipe": "chat", "corpora": ["talks"], **SIZES})
        learning = objective(spec, init_model(spec, len(texts), 0, 1, torch.device("cpu"))).train()
        ways = {
            name: open_talks(home, spec.model_copy(update={"packing": packing}), texts)
            for name, packing in (("packed", True), ("alone", False))
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(REPEATS + 1):
            for name, samples in ways.items():
                took, count = seconds(learning, samples, repeat)
                if repeat:
                    rates[name].append(count / took)
    for name, samples in ways.items():
        batch = samples.train_batch(0, 10 * ROWS)
        share = samples.num_tokens_of(batch) / batch["labels"].size
        print(f"{name}: {statistics.median(rates[name]):.0f} tokens/s, {share:.0%} of a batch are tokens")
    ratio = statistics.median(a / b for a, b in zip(rates["packed"], rates["alone"], strict=True))
    print(f"packed / alone: {ratio:.2f}")


if __name__ == "__main__":
    if IS_SMOKE:
        ROWS, REPEATS = 1, 1
        TALKS, TEXT_BYTES, VOCAB_SIZE = 30, 60_000, 384
        SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        SIZES["num_key_value_heads"] = 4
    main()
