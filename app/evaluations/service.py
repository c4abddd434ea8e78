"""Evaluations of several models on several corpora, and their scores side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, exists, func, literal, or_, select, type_coerce
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.background_tasks import service as background_tasks
from app.background_tasks.schemas import EvaluationRequest, EvaluationSettings
from app.checkpoints.usable_models import Model, NamedModel, named_models
from app.core import db, labels, queue
from app.core.background_tasks import OPEN
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_columns import JsonColumn
from app.core.json_shapes import CorpusScores, TaskOptions
from app.core.models import BackgroundTask, Checkpoint, Corpus, ImportedModel, Job
from app.core.principal import Principal, visible_to

MAX_TASKS = 500  # evaluations whose scores are compared at a time
MAX_MODELS = 16  # of one request
# The metric that models are compared by, for each kind of corpus, and whether more of it is better.
MAIN_METRICS = {
    "text": ("bits_per_byte", False),
    "multiple_choice": ("acc", True),
    "classification": ("acc", True),
    "completion": ("exact_match", True),
    "questions": ("right", True),
}


@dataclass(frozen=True)
class Score:
    """How a model did on a corpus, by the main metric of its kind, with the 95 % interval where it has one."""

    model: NamedModel
    value: float
    interval: tuple[float, float] | None
    num_documents: int
    task_id: str
    finished_at: datetime | None


@dataclass(frozen=True)
class StoredScores:
    """What an evaluation measured on one of its corpora."""

    task_id: str
    model_id: str
    options: TaskOptions
    finished_at: datetime | None
    scores: CorpusScores


@dataclass(frozen=True)
class CorpusComparison:
    """The newest score of each model on a corpus with the same settings, the best first.

    `max_tokens` and `judge`, the ID of a model, are those of questions; `judge_name` is empty without one, and if it
    was deleted. `baseline` is what guessing reaches, None for evaluations of earlier versions.
    """

    corpus_id: str
    corpus_name: str
    kind: str
    metric: str
    is_more_better: bool
    limit: int | None
    num_fewshot: int
    max_tokens: int | None
    judge: str | None
    judge_name: str
    baseline: float | None
    scores: list[Score]


def start(principal: Principal, models: Sequence[str], settings: EvaluationSettings) -> None:
    """Queue an evaluation of each model, all or none. Raises PanelError at the field that does not fit."""
    if not 1 <= len(models) <= MAX_MODELS:
        raise bad_field("models", "request_invalid", _("Choose from 1 to {most} models.", most=MAX_MODELS))
    with db.transaction() as session:
        for model_id in dict.fromkeys(models):
            request = EvaluationRequest(checkpoint=model_id, **settings.model_dump())
            try:
                background_tasks.evaluate(session, principal=principal, request=request)
            except PanelError as error:
                if [problem.field for problem in error.fields] != ["checkpoint"]:
                    raise
                raise bad_field("models", error.code, error.message) from error
    queue.flush_outbox()


def comparisons(
    session: Session, *, principal: Principal, search: str = "", limit: int = MAX_TASKS, after: str | None = None
) -> tuple[list[CorpusComparison], str | None]:
    """The scores of the user's newest evaluations by corpus and settings, the newest corpus first, and the cursor of
    the next ones.

    `search` is a part of the name of a model or corpus: of other evaluations nothing is shown.
    """
    ids, cursor = _newest_evaluations(session, principal, search, limit, after)
    rows = _scores(session, ids)
    models = _models(session, {id for row in rows for id in (row.model_id, row.options.judge) if id is not None})
    groups: dict[tuple[object, ...], dict[str, StoredScores]] = {}
    for row in rows:
        groups.setdefault(_comparable(row), {}).setdefault(row.model_id, row)
    corpora = {row.scores.corpus for row in rows}
    names = {row.id: row.name for row in session.scalars(select(Corpus).where(Corpus.id.in_(corpora)))}
    return [_comparison(list(group.values()), names, models) for group in groups.values()], cursor


def _newest_evaluations(
    session: Session, principal: Principal, search: str, limit: int, after: str | None
) -> tuple[list[str], str | None]:
    """The IDs of the newest evaluations after the cursor, and the next cursor."""
    query = select(BackgroundTask.id).where(
        visible_to(BackgroundTask.owner_id, principal),
        BackgroundTask.kind == "evaluation",
        BackgroundTask.state == "succeeded",
    )
    if search:
        query = query.where(_is_named(search))
    if after is not None:
        query = query.where(BackgroundTask.id < after)
    ids = session.scalars(query.order_by(BackgroundTask.id.desc()).limit(limit + 1)).all()
    return list(ids[:limit]), ids[limit - 1] if len(ids) > limit else None


def _is_named(search: str) -> ColumnElement[bool]:
    """Whether the name of an evaluation's model, of its job or of one of its corpora has a text in it."""
    checkpoints = select(Checkpoint.id).join(Job, Job.id == Checkpoint.job_id)
    is_checkpoint = or_(labels.is_named(Job, search), labels.is_named(Checkpoint, search))
    models = select(ImportedModel.id).where(labels.is_named(ImportedModel, search))
    corpora = select(Corpus.id).where(labels.is_named(Corpus, search))
    each = _corpora_of(BackgroundTask.result).table_valued("value", name="each")
    return or_(
        BackgroundTask.checkpoint_id.in_(checkpoints.where(is_checkpoint)),
        BackgroundTask.model_id.in_(models),
        exists().select_from(each).where(each.c.value.op("->>")("corpus").in_(corpora)),
    )


