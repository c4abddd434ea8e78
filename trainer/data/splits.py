"""Which documents of the training corpora are held out, decided by what they are instead of where they stand.

The hash of a document's text, or of its group, is a number in [0, 1) that is the same in every run and in every later
version of a corpus; documents below the validation fraction are held out. numpy only.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.data.corpus import CorpusReader
from trainer.failure import Failure
from trainer.formats.corpus_kinds import GROUPS_FILE, TRAIN_NAMES, VALIDATION_NAMES, group_hash
from trainer.planning.counts import num_held_out
from trainer.run_dir import CorpusInput
from trainer.spec import TrainSpec

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]  # shape (documents,)
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]  # shape (documents,)


@dataclass(frozen=True)
class Split:
    """The held-out documents of all corpora in their order."""

    is_held_out: Mask

    @property
    def sha256(self) -> str:
        """What names tokenized data with this split."""
        return hashlib.sha256(np.packbits(self.is_held_out).tobytes()).hexdigest()


def split_documents(sources: Sequence[CorpusInput], spec: TrainSpec) -> Split | None:
    """The split that a spec asks for; None for the default one, which is made of sequences or records.

    Raises Failure if a corpus has no groups or a side would have no document.
    """
    if spec.split == "default":
        return None
    texts = np.concatenate([hash_documents(source) for source in sources])
    labels = [label for source in sources for label in read_labels(source)] if spec.split == "label" else []
    groups = [read_groups(source) for source in sources] if spec.split in ("group", "column") else [texts]
    is_held_out = hold_out(spec.split, spec.validation_fraction, texts, np.concatenate(groups), labels)
    is_validated = bool(is_held_out.any()) or bool(spec.validation_corpora)
    if is_held_out.all() or not is_validated:
        raise Failure("split_empty", held_out=int(is_held_out.sum()), documents=len(is_held_out))
    return Split(is_held_out)


def hold_out(split: str, fraction: float, texts: Hashes, groups: Hashes, labels: Sequence[str]) -> Mask:
    """Which documents a split holds out, by the hashes of their texts and groups, and their labels.

    Raises Failure for a column that names neither side of a document.
    """
    if split == "label":
        return _lowest_of_each_label(texts, labels, fraction)
    if split == "column":
        return _sides_of_column(groups)
    return _below(texts if split == "document" else np.where(groups == 0, texts, groups), fraction)


def count_repeated(texts: Hashes, is_held_out: Mask) -> int:
    """Held-out documents whose text is also trained on."""
    return int(np.isin(texts[is_held_out], texts[~is_held_out]).sum())


def hash_documents(source: CorpusInput) -> Hashes:
    """The hashes of all documents in their order."""
    return np.fromiter(CorpusReader(source).hashes(), dtype=np.uint64)


def read_labels(source: CorpusInput) -> list[str]:
    """The label of each record; empty for one without. Equal labels are one string in memory."""
    labels = (str(json.loads(record).get("label", "")) for record in CorpusReader(source).texts())
    return [sys.intern(label) for label in labels]


def _below(hashes: Hashes, fraction: float) -> Mask:
    return hashes < np.uint64(int(fraction * 2**64))


def _lowest_of_each_label(hashes: Hashes, labels: Sequence[str], fraction: float) -> Mask:
    """Of each label the documents with the lowest hashes: its share, rounded down, but at least one of two.

    Equal documents stay on one side, so that a share with copies may be smaller.
    """
    codes: dict[str, int] = {}
    code_of_row = np.fromiter((codes.setdefault(label, len(codes)) for label in labels), np.int64, len(hashes))
    order = np.lexsort((hashes, code_of_row))
    is_held_out = np.zeros(len(hashes), dtype=np.bool_)
    for rows in np.split(order, np.cumsum(np.bincount(code_of_row))):
        count = num_held_out(len(rows), fraction)
        if count:
            ordered = hashes[rows]
            is_held_out[rows] = ordered < ordered[count] if count < len(rows) else True
    return is_held_out


def read_groups(source: CorpusInput) -> Hashes:
    """The hash of each document's group, 0 for one without. Raises Failure for a corpus without a column of groups."""
    path = Path(source.path) / GROUPS_FILE
    if not path.exists():
        raise Failure("groups_missing", corpus=source.id)
    groups = np.fromfile(path, dtype="<u8").astype(np.uint64)
    if len(groups) != len(CorpusReader(source)):
        raise Failure("groups_missing", corpus=source.id)
    return groups


def _sides_of_column(groups: Hashes) -> Mask:
    """The documents whose column names the validation side. Raises Failure for one that names neither."""
    sides = [
        np.isin(groups, np.asarray([group_hash([name.encode()]) for name in names], dtype=np.uint64))
        for names in (TRAIN_NAMES, VALIDATION_NAMES)
    ]
    unknown = int((~(sides[0] | sides[1])).sum())
    if unknown:
        raise Failure("split_unnamed", documents=unknown)
    return sides[1]
