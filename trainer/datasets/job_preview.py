"""Shows the batches of a run that has not been submitted, from its corpora or, of large ones, from a sample of them.

The samples are made by the code that prepares a run. Imports no torch.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from trainer.batch_shapes import BatchView, Document, JobPreview, PreviewFailure, SampleView, SegmentView
from trainer.datasets import prepare
from trainer.datasets.base import Dataset
from trainer.datasets.batch_view import view_batch
from trainer.datasets.factory import open_dataset
from trainer.events import RecordRemark
from trainer.failure import Failure
from trainer.formats.corpus_kinds import GROUPS_FILE
from trainer.report import Reporter
from trainer.rounding import ceil_div
from trainer.run_dir import CorpusInput, RunDir
from trainer.spec import MAX_STEPS, TrainSpec

FENCE = 1  # of the only attempt of a preview


@dataclass(frozen=True)
class CorpusSample:
    """A corpus, or every `stride`-th document of it from the first on, and how many documents that are."""

    source: CorpusInput
    stride: int
    num_documents: int
    is_complete: bool


def preview(run_dir: RunDir, step: int, first: int, count: int, max_bytes: int) -> JobPreview:
    """The samples `first` to `first + count - 1` of the batch of a step, counted from 1, of the spec in a run directory
    that is only for this. Of each corpus, those for validation too, at most about `max_bytes` are read.

    What the run would end with is answered as `failure`.
    """
    spec, inputs = run_dir.spec(), run_dir.inputs(FENCE)
    samples = _take_samples(inputs.corpora, run_dir.path / "corpora", max_bytes)
    validation = _take_samples(inputs.validation, run_dir.path / "validation", max_bytes)
    is_complete = all(sample.is_complete for sample in [*samples, *validation])
    answer = JobPreview(num_documents=[sample.num_documents for sample in samples], is_complete=is_complete)
    base = without_weights(Path(inputs.base), run_dir.path / "base") if inputs.base else None
    sampled = {
        "corpora": [sample.source for sample in samples],
        "validation": [sample.source for sample in validation],
        "base": base,
        "cache": str(run_dir.path / "cache"),
    }
    inputs = inputs.model_copy(update=sampled)
    run_dir.create(_of_preview(spec), inputs, FENCE)
    try:
        prepared = _prepare(run_dir, all(sample.is_complete for sample in samples))
        batch = view_batch(run_dir, step, first, count)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(prepared.tokenizer, local_files_only=True)
        trained, held_out = _open_datasets(prepared, run_dir.spec(), tokenizer)
    except Failure as failure:
        return replace(answer, failure=PreviewFailure(failure.code, failure.values))
    remarks = prepare.remarks_on(trained, [sample.source.id for sample in samples])
    remarks += chain.from_iterable(prepare.remarks_on(other, [name]) for name, other in held_out.items())
    return replace(
        answer,
        batch=_in_corpora(batch, samples),
        remarks=_with_numbers(remarks, [*samples, *validation]),
        **_counts(trained, [*held_out.values()]),
    )


def _prepare(run_dir: RunDir, is_complete: bool) -> prepare.Prepared:
    """Prepare the run. Of a sample without some labels of the validation corpora, without these corpora."""
    try:
        return prepare.prepare(run_dir, FENCE, Reporter(None))
    except Failure as failure:
        if is_complete or failure.code != "label_unknown":
            raise
        run_dir.create(run_dir.spec(), run_dir.inputs(FENCE).model_copy(update={"validation": []}), FENCE)
        return prepare.prepare(run_dir, FENCE, Reporter(None))


def _of_preview(spec: TrainSpec) -> TrainSpec:
    """The spec without what the samples do not depend on, and that only the whole corpora decide."""
    steps = spec.max_steps or MAX_STEPS
    return spec.model_copy(update={"num_train_epochs": None, "max_steps": steps, "sample_prompt": ""})


def _open_datasets(
    prepared: prepare.Prepared, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast
) -> tuple[Dataset, dict[str, Dataset]]:
    """The dataset to train on, and those of the validation corpora by their IDs."""
    held_out = {
        name: open_dataset(Path(path), spec, tokenizer, is_held_out=True) for name, path in prepared.held_out.items()
    }
    return open_dataset(Path(prepared.tokens), spec, tokenizer), held_out


def _counts(trained: Dataset, held_out: list[Dataset]) -> dict[str, Any]:
    names = ("num_validation", "num_cut", "num_dropped", "num_equal", "num_refused")
    counts = {name: sum(getattr(dataset, name) for dataset in (trained, *held_out)) for name in names}
    num_in_training = sum(trained.count_trained_on([trained, *held_out]))
    return {"num_train": trained.num_train, "num_in_training": num_in_training, **counts}


# ---- samples of corpora ---------------------------------------------------------------------------------------------


def _take_samples(sources: Sequence[CorpusInput], target: Path, max_bytes: int) -> list[CorpusSample]:
    return [take_sample(source, target / str(number), max_bytes) for number, source in enumerate(sources)]


def take_sample(source: CorpusInput, target: Path, max_bytes: int) -> CorpusSample:
    """A corpus itself, if its text has at most `max_bytes`; otherwise a corpus at `target` of every n-th document, so
    many that they have about as much text. Of a text, a document that is longer than all of that is cut.
    """
    directory = Path(source.path)
    ends = np.fromfile(directory / "index.bin", dtype="<u8").astype(np.int64)
    num_bytes = int(ends[-1]) if len(ends) else 0
    if num_bytes <= max_bytes:
        return CorpusSample(source, 1, len(ends), True)
    stride = min(ceil_div(num_bytes, max_bytes), len(ends))
    starts = np.concatenate(([0], ends[:-1]))[::stride]
    texts: list[bytes] = []
    budget = max_bytes
    with (directory / "text.bin").open("rb") as file:
        for start, end in zip(starts.tolist(), ends[::stride].tolist(), strict=True):
            length = end - start
            if length > budget and texts:
                break
            if source.kind == "text":
                length = min(length, budget)
            texts.append(_whole_characters(os.pread(file.fileno(), length, start)))
            budget -= length
    _write(target, texts)
    groups = directory / GROUPS_FILE
    if groups.exists():
        np.fromfile(groups, dtype="<u8")[::stride][: len(texts)].tofile(target / GROUPS_FILE)
    return CorpusSample(source.model_copy(update={"path": str(target)}), stride, len(texts), False)


def _whole_characters(data: bytes) -> bytes:
    return data.decode(errors="ignore").encode()


def _write(target: Path, texts: Sequence[bytes]) -> None:
    target.mkdir(parents=True)
    (target / "text.bin").write_bytes(b"".join(texts))
    np.cumsum([len(text) for text in texts], dtype="<u8").tofile(target / "index.bin")


def without_weights(base: Path, target: Path) -> str:
    """A directory with the files of a base model but its weights, which would be read for its hash."""
    target.mkdir()
    for path in base.iterdir():
        if path.suffix != ".safetensors":
            (target / path.name).symlink_to(path.resolve())
    return str(target)


# ---- numbers of documents -------------------------------------------------------------------------------------------


def _in_corpora(batch: BatchView, samples: Sequence[CorpusSample]) -> BatchView:
    """The view with the numbers that documents have in their corpora."""

    def place(document: Document) -> Document:
        return replace(document, number=document.number * samples[document.corpus].stride)

    return replace(batch, samples=[_with_places(sample, place) for sample in batch.samples])


def _with_numbers(remarks: Sequence[RecordRemark], samples: Sequence[CorpusSample]) -> list[RecordRemark]:
    """The remarks with the numbers that records have in their corpora."""
    strides = {sample.source.id: sample.stride for sample in samples}
    return [
        remark.model_copy(update={"record": (remark.record - 1) * strides[remark.corpus] + 1}) for remark in remarks
    ]


def _with_places(sample: SampleView, place: Callable[[Document], Document]) -> SampleView:
    def moved(segment: SegmentView) -> SegmentView:
        return replace(segment, document=place(segment.document)) if segment.document else segment

    segments = [moved(segment) for segment in sample.segments]
    return replace(sample, segments=segments, documents=[place(document) for document in sample.documents])
