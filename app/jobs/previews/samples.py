"""The samples of a job that is not submitted yet, made of its corpora, or of a part of them, by a child process."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.core import job_failures, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, ngettext
from app.core.models import Corpus, Job
from app.corpora import service as corpora
from app.jobs.planning import base_model
from app.jobs.planning.answers import localize
from app.web import preview_process as process
from app.web.preview_process import PreviewRefused
from trainer.batch_shapes import JOB_PREVIEW, BatchView, JobPreview
from trainer.events import RemarkKind
from trainer.processes.child_limits import ChildLimits
from trainer.run_dir import Inputs, RunDir
from trainer.spec import TrainSpec

READ_BYTES = 2 << 20  # of each corpus
LIMITS = ChildLimits(memory_bytes=process.MEMORY_BYTES, cpu_seconds=40, file_bytes=256 << 20, niceness=0)


class RemarkAnswer(BaseModel):
    """Why a record is cut or left out."""

    corpus: str
    record: int = Field(description="Its number in the corpus, from 1.")
    kind: RemarkKind
    message: str


class SamplesAnswer(BaseModel):
    """A batch of a job that is not submitted, and what was counted while its data were read."""

    batch: BatchView
    num_documents: list[int] = Field(description="Documents that were read of each corpus.")
    is_complete: bool = Field(
        description="Whether these are all documents: then the job will read the same batch. Otherwise they are a "
        "sample of them, and a new tokenizer is trained on that."
    )
    num_train: int = Field(description="Samples for training that these documents make.")
    num_validation: int = Field(description="Samples that are held out.")
    num_cut: int = Field(description="Records that are cut to the sequence length.")
    num_dropped: int = Field(description="Records that are left out.")
    num_equal: int = Field(description="Of these, pairs whose answers are equal, as far as they are read.")
    num_refused: int = Field(description="Of these, records that the chat template refuses.")
    num_in_training: int = Field(description="Documents or records that are held out and also trained on.")
    remarks: list[RemarkAnswer] = Field(description="The first records that are cut or left out, of each reason.")


def inputs_of(session: Session, spec: TrainSpec, trained: Sequence[Corpus], parent: Job | None) -> Inputs:
    """Paths of what a resolved spec refers to; `parent` is the job that it continues. Raises PanelError."""
    tokenizer = spec.tokenizer or (parent.tokenizer_id if parent is not None else None)
    files = base_model.place(session, spec.base_model) if spec.base_model else None
    if spec.base_model and files is None:
        raise bad_field("base_model", "base_unknown", _("The base model was deleted. Choose another one."))
    return Inputs(
        corpora=[corpora.corpus_input(corpus) for corpus in trained],
        validation=[corpora.corpus_input(other) for other in corpora.existing(session, spec.validation_corpora)],
        tokenizer=str(storage.tokenizer(tokenizer)) if tokenizer and files is None else None,
        base=str(storage.checkpoint(files.path)) if files is not None else None,
        cache="",
    )


def preview(spec: TrainSpec, inputs: Inputs, *, step: int = 1, first: int = 0, count: int) -> SamplesAnswer:
    """The samples `first` to `first + count - 1` of the batch of a step. Raises PanelError if the data do not fit the
    spec, take too long, or the node has no room for the child.
    """
    if first >= spec.train_batch_size:
        message = ngettext(
            "A batch of this job has {n} sample. Choose that one.",
            "A batch of this job has {n} samples. Choose one of them.",
            spec.train_batch_size,
        )
        raise bad_field("first", "sample_unknown", message)
    with tempfile.TemporaryDirectory(prefix="athanor-samples-") as temporary:
        run_dir = RunDir(Path(temporary).resolve())
        run_dir.create(spec, inputs, 1)
        arguments = [str(run_dir.path), f"--step={step}", f"--first={first}", f"--count={count}"]
        arguments.append(f"--max-bytes={READ_BYTES}")
        try:
            answer = process.run("trainer", "job-preview", *arguments, too_slow=_too_slow, limits=LIMITS)
        except PreviewRefused as refused:
            raise _unfit(str(refused)[:500]) from None
    return _answer(JOB_PREVIEW.validate_json(answer))


def _answer(view: JobPreview) -> SamplesAnswer:
    if view.failure is not None:
        failure = job_failures.describe(view.failure.code, view.failure.values)
        sentence = f"{failure['cause']} {failure['next_step']}"
        if not view.is_complete:
            sentence = _("{sentence} Only a part of the corpora was read for this.", sentence=sentence)
        raise _unfit(sentence)
    assert view.batch is not None
    counts = {name: getattr(view, name) for name in SamplesAnswer.model_fields if name not in ("batch", "remarks")}
    remarks = [
        RemarkAnswer(corpus=remark.corpus, record=remark.record, kind=remark.kind, message=localize(remark.why))
        for remark in view.remarks
    ]
    return SamplesAnswer(batch=view.batch, remarks=remarks, **counts)


def _unfit(sentence: str) -> PanelError:
    return PanelError(422, "preview_unfit", sentence)


def _too_slow() -> PanelError:
    message = _(
        "The samples take too much time or memory to make. Choose fewer corpora, or submit the job and look then."
    )
    return PanelError(422, "batch_slow", message)
