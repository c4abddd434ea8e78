"""Rebuilds the arrays that the trainer gets from what the token lens shows of a sample, and from that alone."""

from typing import Any

import numpy as np

from trainer.batch_shapes import SampleView, SegmentView, TokenView
from trainer.data.batch import IGNORE_INDEX, Array, Batch


def rebuilt(sample: SampleView, row: Batch, objective: str) -> Batch:
    """The arrays of a sample, from its view; `row`, the arrays of the trainer, gives their names and lengths."""
    width = row["input_ids"].shape[-1]

    def padded(values: list[Any], filler: Any) -> list[Any]:
        return [*values, *[filler] * (width - len(values))]

    def shifted(segment: SegmentView) -> tuple[list[int], list[int], list[float]]:
        ids = [token.id for token in segment.tokens]
        weights = [token.weight if token.role == "learned" else 0.0 for token in segment.tokens]
        return ids[:-1], ids[1:], weights[1:]

    segments = sample.segments
    first = segments[0].tokens
    match objective:
        case "causal":
            inputs, labels, weights = shifted(segments[0])
            assert all(weights)
            return {"input_ids": np.asarray(inputs), "labels": np.asarray(labels)}
        case "masked":
            inputs = [token.id if token.role == "context" else int(token.input_id or 0) for token in first]
            labels = [IGNORE_INDEX if token.role == "context" else token.id for token in first]
            return {"input_ids": np.asarray(inputs), "labels": np.asarray(labels)}
        case "chat" | "completion":
            parts = [shifted(segment) for segment in segments]
            columns = [[value for part in parts for value in part[column]] for column in range(3)]
            positions = [position for part in parts for position in range(len(part[0]))]
            last = len(parts[-1][0])
            return {
                "input_ids": np.asarray(padded(columns[0], row["input_ids"][-1])),
                "labels": np.asarray(padded(columns[1], IGNORE_INDEX)),
                "weights": np.asarray(padded(columns[2], 0.0), dtype=np.float32),
                "position_ids": np.asarray([*positions, *range(last, last + width - len(positions))]),
            }
        case "dpo":
            parts = [shifted(segment) for segment in segments]
            fillers = row["input_ids"][:, -1]
            return {
                "input_ids": np.asarray([padded(part[0], end) for part, end in zip(parts, fillers, strict=True)]),
                "labels": np.asarray([padded(part[1], IGNORE_INDEX) for part in parts]),
                "answered": np.asarray([padded([weight > 0 for weight in part[2]], False) for part in parts]),
                "weights": np.asarray(1.0),
            }
        case "classification":
            return {"attention_mask": np.asarray(padded([1] * len(first), 0)), "input_ids": np.asarray(ids_of(first))}
        case _:
            target = ids_of(segments[1].tokens)
            missing = len(row["labels"]) - len(target)
            arrays = {
                "input_ids": np.asarray(ids_of(first)),
                "labels": np.asarray([*target, *[IGNORE_INDEX] * missing]),
                "decoder_input_ids": np.asarray([row["decoder_input_ids"][0], *target[:-1]]),
            }
            if "attention_mask" in row:
                arrays["attention_mask"] = np.asarray(padded([1] * len(first), 0))
            return arrays


def ids_of(tokens: list[TokenView]) -> list[int]:
    """The ids of tokens."""
    return [token.id for token in tokens]


def differing_arrays(sample: SampleView, row: Batch, objective: str) -> list[str]:
    """The names of the arrays of the trainer that differ from what is rebuilt, up to padding that is in no segment."""
    arrays = rebuilt(sample, row, objective)
    return [name for name, values in arrays.items() if not np.array_equal(values, _beginning(row[name], values))]


def _beginning(array: Array, like: Array) -> Array:
    return array[..., : like.shape[-1]] if like.ndim else array


def counted_padding(row: Batch, objective: str) -> int:
    """Input positions that are padding, counted in the trainer's arrays."""
    if "attention_mask" in row:
        return int((row["attention_mask"] == 0).sum())
    return int((row["labels"] == IGNORE_INDEX).sum()) if objective in ("chat", "completion", "dpo") else 0
