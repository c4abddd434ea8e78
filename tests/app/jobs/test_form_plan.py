"""The plan beside the form: what prevents a submission, and what the form drops before it is planned."""

import pytest

from app.core import db
from app.core.errors import PanelError
from app.core.models import Corpus
from app.jobs import form_plan
from app.jobs.form_plan import FormPlan
from app.jobs.planning import validation
from app.jobs.views.form import SubmittedForm
from app.jobs.views.form_controls import FormContext
from tests.app.jobs import factories
from tests.app.jobs.views.test_form import BASE
from tests.users import Person


def planned(owner: Person, **fields: str) -> FormPlan:
    """The plan of a form with a corpus."""
    corpus = factories.corpus(owner)
    with db.transaction() as session:
        return form_plan.make_plan(session, owner.principal, SubmittedForm({"recipe": "tiny", **fields}, [corpus]))


def test_a_form_that_can_be_submitted_has_a_plan_and_no_problem(alice_user: Person) -> None:
    plan = planned(alice_user)
    assert (plan.answer is not None, plan.problem) == (True, None)


@pytest.mark.parametrize("check", ["check_memory", "check_disk"])
def test_a_job_that_does_not_fit_shows_its_cost_and_why(
    alice_user: Person, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    def refuse(*_arguments: object) -> None:
        raise PanelError(422, "too_large", "It does not fit.")

    monkeypatch.setattr(validation, check, refuse)
    plan = planned(alice_user)
    assert plan.answer is not None
    assert plan.problem is not None
    assert plan.problem.code == "too_large"


def test_the_button_offers_what_fits_before_another_vocabulary(alice_user: Person) -> None:
    answer = planned(alice_user).answer
    assert answer is not None
    changes = {"gradient_checkpointing": True}
    for update, fix in (
        ({"fits": False, "changes": changes}, changes),
        ({"fits": False, "changes": None}, {"vocab_size": None}),
        ({"fits": True}, {"vocab_size": None}),
    ):
        assert FormPlan(answer.model_copy(update=update), changes={"vocab_size": None}).fix == fix


def test_a_spec_that_is_wrong_has_a_problem_and_no_plan(alice_user: Person) -> None:
    plan = planned(alice_user, learning_rate="fast")
    assert plan.answer is None
    assert plan.problem is not None
    assert [field.field for field in plan.problem.fields] == ["learning_rate"]


def test_what_the_page_locks_is_not_submitted() -> None:
    fields = {"recipe": "chat", "hidden_size": "12", "tokenizer": "t", "learning_rate": "0.5"}
    kinds = {"1": "text", "2": "chat"}
    context = FormContext(SubmittedForm(fields, list(kinds)), {}, base=BASE)
    corpora = [Corpus(id=corpus_id, kind=kind) for corpus_id, kind in kinds.items()]
    left = form_plan.without_unusable(context, corpora)
    assert left.fields == {"recipe": "chat", "learning_rate": "0.5"}
    assert list(left.corpora) == ["2"]


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        ({"seed": "It is odd."}, "Some settings need attention; see the marked fields."),
        ({"seed": "It is odd.", "objective": "It is unknown."}, "It is unknown."),
        ({}, "All is wrong."),
    ],
)
def test_an_error_that_no_field_shows_is_stated_above_the_form(errors: dict[str, str], sentence: str) -> None:
    problem = PanelError(422, "spec_invalid", "All is wrong.")
    assert form_plan.explain(problem, errors, ["seed"]) == sentence
    assert form_plan.explain(None, {}, []) is None
