"""Tokenizes the corpora of a job before it is submitted, in a background task: the job then finds their tokens.

The task prepares a run as an attempt does, with the same code and the same names in the cache.
"""

from typing import Any

from sqlalchemy.orm import Session

from app.core import background_tasks, disk, storage
from app.core.errors import bad_field
from app.core.i18n import _, gettext_noop
from app.core.json_shapes import TaskOptions
from app.core.models import BackgroundTask, Corpus
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.jobs import service
from app.jobs.previews import samples
from trainer.families import TEXT_OBJECTIVES
from trainer.run_dir import Inputs
from trainer.spec import TrainSpec

NUM_ENCODERS = 2  # processes that encode for a task at once, at most
# Of the process that starts them, and of each: with a vocabulary of 151,936 tokens they peak at 347 and 262 MiB
# (bench/encoder_memory.py).
STARTER_BYTES, ENCODER_BYTES = 400 << 20, 320 << 20
MEMORY_BYTES = STARTER_BYTES + NUM_ENCODERS * ENCODER_BYTES
SHORT_VOCABULARY = 1 << 16  # whose IDs take two bytes, others four
TOO_LARGE = gettext_noop(
    "The tokens need up to {needed} of disk space, but only {free} is left. Delete corpora, models or exports that are "
    "no longer needed and empty the trash, or free other space, then try again."
)


def start(session: Session, *, principal: Principal, request: dict[str, Any]) -> BackgroundTask:
    """Queue the tokenization of the corpora of a partial spec, with its tokenizer or that of its base model.

    Raises SpecError or PanelError. Call `queue.flush_outbox` after the commit.
    """
    resolved = service.resolve_request(session, principal=principal, request=request)
    parent = resolved.parent
    tokenizer = resolved.spec.tokenizer or (parent.tokenizer_id if parent is not None else None)
    spec = resolved.spec.model_copy(update={"tokenizer": tokenizer})
    if tokenizer is None and spec.base_model is None:
        message = _("Choose a tokenizer or a base model: without one, the job will train a tokenizer of its own.")
        raise bad_field("tokenizer", "tokenizer_missing", message)
    validation = corpora_service.require_ready_corpora(
        session, principal=principal, ids=spec.validation_corpora, field="validation_corpora"
    )
    disk.require_room(_num_bytes(spec, [*resolved.corpora, *validation], resolved.vocab_size), TOO_LARGE)
    task = background_tasks.enqueue(
        session,
        kind="tokenize",
        owner_id=principal.user_id,
        corpus_id=spec.corpora[0],
        memory_bytes=MEMORY_BYTES,
        options=TaskOptions(
            corpora=[*spec.corpora, *spec.validation_corpora], tokenizer=tokenizer, spec=spec.model_dump(mode="json")
        ),
    )
    session.refresh(task)
    return task


def _num_bytes(spec: TrainSpec, corpora: list[Corpus], vocab_size: int) -> int:
    """The size of the tokens, for text of two bytes a token: few tokenizers take more. A token of a record has a weight
    of four bytes besides.
    """
    of_token = (2 if vocab_size <= SHORT_VOCABULARY else 4) + (0 if spec.objective in TEXT_OBJECTIVES else 4)
    return sum(corpus.num_text_bytes or 0 for corpus in corpora) * of_token // 2


def assignment(session: Session, task: BackgroundTask) -> tuple[TrainSpec, Inputs] | None:
    """The spec of a task and the paths of what it names; None if a corpus was deleted. Raises PanelError if the base
    model was.
    """
    spec = TrainSpec.model_validate(task.options.spec)
    if len(corpora_service.existing(session, task.options.corpora)) < len(task.options.corpora):
        return None
    inputs = samples.inputs_of(session, spec, corpora_service.existing(session, spec.corpora), None)
    return spec, inputs.model_copy(update={"cache": str(storage.cache())})
