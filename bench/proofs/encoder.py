"""Whether all-MiniLM-L6-v2, which has no head of its own, learns hidden words and sorts BBC news, on a CPU.

`PYTHONPATH=. python bench/proofs/encoder.py [masked] [news] [news-lora] [--smoke]`, some minutes each. Every fifth
article is held out. Yardsticks from the same run: for hidden words what the frequency of words alone would cost, for
news the largest class.
"""

import json
import math
import time
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bench.support.arguments import IS_SMOKE, names
from bench.support.material import bbc_news, minilm, train
from trainer.events import PointsEvent, read
from trainer.run_dir import RunDir

SHAPE = {"sequence_length": 128, "train_batch_size": 16, "per_device_batch_size": 16}
MASKED_STEPS, NEWS_STEPS = 120, 40
if IS_SMOKE:
    SHAPE["sequence_length"] = 32
    MASKED_STEPS, NEWS_STEPS = 3, 2


def split() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Articles to learn from, and those held out."""
    articles = bbc_news()
    return [record for at, record in enumerate(articles) if at % 5], articles[::5]


def losses(run_dir: RunDir) -> dict[int, float]:
    """The held-out loss by step."""
    points = [event for event, _ in read(run_dir.events_path(1), 0) if isinstance(event, PointsEvent)]
    return {point.step: float(point.values["eval_loss"]) for point in points if "eval_loss" in point.values}


def frequencies(base: Path, taught: list[str], held_out: list[str]) -> float:
    """The nats a token that its frequency alone costs, each token seen once more than it was."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    seen = Counter(token for ids in tokenizer(taught, add_special_tokens=False)["input_ids"] for token in ids)
    total = seen.total() + len(tokenizer)
    asked = [token for ids in tokenizer(held_out, add_special_tokens=False)["input_ids"] for token in ids]
    return -sum(math.log((seen[token] + 1) / total) for token in asked) / len(asked)


def masked(home: Path) -> None:
    """Continue it as a masked language model."""
    taught, held_out = split()
    base = minilm(home)
    fields = {"recipe": "tiny-bert", "learning_rate": 5e-4, "max_steps": MASKED_STEPS, "save_steps": MASKED_STEPS}
    fields |= {**SHAPE, "train_batch_size": 8, "per_device_batch_size": 8, "eval_steps": MASKED_STEPS // 3}
    started = time.perf_counter()
    texts = [record["text"] for record in taught]
    run_dir = train(home, "masked", base, "text", texts, **fields)
    seconds = time.perf_counter() - started
    alone = frequencies(base, texts, [record["text"] for record in held_out])
    shown = ", ".join(f"{loss:.2f} at step {step}" for step, loss in losses(run_dir).items())
    print(f"masked: held-out loss {shown}; word frequencies alone {alone:.2f}; {seconds:.0f} s", flush=True)


@torch.no_grad()
def accuracy(checkpoint: Path, records: list[dict[str, str]]) -> float:
    """The share of articles that a checkpoint puts in their section, as transformers opens it."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    right = 0
    for at in range(0, len(records), 32):
        part = records[at : at + 32]
        texts = [record["text"] for record in part]
        inputs = tokenizer(texts, truncation=True, max_length=128, padding=True, return_tensors="pt")
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        labels = [model.config.id2label[int(number)] for number in logits.argmax(-1)]
        right += sum(label == record["label"] for label, record in zip(labels, part, strict=True))
    return right / len(records)


def news(tuning: str, learning_rate: float, home: Path) -> None:
    """Sort articles into the five sections."""
    taught, held_out = split()
    largest = Counter(record["label"] for record in held_out).most_common(1)[0][1] / len(held_out)
    fields = {"recipe": "classifier", "tuning": tuning, "max_steps": NEWS_STEPS, "save_steps": NEWS_STEPS}
    fields |= {"eval_steps": NEWS_STEPS // 2}
    started = time.perf_counter()
    documents = [json.dumps(record) for record in taught]
    fields |= {"learning_rate": learning_rate, **SHAPE}
    run_dir = train(home, f"news-{tuning}", minilm(home), "classification", documents, **fields)
    seconds = time.perf_counter() - started
    share = accuracy(run_dir.checkpoint_path(NEWS_STEPS, 1), held_out)
    shown = f"{share:.1%} of {len(held_out)} held-out articles; largest class {largest:.1%}"
    print(f"news, {tuning}: {shown}; {seconds:.0f} s", flush=True)


PROOFS = {"masked": masked, "news": partial(news, "full", 1e-4), "news-lora": partial(news, "lora", 1e-3)}


def main() -> None:
    for name in names(PROOFS):
        with TemporaryDirectory() as home:
            PROOFS[name](Path(home))


if __name__ == "__main__":
    main()
