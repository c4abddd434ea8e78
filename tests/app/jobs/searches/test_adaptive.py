"""Searches whose later jobs depend on earlier ones: when there is another job, with which values, and when none."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from starlette.testclient import TestClient

from app.core import db
from app.core.account_models import User
from app.core.errors import PanelError
from app.core.models import HyperparameterSearch, Job
from app.jobs import service as jobs
from app.jobs.searches import adaptive
from tests.app.jobs import factories
from tests.app.jobs.html_form import HtmlForm
from tests.users import Person
from tests.waiting import until

ADDRESS = "/api/v1/hyperparameter-searches"
SMALL = {"recipe": "tiny", "max_steps": 8, "eval_steps": 4, "save_steps": 8, "warmup_steps": 1}
RATES = {"learning_rate": {"low": 1e-4, "high": 1e-1, "is_log": True}}


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=100)
    return factories.corpus(alice_user)


@pytest.fixture(autouse=True)
def no_other_searches(database: str) -> Iterator[None]:
    yield
    with db.transaction() as session:
        session.execute(delete(Job))
        session.execute(delete(HyperparameterSearch))


def begin(api: TestClient, corpus: str, **fields: Any) -> dict[str, Any]:
    body = {"name": "rates", "spec": {**SMALL, "corpora": [corpus]}, "ranges": RATES, "sampler": "tpe", "num_jobs": 4}
    answer = api.post(ADDRESS, json={**body, **fields})
    assert answer.status_code == 201, answer.text
    search: dict[str, Any] = answer.json()
    return search


def read(api: TestClient, search: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = api.get(f"{ADDRESS}/{search['id']}").json()
    return answer


def due() -> list[str]:
    with db.transaction() as session:
        return adaptive.due_searches(session)


def rate(job_id: str) -> float:
    return factories.row(job_id).spec.learning_rate


def test_each_further_job_is_submitted_when_an_earlier_one_has_ended(alice_api: TestClient, corpus: str) -> None:
    search = begin(alice_api, corpus)
    assert (search["sampler"], search["is_open"], search["num_jobs"], search["num_planned"]) == ("tpe", True, 2, 4)
    assert due() == []  # two are under way
    questions = []
    for number, loss in enumerate((3.0, None, 2.0)):
        factories.end(read(alice_api, search)["jobs"][number], loss)
        with db.transaction() as session:
            plan = session.get_one(HyperparameterSearch, search["id"]).plan
            assert plan is not None
            questions.append([trial["loss"] for trial in adaptive._question(session, plan)["trials"]])
        if number < 2:
            assert due() == [search["id"]]
            job_id = adaptive.extend(search["id"])
            assert job_id == read(alice_api, search)["jobs"][-1]
            assert 1e-4 <= rate(job_id) <= 1e-1
            assert factories.row(job_id).name == f"rates: learning_rate={rate(job_id)}"
    assert questions == [[3.0, None], [3.0, "failed", None], [3.0, "failed", 2.0, None]]
    assert len({rate(job_id) for job_id in read(alice_api, search)["jobs"]}) == 4
    assert (read(alice_api, search)["is_open"], due(), adaptive.extend(search["id"])) == (False, [], None)


def test_a_cancelled_search_has_no_further_jobs(alice_api: TestClient, corpus: str) -> None:
    search = begin(alice_api, corpus)
    cancelled = alice_api.post(f"{ADDRESS}/{search['id']}/cancel").json()
    assert (cancelled["is_open"], cancelled["num_open"], cancelled["num_planned"]) == (False, 0, 2)
    assert (due(), adaptive.extend(search["id"])) == ([], None)


def test_a_search_ends_with_the_account_of_its_owner(alice_api: TestClient, corpus: str, alice_user: Person) -> None:
    search = begin(alice_api, corpus, parallel_jobs=1)
    factories.end(search["jobs"][0], 3.0)
    for change in ({"role": "viewer"}, {"disabled_at": db.now()}):
        with db.transaction() as session:
            session.execute(update(HyperparameterSearch).values(is_open=True))
            session.execute(update(User).where(User.id == alice_user.id).values(change))
        try:
            assert adaptive.extend(search["id"]) is None
        finally:
            with db.transaction() as session:
                restored = update(User).where(User.id == alice_user.id).values(role="owner", disabled_at=None)
                session.execute(restored)
        with db.transaction() as session:
            assert session.scalars(select(HyperparameterSearch.is_open)).all() == [False]


def test_values_that_no_job_can_have_are_counted_and_the_search_goes_to_the_next(
    alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = begin(alice_api, corpus, parallel_jobs=1, num_jobs=3)
    factories.end(search["jobs"][0], 3.0)
    answers: Iterator[dict[str, Any]] = iter([{"learning_rate": -1.0}, {"learning_rate": 0.002}])
    monkeypatch.setattr(adaptive, "ask_optuna", lambda question: next(answers))
    monkeypatch.setattr(adaptive, "_rounded", lambda plan, values: values)
    assert adaptive.extend(search["id"]) is None
    assert (read(alice_api, search)["num_refused"], due()) == (1, [search["id"]])
    job_id = adaptive.extend(search["id"])
    assert job_id is not None
    assert (rate(job_id), read(alice_api, search)["is_open"]) == (0.002, False)


def test_what_the_jobs_have_in_common_may_come_back_from_the_trash(
    alice_api: TestClient, alice_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = factories.corpus(alice_user)
    search = begin(alice_api, other, parallel_jobs=1)
    factories.end(search["jobs"][0], 3.0)
    assert alice_api.delete(f"/api/v1/corpora/{other}").status_code == 204
    with pytest.raises(PanelError):
        adaptive.extend(search["id"])
    assert (read(alice_api, search)["num_refused"], read(alice_api, search)["is_open"]) == (0, True)
    assert alice_api.post(f"/api/v1/trash/{other}/restore").status_code == 204
    assert adaptive.extend(search["id"]) is not None


def test_a_search_whose_values_are_used_up_ends(alice_api: TestClient, corpus: str) -> None:
    search = begin(alice_api, corpus, ranges={}, grid={"seed": [1, 2]}, num_jobs=9)
    assert (search["num_jobs"], search["is_open"]) == (2, True)
    for job_id in search["jobs"]:
        factories.end(job_id, 3.0)
    assert adaptive.extend(search["id"]) is None
    assert (read(alice_api, search)["is_open"], read(alice_api, search)["num_planned"]) == (False, 2)


@pytest.mark.parametrize(
    ("values", "num_jobs"),
    [("0.001" + " " * 100_000 + "fast", ""), ("0.001..0.01", "9" * 5000), ("1..9" + "9" * 400, "2")],
)
def test_the_plan_beside_the_form_answers_whatever_its_search_has(
    alice: TestClient, corpus: str, values: str, num_jobs: str
) -> None:
    fields = {"corpora": corpus, "recipe": "tiny", "search_field_1": "learning_rate", "search_values_1": values}
    answer = alice.post("/jobs/plan", data={**fields, "search_sampler": "tpe", "search_num_jobs": num_jobs})
    assert answer.status_code < 500


def test_a_full_quota_postpones_the_next_job(
    alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = begin(alice_api, corpus, parallel_jobs=1)
    factories.end(search["jobs"][0], 3.0)

    def refuse(*_args: Any, **_fields: Any) -> None:
        raise PanelError(429, "too_many_jobs", "There are too many jobs.")

    time = [100.0]
    searches = adaptive.AdaptiveSearches(lambda: time[0])

    def begin_due() -> None:
        with db.transaction() as session:
            assert searches.begin(session) == []
        until(lambda: not searches._under_way, 60, "the thread")

    with monkeypatch.context() as full:
        full.setattr(jobs, "submit", refuse)
        begin_due()
        assert (len(read(alice_api, search)["jobs"]), read(alice_api, search)["num_refused"]) == (1, 0)
    begin_due()
    assert len(read(alice_api, search)["jobs"]) == 1  # not before a minute has passed
    time[0] += adaptive.PAUSE_SECONDS
    begin_due()
    assert len(read(alice_api, search)["jobs"]) == 2


def test_what_was_chosen_for_a_search_that_has_changed_meanwhile_is_dropped(alice_api: TestClient, corpus: str) -> None:
    search = begin(alice_api, corpus, parallel_jobs=1)
    factories.end(search["jobs"][0], 3.0)
    with db.transaction() as session:
        assert adaptive._submit(session, search["id"], 0, {"learning_rate": 0.01}) is None
    assert len(read(alice_api, search)["jobs"]) == 1


def test_a_search_by_optuna_is_begun_with_the_form(alice: TestClient, alice_api: TestClient, corpus: str) -> None:
    page = alice.get(f"/jobs/new?corpora={corpus}").text
    fields = {**HtmlForm.of(page).sent, "corpora": [corpus], **{name: str(value) for name, value in SMALL.items()}}
    chosen = {"search_field_1": "learning_rate", "search_values_1": "0.0001..0.01", "search_sampler": "tpe"}
    refused = alice.post("/jobs", data={**fields, **chosen})
    assert refused.status_code == 422
    assert "Say how many jobs to submit" in HtmlForm.of(refused.text).errors["search_num_jobs"]
    answer = alice.post("/jobs", data={**fields, **chosen, "search_num_jobs": "5", "search_parallel_jobs": "3"})
    assert answer.status_code == 303, answer.text
    search = alice_api.get(ADDRESS).json()["data"][0]
    assert (search["sampler"], search["num_jobs"], search["num_planned"]) == ("tpe", 3, 5)
    with db.transaction() as session:
        plan = session.get_one(HyperparameterSearch, search["id"]).plan
    assert plan is not None
    assert plan.ranges["learning_rate"].model_dump() == {"low": 0.0001, "high": 0.01, "is_log": True}
    assert "Optuna" in alice.get(answer.headers["location"]).text
