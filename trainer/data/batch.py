"""What one optimizer step is computed on: arrays by name, one row for each sample. numpy only."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Batch = dict[str, Array]  # `labels` is always there; the rest is what the objective takes

IGNORE_INDEX = -100  # a label that counts for nothing


def num_targets(batch: Batch) -> float:
    """What the summed loss of a batch is divided by: the sum of `weights`, or how many labels count."""
    if "weights" in batch:
        return float(batch["weights"].sum(dtype=np.float64))
    return float((batch["labels"] != IGNORE_INDEX).sum())


def take_rows(batch: Batch, chosen: slice) -> Batch:
    """Some of the samples."""
    return {name: values[chosen] for name, values in batch.items()}


def num_rows(batch: Batch) -> int:
    """How many samples there are."""
    return len(batch["labels"])


def pad_batch(batch: Batch, count: int) -> Batch:
    """The batch with `count` samples, the last ones such as count for nothing."""
    missing = count - num_rows(batch)
    made = {name: np.concatenate([values, *[values[:1]] * missing]) for name, values in batch.items()}
    if missing:
        made["labels"][-missing:] = IGNORE_INDEX
        if "weights" in made:
            made["weights"][-missing:] = 0
    return made
