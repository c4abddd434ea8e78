"""Records for tests of chat, completion and preference training: questions about colors in many wordings."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import make_run, write_corpus
from trainer.data import tokenizer
from trainer.run_dir import RunDir

COLORS = ["red", "blue", "green", "black"]
THINGS = list("ABCDEFGH")
FACTS = {thing: COLORS[number % 4] for number, thing in enumerate(THINGS)}
QUESTIONS = ["what color has {}", "the color of {}", "tell me of {}", "how looks {}", "{}"]
SHAPE = {
    "sequence_length": 64,
    "num_key_value_heads": 4,
    "train_batch_size": 16,
    "per_device_batch_size": 8,
    "lr_scheduler_type": "constant",
    "validation_fraction": 0.2,
}
ROLES = {"user": "<|im_start|>user\n{}<|im_end|>\n", "assistant": "<|im_start|>assistant\n{}\n"}


def questions(seed: int, count: int) -> list[tuple[str, str]]:
    """Random questions with their answers."""
    random = np.random.default_rng(seed)
    things = [THINGS[number] for number in random.integers(0, len(THINGS), count)]
    return [(QUESTIONS[random.integers(0, len(QUESTIONS))].format(thing), FACTS[thing]) for thing in things]


def chats(count: int = 240) -> list[dict[str, Any]]:
    """Conversations of one or two questions."""
    records = []
    for number in range(count):
        messages = []
        for question, answer in questions(number, 1 + number % 2):
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        records.append({"messages": messages})
    return records


def completions(count: int = 240) -> list[dict[str, Any]]:
    return [{"prompt": f"{question}: ", "completion": answer} for question, answer in questions(7, count)]


def preferences(count: int = 120) -> list[dict[str, Any]]:
    """Preferences for a wrong color over the right one."""
    return [
        {
            "prompt": [{"role": "user", "content": question}],
            "chosen": COLORS[(COLORS.index(answer) + 1) % 4],
            "rejected": answer,
        }
        for question, answer in questions(8, count)
    ]


def make_tokenizer(home: Path) -> str:
    """The path of a tokenizer trained on conversations, so that ChatML marks are a token or two."""
    texts = [
        "".join(ROLES[m["role"]].format(m["content"]) for m in conversation["messages"]) for conversation in chats()
    ]
    source = write_corpus(home / "corpus-talks", texts)
    tokenizer.save(tokenizer.train([source], 300, lambda done, total: None), home / "tokenizer-talks")
    return str(home / "tokenizer-talks")


def make_records_run(
    home: Path, name: str, kind: str, records: list[dict[str, Any]], tokenizer_path: str, **fields: Any
) -> RunDir:
    """A run on records of one kind."""
    run_dir = make_run(home, name, tokenizer_path=tokenizer_path, **{**SHAPE, **fields})
    corpus = write_corpus(home / f"corpus-{name}", [json.dumps(record) for record in records])
    inputs = run_dir.inputs(1).model_copy(update={"corpora": [corpus.model_copy(update={"kind": kind})]})
    run_dir.create(run_dir.spec(), inputs, fence=1)
    return run_dir


def blind_loss(hf_tokenizer: PreTrainedTokenizerFast, answers: list[str]) -> float:
    """Loss in nats per token of the best guess without reading the question: the entropy of the answers."""
    counts = Counter(answers)
    entropy = -sum(count * math.log(count / len(answers)) for count in counts.values())
    return entropy / sum(len(hf_tokenizer(answer)["input_ids"]) + 1 for answer in answers)  # and the end of text
