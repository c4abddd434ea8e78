"""Measures packing on a CPU: trained tokens per second of conversations, packed and with one per sequence.

Run: python -m bench.proofs.packing, one minute. The conversations have one to eight turns of 2 to 40 words. Both ways
take turns on the same network and the same records; padding is no token. Packed sequences need a mask, which costs
attention its fast way; sequences of one record need none.
"""

import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, write_corpus
from trainer.data import tokenized_records, tokenizer
from trainer.data.record_encoding import CHAT_TEMPLATE
from trainer.datasets.causal import SFTDataset
from trainer.modeling.build import init_model
from trainer.modeling.objectives import Objective, objective
from trainer.spec import TrainSpec, resolve

ROWS, LAPS = 4, 12


def talks(count: int) -> list[str]:
    """Conversations in words of the King James text."""
    random, words = np.random.default_rng(0), english().split()

    def said() -> str:
        start = random.integers(0, len(words) - 40)
        return " ".join(words[start : start + random.integers(2, 40)])

    made = []
    for _ in range(count):
        turns = range(2 * random.integers(1, 9))
        messages = [{"role": "assistant" if turn % 2 else "user", "content": said()} for turn in turns]
        made.append(json.dumps({"messages": messages}))
    return made


def seconds(learning: Objective, samples: SFTDataset, lap: int) -> tuple[float, int]:
    """How long one batch takes forward and back, and how many tokens it holds."""
    batch = samples.train_batch(lap * ROWS, ROWS)
    started = time.perf_counter()
    learning(**{name: torch.from_numpy(values) for name, values in batch.items()}).sum().backward()
    return time.perf_counter() - started, samples.num_tokens_of(batch)


def open_talks(home: Path, spec: TrainSpec, made: PreTrainedTokenizerFast) -> SFTDataset:
    source = write_corpus(home / "talks", talks(600)).model_copy(update={"kind": "chat"})
    return SFTDataset(
        tokenized_records.tokenize_cached([source], spec, made, "made", home, lambda done, total: None), spec, made
    )


def main() -> None:
    with TemporaryDirectory() as place:
        home = Path(place)
        text = write_corpus(home / "text", [english(400_000)])
        tokenizer.save(tokenizer.train([text], 4096, lambda done, total: None), home / "tokenizer")
        made = PreTrainedTokenizerFast.from_pretrained(home / "tokenizer")
        made.chat_template = CHAT_TEMPLATE
        spec = resolve({"recipe": "chat", "corpora": ["talks"]})
        learning = objective(spec, init_model(spec, len(made), 0, 1, torch.device("cpu"))).train()
        ways = {
            name: open_talks(home, spec.model_copy(update={"packing": packing}), made)
            for name, packing in (("packed", True), ("alone", False))
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for lap in range(LAPS + 1):
            for name, samples in ways.items():
                took, count = seconds(learning, samples, lap)
                if lap:
                    rates[name].append(count / took)
    for name, samples in ways.items():
        batch = samples.train_batch(0, 40)
        share = samples.num_tokens_of(batch) / batch["labels"].size
        print(f"{name}: {statistics.median(rates[name]):.0f} tokens/s, {share:.0%} of a batch are tokens")
    ratio = statistics.median(a / b for a, b in zip(rates["packed"], rates["alone"], strict=True))
    print(f"packed / alone: {ratio:.2f}")


if __name__ == "__main__":
    main()
