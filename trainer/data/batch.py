"""A batch: numpy arrays by name, whose first axis is the samples. numpy only."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Batch = dict[str, Array]  # always has `labels`; the other arrays depend on the objective

IGNORE_INDEX = -100  # a label that does not count in the loss, as in torch's cross_entropy


def num_targets(batch: Batch) -> float:
    """The divisor that turns a batch's summed loss into a mean: the sum of `weights`, or the number of labels."""
    if "weights" in batch:
        return float(batch["weights"].sum(dtype=np.float64))
    return float((batch["labels"] != IGNORE_INDEX).sum())


def take_rows(batch: Batch, rows: slice) -> Batch:
    """A slice of a batch along the samples."""
    return {name: values[rows] for name, values in batch.items()}


def num_rows(batch: Batch) -> int:
    """The number of samples in a batch."""
    return len(batch["labels"])


def pad_batch(batch: Batch, count: int) -> Batch:
    """A copy of a batch extended to `count` samples by repeating the first one without labels or weights."""
    missing = count - num_rows(batch)
    padded = {name: np.concatenate([values, *[values[:1]] * missing]) for name, values in batch.items()}
    if missing:
        padded["labels"][-missing:] = IGNORE_INDEX
        if "weights" in padded:
            padded["weights"][-missing:] = 0
    return padded
