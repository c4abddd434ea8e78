"""The samples of a training step, token by token, read by a child process from the data that the trainer reads."""

from sqlalchemy.orm import Session

from app.core import storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, ngettext
from app.core.models import Corpus, Job
from app.core.principal import Principal, visible
from app.web import preview_process as process
from app.web.preview_process import PreviewRefused
from trainer.batch_shapes import BATCH_VIEW, BatchView
from trainer.spec import TrainSpec

MAX_SAMPLES = 16  # in one answer
SAMPLES_SHOWN = 8  # on a page


def require_text(session: Session, principal: Principal, job: Job) -> None:
    """Raise 404 for another user's job one of whose corpora the user may not see: its batches are their text."""
    if job.owner_id != principal.user_id:
        for corpus_id in job.spec.corpora:
            visible(session, Corpus, corpus_id, principal=principal)


def view_batch(job_id: str, spec: TrainSpec, step: int, first: int, count: int) -> BatchView:
    """The samples `first` to `first + count - 1` of the batch of a step of a job with this spec. Raises PanelError."""
    last = spec.max_steps
    if last is not None and step > last:
        message = ngettext("The job has {n} step. Choose that one.", "The job has {n} steps. Choose one of them.", last)
        raise bad_field("step", "step_unknown", message)
    if first >= spec.train_batch_size:
        message = ngettext(
            "A batch of this job has {n} sample. Choose that one.",
            "A batch of this job has {n} samples. Choose one of them.",
            spec.train_batch_size,
        )
        raise bad_field("first", "sample_unknown", message)
    arguments = [str(storage.run(job_id)), f"--step={step}", f"--first={first}", f"--count={count}"]
    try:
        answer = process.run("trainer", "batch", *arguments, too_slow=_too_slow)
    except PreviewRefused as refused:
        raise _unavailable(str(refused)) from None
    return BATCH_VIEW.validate_json(answer)


def _unavailable(reason: str) -> PanelError:
    if reason.startswith("data_deleted"):
        message = _(
            "The tokenized data of this job were deleted. Train further from one of its checkpoints to make them again."
        )
        return PanelError(409, "batch_deleted", message)
    message = _("The data of this job are not tokenized yet. Come back when it trains.")
    return PanelError(409, "batch_unprepared", message)


def _too_slow() -> PanelError:
    message = _("The samples take too much time or memory to show. Ask for fewer of them.")
    return PanelError(422, "batch_slow", message)
