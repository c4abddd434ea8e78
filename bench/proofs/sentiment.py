"""Whether small encoders of our own, from random weights, judge Chinese reviews that they never saw, on a CPU.

`PYTHONPATH=. python bench/proofs/sentiment.py [bert] [roberta] [--smoke]`, two minutes. A tenth of the reviews is held
out. Yardstick from the same run: the larger class.
"""

import json
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.support.arguments import IS_SMOKE, names
from bench.support.material import chinese_reviews, train
from trainer.events import PointsEvent, read
from trainer.run_dir import RunDir

STEPS = 2 if IS_SMOKE else 400
SHAPE = {
    "recipe": "classifier",
    "vocab_size": 4096,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "sequence_length": 64,
    "train_batch_size": 32,
    "per_device_batch_size": 32,
    "learning_rate": 0.002,
    "max_steps": STEPS,
    "eval_steps": 100,
    "save_steps": STEPS,
}
if IS_SMOKE:
    SHAPE |= {"vocab_size": 384, "eval_steps": 1, "train_batch_size": 4, "per_device_batch_size": 4}


def curve(run_dir: RunDir, name: str) -> dict[int, float]:
    """A series by step."""
    points = [event for event, _ in read(run_dir.events_path(1), 0) if isinstance(event, PointsEvent)]
    return {point.step: float(point.values[name]) for point in points if name in point.values}


def main() -> None:
    reviews = chinese_reviews()
    larger = Counter(review["label"] for review in reviews).most_common(1)[0][1] / len(reviews)
    documents = [json.dumps(review, ensure_ascii=False) for review in reviews]
    for model_type in names(("bert", "roberta")):
        with TemporaryDirectory() as home:
            started = time.perf_counter()
            run_dir = train(Path(home), model_type, None, "classification", documents, **SHAPE, model_type=model_type)
            seconds = time.perf_counter() - started
            accuracy, f1 = curve(run_dir, "eval_accuracy"), curve(run_dir, "eval_f1")
            shown = ", ".join(f"{value:.1%} at step {step}" for step, value in accuracy.items())
            print(
                f"{model_type}: {shown}; F1 {f1[STEPS]:.3f}; the larger class {larger:.1%}; {seconds:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