def _corpora_of(result: Any) -> Any:
    """What an evaluation measured on each of its corpora, a row each."""
    return func.jsonb_array_elements(type_coerce(result, JSONB)["corpora"], type_=JSONB)


def _scores(session: Session, ids: Sequence[str]) -> list[StoredScores]:
    """The scores of evaluations on each corpus, the newest first, without examples, which the database leaves out."""
    query = select(
        BackgroundTask.id,
        func.coalesce(BackgroundTask.checkpoint_id, BackgroundTask.model_id).label("model_id"),
        BackgroundTask.options,
        BackgroundTask.finished_at,
        BackgroundTask.result,
    )
    newest = query.where(BackgroundTask.id.in_(ids)).subquery()
    each = _corpora_of(newest.c.result).column_valued("each", joins_implicitly=True)
    scores = each.op("-", return_type=JsonColumn(CorpusScores))(literal("examples"))
    columns = (newest.c.id, newest.c.model_id, newest.c.options, newest.c.finished_at, scores)
    return [StoredScores(*row) for row in session.execute(select(*columns).order_by(newest.c.id.desc()))]


def _comparable(row: StoredScores) -> tuple[object, ...]:
    """What is the same for scores that are compared: of the settings those that the kind of corpus depends on."""
    of, options = row.scores, row.options
    settings = (options.max_tokens, options.judge) if of.kind == "questions" else ()
    return (of.corpus, of.num_documents, _num_fewshot(row), *settings)


def _num_fewshot(row: StoredScores) -> int:
    return 0 if row.scores.kind == "text" else row.options.num_fewshot


def open_evaluations(session: Session, *, principal: Principal) -> list[tuple[BackgroundTask, NamedModel]]:
    """The user's evaluations that wait or run, newest first, each with its model."""
    query = select(BackgroundTask).where(
        visible_to(BackgroundTask.owner_id, principal),
        BackgroundTask.kind == "evaluation",
        BackgroundTask.state.in_(OPEN),
    )
    tasks = session.scalars(query.order_by(BackgroundTask.id.desc())).all()
    ids = [str(task.checkpoint_id or task.model_id) for task in tasks]
    models = _models(session, set(ids))
    return [(task, models[model_id]) for task, model_id in zip(tasks, ids, strict=True)]


def _models(session: Session, ids: set[str]) -> dict[str, NamedModel]:
    """Those of the models that exist, by their IDs."""
    rows: list[Model] = [
        *session.scalars(select(Checkpoint).where(Checkpoint.id.in_(ids))),
        *session.scalars(select(ImportedModel).where(ImportedModel.id.in_(ids))),
    ]
    return {model.id: model for model in named_models(session, rows)}


def _comparison(group: list[StoredScores], names: dict[str, str], models: dict[str, NamedModel]) -> CorpusComparison:
    newest = group[0]
    of, options = newest.scores, newest.options
    metric, is_more_better = MAIN_METRICS[of.kind]
    scores = [
        Score(
            models[row.model_id],
            row.scores.metrics[metric],
            row.scores.intervals.get(metric),
            row.scores.num_documents,
            row.task_id,
            row.finished_at,
        )
        for row in group
        if metric in row.scores.metrics
    ]
    max_tokens, judge = (options.max_tokens, options.judge) if of.kind == "questions" else (None, None)
    return CorpusComparison(
        corpus_id=of.corpus,
        corpus_name=names.get(of.corpus, ""),
        kind=of.kind,
        metric=metric,
        is_more_better=is_more_better,
        limit=options.limit,
        num_fewshot=_num_fewshot(newest),
        max_tokens=max_tokens,
        judge=judge,
        judge_name=models[judge].name if judge in models else "",
        baseline=of.baselines.get(metric),
        scores=sorted(scores, key=lambda score: score.value, reverse=is_more_better),
    )
