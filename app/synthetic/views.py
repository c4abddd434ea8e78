"""Answers of the API, which pages show too, from rows."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.background_tasks import failures
from app.core.i18n import _, gettext_noop
from app.core.models import BackgroundTask
from app.core.synthetic_models import DraftRecord, RecordGeneration
from app.core.synthetic_shapes import Synthesis
from app.synthetic import answers, drafts, progress, service
from app.synthetic.schemas import AnswerProblemInfo, DraftAnswer, RecordGenerationAnswer, SynthesisAnswer

_LIMITS = {
    "tokens": gettext_noop("It ended at the limit of tokens. Continue with a higher one."),
    "cost": gettext_noop("It ended at the limit of the cost. Continue with a higher one."),
}


def generation_answer(session: Session, generation: RecordGeneration) -> RecordGenerationAnswer:
    """A generation with its counts."""
    task = service.task_of(session, generation)
    same = (
        *("id", "corpus_id", "corpus_name", "corpus_version", "endpoint_id", "model", "model_name", "task_id"),
        *("num_prompt_tokens", "num_tokens", "malformed", "created_at"),
    )
    num_done = service.num_done(session, generation)
    return RecordGenerationAnswer(
        **{name: getattr(generation, name) for name in same},
        **generation.settings.model_dump(exclude={"language"}),
        state=_state(generation, task, num_done),
        message=_message(generation, task),
        num_done=num_done,
        seconds_left=task.progress.seconds_left if task is not None and task.state == "running" else None,
        cost=progress.cost(generation, generation.num_prompt_tokens, generation.num_tokens),
        examples=[
            AnswerProblemInfo(**example.model_dump(), message=problem_sentence(example.code))
            for example in generation.examples
        ],
        records=drafts.counts(session, generation.id),
    )


def _state(generation: RecordGeneration, task: BackgroundTask | None, num_done: int) -> str:
    """That of its task; of one whose task was deleted, whether it was complete."""
    if task is not None:
        return task.state
    return "succeeded" if num_done >= generation.settings.num_documents else "cancelled"


def _message(generation: RecordGeneration, task: BackgroundTask | None) -> str:
    if task is not None and task.failure is not None:
        return failures.sentence(task.failure)
    return _(_LIMITS[generation.stopped_by]) if generation.stopped_by is not None else ""


def problem_sentence(code: str) -> str:
    """What is wrong with an answer."""
    return _(answers.PROBLEMS.get(code, code))


def draft_answers(session: Session, generation: RecordGeneration, rows: Sequence[DraftRecord]) -> list[DraftAnswer]:
    """Records, each with the beginning of its document."""
    excerpts = drafts.excerpts(session, generation, rows)
    same = ("id", "document", "cells", "state", "is_edited", "duplicate_of")
    return [
        DraftAnswer(**{name: getattr(row, name) for name in same}, excerpt=excerpts.get(row.document, ""))
        for row in rows
    ]


def synthesis_answer(synthesis: Synthesis) -> SynthesisAnswer:
    """How a corpus was made."""
    same = synthesis.model_dump(exclude={"settings", "model_id"})
    used = synthesis.settings.model_dump(include={"kind", "template", "seed", "temperature"})
    return SynthesisAnswer(**same, **used)
