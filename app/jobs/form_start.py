"""What the form of a new job starts from: a recipe for its corpora, a base model or a checkpoint."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from sqlalchemy.orm import Session

from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import Checkpoint
from app.core.principal import Principal, visible
from app.corpora import service as corpora
from app.jobs import service
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.cluster import nodes
from app.jobs.planning import base_model as bases
from app.jobs.planning.base_model import StartingPoint
from app.jobs.views import form
from app.jobs.views.form import Origin, SubmittedForm
from app.jobs.views.form_controls import FIXED_BY_BASE, FormContext
from trainer.planning.config_search import choose_auto_fields, split_auto_fields
from trainer.planning.hardware import NodeHardware
from trainer.planning.plan import plan
from trainer.planning.scaling_laws import choose_vocab_size
from trainer.spec import resolve
from trainer.spec_errors import SpecError

FITS_SHOWN = 10  # of each kind of base models


def recipe_for(session: Session, principal: Principal, ids: list[str]) -> str:
    """The recipe that learns from what the documents of the first corpus that there is are."""
    for corpus_id in ids:
        with suppress(PanelError):
            return form.recipe_of_kind(corpora.get_corpus(session, principal=principal, corpus_id=corpus_id).kind)
    return "tiny"


def origin_of(session: Session, principal: Principal, checkpoint_id: str) -> Origin:
    """A checkpoint to continue from, even one whose files were deleted: the jobs that did so still name it.

    Raises PanelError (404) if the user cannot see it.
    """
    checkpoint = visible(session, Checkpoint, checkpoint_id, principal=principal)
    job = service.get(session, principal=principal, job_id=checkpoint.job_id)
    names = corpora.corpus_names(session, principal=principal, ids=job.spec.corpora)
    names_shown = [names.get(corpus_id, _("a deleted corpus")) for corpus_id in job.spec.corpora]
    return Origin(
        checkpoint.id,
        checkpoint.step,
        job.id,
        job.name,
        effective_spec(job).model_dump(),
        names_shown,
        checkpoint.state,
    )


def form_context(session: Session, principal: Principal, submitted: SubmittedForm) -> FormContext:
    """What the job of a form starts from; empty if that does not exist, which its plan reports."""
    origin = base = None
    if submitted.origin_id:
        with suppress(PanelError):
            origin = origin_of(session, principal, submitted.origin_id)
    elif submitted.base_id:
        with suppress(PanelError):
            base = bases.find(session, principal, submitted.base_id)
    return FormContext(submitted, {}, origin, base)


def fit_words() -> dict[str | None, str]:
    """How well a job fits the memory, in words."""
    return {"fits": _("fits"), "tight": _("tight"), "no": _("does not fit")}


Choices = list[tuple[str, str]]


def base_model_choices(
    session: Session, principal: Principal, submitted: SubmittedForm
) -> list[tuple[str, str] | tuple[str, Choices]]:
    """The options of what to start from: from scratch; by group, the models of each run; the imported ones.

    The first of each kind say whether the job of the form fits with them.
    """
    choices = bases.offers(session, principal=principal, chosen=submitted.base_id)
    imported = [choice for choice in choices if choice.run is None]
    trained = [choice for choice in choices if choice.run is not None]
    request = form.to_partial_spec(form.without_fields(submitted, (*FIXED_BY_BASE, "tokenizer", "base_model")))
    words, node_for = fit_words(), cache(lambda num_processes: nodes.for_a_plan(session, num_processes))
    starts = {choice.id: bases.start_of(session, choice) for choice in (*trained[:FITS_SHOWN], *imported[:FITS_SHOWN])}
    fits = {base.id: words.get(_fit(request, base, node_for)) for base in starts.values() if base is not None}
    groups: dict[tuple[str, str] | None, Choices] = {}
    for choice in (*trained, *imported):
        label = " · ".join(filter(None, (choice.label, fits.get(choice.id))))
        groups.setdefault(choice.run, []).append((choice.id, label))
    scratch = " · ".join(filter(None, (_("From scratch"), words.get(_fit(request, None, node_for)))))
    titles = {run: _("Trained models: {run}", run=run[1]) if run else _("Base models") for run in groups}
    return [("", scratch), *((titles[run], options) for run, options in groups.items())]


def _fit(
    request: dict[str, Any], base: StartingPoint | None, node_for: Callable[[int], NodeHardware | None]
) -> str | None:
    """Whether the job of a request fits from a base model, or from scratch.

    None if the request has errors, the model cannot learn this, or there is no machine.
    """
    fields = {**request, "corpora": ["any"], "corpus_weights": []}  # memory does not depend on the text
    try:
        if base is not None:
            fields = bases.with_base_defaults({**fields, "base_model": base.id}, base)
        fields, auto_fields = split_auto_fields(fields)
        spec = resolve(fields)
    except (PanelError, SpecError):
        return None
    if spec.max_steps is None:
        spec = spec.model_copy(update={"max_steps": 1, "num_train_epochs": None})
    vocab_size = ((base and base.facts.vocab_size) or spec.vocab_size or choose_vocab_size(0)) + len(spec.new_tokens)
    node = node_for(spec.num_processes)
    if auto_fields and node is not None:
        chosen = choose_auto_fields(spec, vocab_size, node, auto_fields)
        return "no" if chosen is None else plan(chosen, vocab_size, node).fit
    return plan(spec, vocab_size, node).fit
