"""What is shown of a training batch: see datasets/batch_view.py. Imports pydantic only, so that app can read it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from trainer.events import RecordRemark

Role = Literal["context", "learned", "masked", "kept", "replaced"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a run: the position of its corpus in the spec, and its number in that corpus."""

    corpus: int
    number: int


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token of a sample.

    `role`: context is only read; learned is predicted from the tokens before it (with `weight`, if that is not 1);
    masked, kept and replaced are predicted by a masked language model, which reads the token `input_id` in its place.
    `bytes` has the bytes in hexadecimal of a token that is no text by itself, such as a part of a character.
    """

    id: int
    text: str
    role: Role
    weight: float = 1.0
    input_id: int | None = None
    input_text: str | None = None
    bytes: str = ""


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A part of a sample that attention does not leave: a text, a source or a target, or one of two answers.

    `document` is set where the segment is one document; `label` is the class of a text. `num_cut` more tokens followed,
    which were cut off because the sequence is full.
    """

    name: Literal["text", "source", "target", "chosen", "rejected"]
    tokens: list[TokenView]
    document: Document | None = None
    label: str | None = None
    num_cut: int = 0


@dataclass(frozen=True, slots=True)
class SampleView:
    """A sample: its number in the run, its segments, the padding after them, and the documents it takes text from."""

    number: int
    segments: list[SegmentView]
    num_padding: int
    documents: list[Document]


@dataclass(frozen=True, slots=True)
class BatchView:
    """Some samples of a batch, and counts of all of it.

    `num_positions` counts the input positions of the batch's tensors, `num_learned` the labels that count in the loss,
    and `num_padding` the positions that are padding. `corpora` are the IDs to which the documents' `corpus` refers.
    """

    step: int
    num_samples: int
    num_positions: int
    num_learned: int
    num_padding: int
    is_skipped: bool
    epoch: float
    corpora: list[str]
    samples: list[SampleView]


@dataclass(frozen=True, slots=True)
class PreviewFailure:
    """What a run would end with while it prepares its data: a code of trainer/failure.py, and its values."""

    code: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobPreview:
    """A batch of a run that has not been submitted, or why there would be none.

    `num_documents` are those that were read of each corpus: all of them, if it `is_complete`. The other counts are of
    these: samples for training and for validation, records that are cut to the sequence length, and records that are
    left out, among them pairs of equal answers and those that the chat template refuses; the first of them are named in
    `remarks`. `num_in_training` are documents or records for validation that are also trained on.
    """

    batch: BatchView | None = None
    num_documents: list[int] = field(default_factory=list)
    is_complete: bool = True
    num_train: int = 0
    num_validation: int = 0
    num_cut: int = 0
    num_dropped: int = 0
    num_equal: int = 0
    num_refused: int = 0
    num_in_training: int = 0
    remarks: list[RecordRemark] = field(default_factory=list)
    failure: PreviewFailure | None = None


JOB_PREVIEW = TypeAdapter(JobPreview)
BATCH_VIEW = TypeAdapter(BatchView)  # to and from JSON
