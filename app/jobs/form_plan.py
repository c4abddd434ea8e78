"""The plan next to the form of a new job: what the job will cost, or why its submission would be refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.orm import Session

from app.core.errors import PanelError
from app.core.i18n import _, join_sentences
from app.core.models import Corpus
from app.core.principal import Principal
from app.jobs import service
from app.jobs.planning import answers, data_checks, validation
from app.jobs.planning.answers import PlanAnswer, format_estimate
from app.jobs.views import form
from app.jobs.views.form import SubmittedForm
from app.jobs.views.form_controls import FIXED_BY_BASE, FormContext
from app.web.errors import spec_fields
from trainer.formats.corpus_kinds import CORPUS_KINDS_BY_OBJECTIVE, EVALUATION_KINDS
from trainer.spec_errors import SpecError

PLANNED_FIGURES = {"max_steps": "max_steps", "num_train_epochs": "num_epochs"}


@dataclass(frozen=True)
class FormPlan:
    """A plan and what prevents its submission, if anything; neither while no corpus is chosen."""

    answer: PlanAnswer | None = None
    problem: PanelError | None = None
    changes: dict[str, Any] = field(default_factory=dict)  # of the spec, which its notes advise
    fit: str | None = None  # fits, tight or no

    @property
    def fix(self) -> dict[str, Any]:
        """The changes of a spec that its button offers, those of its memory first; empty if there are none."""
        if self.answer is not None and self.answer.fits is False and self.answer.changes:
            return self.answer.changes
        return self.problem.changes if self.problem is not None else self.changes


def make_plan(session: Session, principal: Principal, submitted: SubmittedForm) -> FormPlan:
    """The plan of a form, read and checked as its submission would be."""
    if not submitted.corpora and not submitted.origin_id:
        return FormPlan()
    try:
        resolved = service.resolve_request(session, principal=principal, request=form.to_partial_spec(submitted))
    except SpecError as error:
        return FormPlan(problem=as_panel_error(error))
    except PanelError as error:
        return FormPlan(problem=error)
    data = data_checks.check(session, principal, resolved.spec, resolved.corpora)
    answer = answers.plan_answer(resolved.spec, resolved.vocab_size, resolved.plan, resolved.auto_fields, data)
    try:
        validation.check_memory(resolved.plan)
        validation.check_disk(session, principal, resolved.plan)
    except PanelError as error:
        return FormPlan(answer, error, fit=resolved.plan.fit)
    return FormPlan(answer, changes=resolved.changes, fit=resolved.plan.fit)


def as_panel_error(error: SpecError) -> PanelError:
    """What is wrong with a spec, in the reader's language."""
    return PanelError(422, "spec_invalid", str(error), spec_fields(error))


def with_titles(answer: PlanAnswer | None) -> PlanAnswer | None:
    """A plan as the form shows it: what would make it fit, in the titles of its controls."""
    return answer and answer.model_copy(update={"reason": form.with_titles(answer.reason)})


def steps_and_epochs(answer: PlanAnswer | None) -> dict[str, str]:
    """How many steps a planned job takes and how many epochs, each by its field; ≈ marks estimates."""
    if answer is None:
        return {}
    figures = {name: answer.figures.get(figure) for name, figure in PLANNED_FIGURES.items()}
    return {
        name: ("" if figure.low == figure.high else "≈ ") + format_estimate(figure.value, figure.unit)
        for name, figure in figures.items()
        if figure is not None
    }


def without_unusable(context: FormContext, corpora: Sequence[Corpus]) -> SubmittedForm:
    """The form without what its page does not offer: fields of the base model, corpora that cannot be chosen."""
    submitted = context.form
    if context.base is not None:
        submitted = form.without_fields(submitted, (*FIXED_BY_BASE, "tokenizer"))
    unusable = {corpus.id for corpus in corpora if corpus.kind not in CORPUS_KINDS_BY_OBJECTIVE[context.objective]}
    evaluable = [corpus.id for corpus in corpora if corpus.state == "ready" and corpus.kind in EVALUATION_KINDS]
    chosen = [corpus_id for corpus_id in submitted.evaluation_corpora if corpus_id in evaluable]
    return replace(form.without_corpora(submitted, unusable), evaluation_corpora=chosen)


def explain(problem: PanelError | None, errors: dict[str, str], visible_fields: Sequence[str]) -> str | None:
    """A sentence about a problem: it refers to the marked fields, or states the errors that no visible field shows."""
    if problem is None:
        return None
    hidden_errors = [message for name, message in errors.items() if name not in visible_fields]
    if hidden_errors or not errors:
        return join_sentences(hidden_errors) or problem.message
    return _("Some settings need attention; see the marked fields.")
