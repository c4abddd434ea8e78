"""Shows a training batch as the trainer gets it: every token, what of it is learned, and the documents that it is from.

Imports no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from trainer.batch_shapes import BatchView, Document, Role, SampleView, SegmentView, TokenView
from trainer.data.batch import IGNORE_INDEX, Array, Batch, num_rows, take_rows
from trainer.data.token_bytes import TokenBytes
from trainer.datasets import prepare
from trainer.datasets.base import Dataset
from trainer.datasets.factory import open_dataset
from trainer.families import ANSWER_OBJECTIVES
from trainer.run_dir import RunDir
from trainer.spec import TrainSpec

UNAVAILABLE = {
    "not_prepared": "the data of the run are not tokenized yet",
    "data_deleted": "the tokenized data of the run have been deleted",
}


class BatchUnavailable(ValueError):
    """The batches of a run cannot be shown, for a reason of UNAVAILABLE: its message begins with its code."""

    def __init__(self, code: str) -> None:
        super().__init__(f"{code}: {UNAVAILABLE[code]}")


def view_batch(run_dir: RunDir, step: int, first: int = 0, count: int | None = None) -> BatchView:
    """The samples `first` to `first + count - 1` of the batch of a step, counted from 1.

    Raises BatchUnavailable before the data of the run are tokenized, or after they have been deleted; Failure if they
    cannot be opened.
    """
    fence = _prepared_fence(run_dir)
    spec, inputs, prepared = run_dir.spec(), run_dir.inputs(fence), prepare.read(run_dir, fence)
    if not Path(prepared.tokens).is_dir() or not Path(prepared.tokenizer).is_dir():
        raise BatchUnavailable("data_deleted")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(prepared.tokenizer, local_files_only=True)
    dataset = open_dataset(Path(prepared.tokens), spec, tokenizer)
    start = (step - 1) * spec.train_batch_size
    batch = dataset.train_batch(start, spec.train_batch_size)
    last = spec.train_batch_size if count is None else min(first + count, spec.train_batch_size)
    rows = take_rows(batch, slice(first, last))
    reader = _BatchReader(spec, dataset, tokenizer)
    padding = reader.padding(batch)
    return BatchView(
        step=step,
        num_samples=num_rows(batch),
        num_positions=padding.size,
        num_learned=reader.num_learned(batch),
        num_padding=int(padding.sum()),
        is_skipped=step in inputs.skipped_steps,
        epoch=start / dataset.num_train,
        corpora=[corpus.id for corpus in inputs.corpora],
        samples=list(reader.samples(rows, padding[first:last], start + first)),
    )


def _prepared_fence(run_dir: RunDir) -> int:
    """The newest attempt whose data are tokenized."""
    fences = sorted((int(path.parent.name) for path in run_dir.path.glob("attempts/*/prepared.json")), reverse=True)
    if not fences:
        raise BatchUnavailable("not_prepared")
    return fences[0]


class _BatchReader:
    """Takes the arrays of a batch apart again."""

    def __init__(self, spec: TrainSpec, dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
        self._objective = spec.objective
        self._dataset = dataset
        self._bytes = TokenBytes(tokenizer.backend_tokenizer)
        self._mask = tokenizer.mask_token_id
        self._spellings: dict[int, tuple[str, str]] = {}

    def samples(self, batch: Batch, padding: Array, first: int) -> Iterator[SampleView]:
        """The samples of a batch whose first one has this number in the run, and which positions are padding."""
        for row in range(num_rows(batch)):
            documents = self._dataset.documents_of(first + row)
            segments = self._segments({name: values[row] for name, values in batch.items()}, documents)
            if num_cut := self._dataset.num_cut_tokens_of(first + row):
                pairs = zip(segments, num_cut, strict=True)
                segments = [replace(segment, num_cut=count) for segment, count in pairs]
            yield SampleView(
                number=first + row,
                segments=segments,
                num_padding=int(padding[row].sum()),
                documents=documents,
            )

    def padding(self, batch: Batch) -> Array:
        """Which input positions are padding, in the shape of `input_ids`."""
        if "attention_mask" in batch:
            return np.asarray(batch["attention_mask"] == 0)
        if self._objective in ANSWER_OBJECTIVES:
            # The labels of a record's last answer end it: what follows the last label is padding.
            is_label = batch["labels"] != IGNORE_INDEX
            return np.asarray(np.flip(np.cumsum(np.flip(is_label, -1), -1), -1) == 0)
        return np.zeros(batch["input_ids"].shape, dtype=bool)

    def num_learned(self, batch: Batch) -> int:
        """The labels of a batch that count in the loss."""
        if "answered" in batch:
            return int(batch["answered"].sum())
        if "position_ids" in batch:
            return int((batch["weights"] > 0).sum())
        return int((batch["labels"] != IGNORE_INDEX).sum())

    def _segments(self, arrays: Batch, documents: Sequence[Document]) -> list[SegmentView]:
        """The segments of one sample, whose arrays have shape (tokens,), for pairs of answers (2, tokens)."""
        inputs, labels = arrays["input_ids"], arrays["labels"]
        match self._objective:
            case "causal":
                weights = np.ones(len(labels))
                return [SegmentView("text", self._predicted(inputs, labels, weights))]
            case "masked":
                return [SegmentView("text", self._denoised(inputs, labels))]
            case "classification":
                text = self._read(inputs[arrays["attention_mask"] == 1])
                return [SegmentView("text", text, label=self._dataset.labels[int(labels)])]
            case "dpo":
                pairs = zip(inputs, labels, arrays["answered"], strict=True)
                chosen, rejected = (self._predicted(*self._without_padding(*answer)) for answer in pairs)
                return [SegmentView("chosen", chosen), SegmentView("rejected", rejected)]
            case "chat" | "completion":
                return self._records(arrays, documents)
            case _:
                source = inputs[arrays["attention_mask"] == 1] if "attention_mask" in arrays else inputs
                target = self._learned(labels[labels != IGNORE_INDEX])
                return [
                    SegmentView(name="source", tokens=self._read(source)),
                    SegmentView(name="target", tokens=target),
                ]

    def _records(self, arrays: Batch, documents: Sequence[Document]) -> list[SegmentView]:
        """The records of a packed sequence: the positions of each begin at 0."""
        columns = self._without_padding(*(arrays[name] for name in ("input_ids", "labels", "weights", "position_ids")))
        inputs, labels, weights, positions = columns
        starts = np.flatnonzero(positions == 0).tolist()
        bounds = zip(starts, [*starts[1:], len(inputs)], documents, strict=True)
        return [
            SegmentView("text", self._predicted(inputs[start:end], labels[start:end], weights[start:end]), document)
            for start, end, document in bounds
        ]

    def _without_padding(self, inputs: Array, labels: Array, *others: Array) -> tuple[Array, ...]:
        """Arrays of one sequence up to its last label."""
        length = int(np.flatnonzero(labels != IGNORE_INDEX)[-1]) + 1
        return tuple(values[:length] for values in (inputs, labels, *others))

    def _predicted(self, inputs: Array, labels: Array, weights: Array) -> list[TokenView]:
        """The tokens of a sequence whose labels are shifted by one: the first input, then the labels."""
        first = self._token(int(inputs[0]), "context")
        rest = zip(labels.tolist(), weights.tolist(), strict=True)
        return [first, *(self._token(number, "learned" if weight else "context", weight) for number, weight in rest)]

    def _denoised(self, inputs: Array, labels: Array) -> list[TokenView]:
        """The tokens of a masked text, with what stands in place of those to predict."""
        tokens = []
        for number, label in zip(inputs.tolist(), labels.tolist(), strict=True):
            if label == IGNORE_INDEX:
                tokens.append(self._token(number, "context"))
                continue
            role: Role = "masked" if number == self._mask else "kept" if number == label else "replaced"
            text, raw = self._spelled(label)
            tokens.append(TokenView(label, text, role, 1.0, number, self._spelled(number)[0], raw))
        return tokens

    def _read(self, ids: Array) -> list[TokenView]:
        return [self._token(number, "context") for number in ids.tolist()]

    def _learned(self, ids: Array) -> list[TokenView]:
        return [self._token(number, "learned") for number in ids.tolist()]

    def _token(self, number: int, role: Role, weight: float = 1.0) -> TokenView:
        text, raw = self._spelled(number)
        return TokenView(number, text, role, weight or 1.0, bytes=raw)

    def _spelled(self, number: int) -> tuple[str, str]:
        """How a token reads, and its bytes if it is no text."""
        if number not in self._spellings:
            self._spellings[number] = self._bytes.text(number), self._bytes.hex(number)
        return self._spellings[number]
