"""Counts documents of tokenized text that occur in other tokenized text, without reading most of them. numpy only."""

import hashlib
from dataclasses import dataclass

import numpy as np

from trainer.data.batch import Array

NUM_PLACES = 8  # tokens of a document that are compared before all of them
BLOCK = 1 << 16  # documents whose tokens are compared at a time
FACTOR = np.uint64(0x9E3779B97F4A7C15)

Keys = np.ndarray[tuple[int], np.dtype[np.uint64]]  # shape (documents,)


@dataclass(frozen=True)
class TokenizedDocuments:
    """Documents that stand one after the other: `bounds`, of shape (documents + 1,), say where each begins and ends."""

    tokens: Array
    bounds: Array

    def keys(self) -> Keys:
        """A number of each document, of its length and a few of its tokens: equal documents have equal ones."""
        keys = np.empty(len(self.bounds) - 1, dtype=np.uint64)
        for first in range(0, len(keys), BLOCK):
            bounds = np.asarray(self.bounds[first : first + BLOCK + 1]).astype(np.int64)
            starts, lasts = bounds[:-1], np.diff(bounds) - 1
            mixed = lasts.astype(np.uint64)
            for place in range(NUM_PLACES):
                tokens = self.tokens[starts + lasts * place // (NUM_PLACES - 1)]
                mixed = (mixed ^ tokens.astype(np.uint64)) * FACTOR
                mixed ^= mixed >> np.uint64(29)
            keys[first : first + BLOCK] = mixed
        return keys

    def digest(self, number: int) -> bytes:
        """A hash of all tokens of a document."""
        tokens = self.tokens[int(self.bounds[number]) : int(self.bounds[number + 1])]
        return hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()


def count_repeated_documents(documents: TokenizedDocuments, others: TokenizedDocuments) -> int:
    """How many of the documents have the tokens of one of the others."""
    keys, other_keys = documents.keys(), others.keys()
    candidates = np.flatnonzero(np.isin(keys, other_keys))
    digests = {others.digest(int(number)) for number in np.flatnonzero(np.isin(other_keys, keys[candidates]))}
    return sum(documents.digest(int(number)) in digests for number in candidates)
