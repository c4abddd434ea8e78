"""What loss a model reaches that knows how frequent each token is, and nothing else. numpy only."""

import numpy as np

from trainer.data.batch import IGNORE_INDEX, Array
from trainer.datasets.base import Dataset

MAX_TOKENS = 1 << 19  # that are counted; with n tokens of a vocabulary of V the entropy is V / 2n too low at most
SAMPLES_AT_ONCE = 256


def unigram_loss(dataset: Dataset) -> float | None:
    """The entropy, in nats, of the tokens to predict in the first training samples of a run; None without any.

    A token counts as much as it does in the loss.
    """
    counts: Array = np.zeros(0)
    num_seen = 0
    for first in range(0, dataset.num_train, SAMPLES_AT_ONCE):
        batch = dataset.train_batch(first, min(SAMPLES_AT_ONCE, dataset.num_train - first))
        labels = batch["labels"]
        is_label = labels != IGNORE_INDEX
        weights = batch.get("weights", np.ones(labels.shape))[is_label]
        added = np.bincount(labels[is_label], weights, minlength=len(counts))
        counts = added + np.pad(counts, (0, len(added) - len(counts)))
        num_seen += dataset.num_tokens_of(batch)
        if num_seen >= MAX_TOKENS:
            break
    if not counts.sum():
        return None
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
