"""Hyperparameter searches: which jobs they submit, what they refuse, and whom early stopping cancels."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db
from app.jobs.searches import service as hyperparameter_search
from app.jobs.searches.service import HyperparameterSearchRequest, ValueRange
from tests.app.jobs import factories
from tests.app.jobs.html_form import HtmlForm
from tests.users import Person
from trainer import events

ADDRESS = "/api/v1/hyperparameter-searches"
SMALL = {"recipe": "tiny", "max_steps": 90, "eval_steps": 10, "save_steps": 90, "warmup_steps": 5}


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node()
    return factories.corpus(alice_user)


def test_a_grid_submits_a_job_for_each_combination(alice_api: TestClient, corpus: str) -> None:
    grid = {"learning_rate": [0.001, 0.01], "seed": [1, 2, 2]}
    body = {"name": "rates", "spec": {**SMALL, "corpora": [corpus], "seed": 9}, "grid": grid}
    answer = alice_api.post(ADDRESS, json=body)
    assert answer.status_code == 201
    search = alice_api.get(answer.headers["Location"]).json()
    assert (search["num_jobs"], search["num_open"], search["fields"]) == (4, 4, ["learning_rate", "seed"])
    jobs = [alice_api.get(f"/api/v1/jobs/{job_id}").json() for job_id in search["jobs"]]
    values = [(job["spec"]["learning_rate"], job["spec"]["seed"]) for job in jobs]
    assert values == [(0.001, 1), (0.001, 2), (0.01, 1), (0.01, 2)]
    assert jobs[0]["name"] == "rates: learning_rate=0.001 seed=1"
    assert alice_api.get(ADDRESS).json()["data"][0]["id"] == search["id"]
    assert alice_api.post(f"{ADDRESS}/{search['id']}/cancel").json()["num_open"] == 0


def test_a_random_sample_is_repeatable_and_within_its_ranges() -> None:
    ranges = {"learning_rate": ValueRange(low=1e-4, high=1e-1, is_log=True), "hidden_size": ValueRange(low=1, high=3)}
    request = HyperparameterSearchRequest(
        name="n", spec={}, grid={"tuning": ["full"]}, ranges=ranges, num_jobs=40, seed=5
    )
    sample = hyperparameter_search.combinations(request)
    assert sample == hyperparameter_search.combinations(request)
    assert sample != hyperparameter_search.combinations(request.model_copy(update={"seed": 6}))
    rates = [fields["learning_rate"] for fields in sample]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert 10 < sum(rate < 10**-2.5 for rate in rates) < 30  # half of the logarithms, not a thirtieth of the values
    assert {fields["hidden_size"] for fields in sample} == {1, 2, 3}
    few = HyperparameterSearchRequest(name="n", spec={}, grid={"seed": [1, 2]}, num_jobs=9)
    assert sorted(fields["seed"] for fields in hyperparameter_search.combinations(few)) == [1, 2]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "search_empty", "grid"),
        ({"grid": {"seed": []}}, "search_empty", "grid"),
        ({"grid": {"seed": [*range(51)]}}, "search_large", "grid"),
        (
            {"grid": {"seed": [1]}, "ranges": {"seed": {"low": 1, "high": 2}}, "num_jobs": 2},
            "search_field_twice",
            "ranges",
        ),
        ({"ranges": {"seed": {"low": 1, "high": 2}}}, "search_unlimited", "num_jobs"),
        ({"ranges": {"seed": {"low": 2, "high": 1}}, "num_jobs": 2}, "range_invalid", "ranges.seed"),
        ({"ranges": {"seed": {"low": 0, "high": 10**400}}, "num_jobs": 2}, "request_invalid", "ranges.seed.high"),
        ({"grid": {"learning_speed": [1]}}, "spec_invalid", "learning_speed"),
        ({"grid": {"seed": [1, "x"]}}, "spec_invalid", "seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_searched_is_refused_and_nothing_is_submitted(
    alice_api: TestClient, corpus: str, body: dict[str, Any], code: str, field: str
) -> None:
    before = alice_api.get("/api/v1/jobs", params={"limit": 1}).json()["data"]
    answer = alice_api.post(ADDRESS, json={"name": "n", "spec": {**SMALL, "corpora": [corpus]}, **body})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.json()["errors"][0]["field"] == field
    assert alice_api.get("/api/v1/jobs", params={"limit": 1}).json()["data"] == before


def test_searches_of_others_are_not_found(alice_api: TestClient, bob_api: TestClient, corpus: str) -> None:
    body = {"name": "n", "spec": {**SMALL, "corpora": [corpus]}, "grid": {"seed": [1]}}
    search_id = alice_api.post(ADDRESS, json=body).json()["id"]
    assert bob_api.get(f"{ADDRESS}/{search_id}").status_code == 404
    assert bob_api.post(f"{ADDRESS}/{search_id}/cancel").status_code == 404
    assert search_id not in bob_api.get(ADDRESS).text


def searched(owner: Person, api: TestClient, corpus: str, losses: list[list[float | str]], **fields: Any) -> list[str]:
    """Running jobs of a search, each evaluated at steps 10, 20 and so on; returns their IDs."""
    spec = {**SMALL, "corpora": [corpus]}
    body = {"name": "n", "spec": spec, "grid": {"seed": [*range(len(losses))]}, "early_stopping": True, **fields}
    ids: list[str] = api.post(ADDRESS, json=body).json()["jobs"]
    for job_id, values in zip(ids, losses, strict=True):
        factories.give_to(job_id, "ada")
        with db.transaction() as session:
            fence = factories.attempts.claim(session, job_id=job_id, node="ada")
        assert fence is not None
        points = [
            events.PointsEvent(seq=n, at=1000.0, step=10 * n, values={"loss": 1.0, "eval_loss": value})  # type: ignore[dict-item]
            for n, value in enumerate(values, 1)
        ]
        factories.record(job_id, fence, points)
    return ids


def stopped() -> list[str]:
    with db.transaction() as session:
        return hyperparameter_search.stop_worse_jobs(session)


def test_early_stopping_cancels_all_but_the_best_third_at_a_rung(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    losses: list[list[float | str]] = [[5.0, 1.0], [4.0, 1.5], ["nan", 2.0], [3.0, 3.0], [6.0, 0.5], [2.0, 4.0]]
    ids = searched(alice_user, alice_api, corpus, losses)  # rungs at steps 30 and 10: two of six go on
    assert sorted(stopped()) == sorted([ids[0], ids[1], ids[2], ids[4]])
    assert {factories.row(job_id).desired for job_id in ids[:3]} == {"cancel"}
    assert {factories.row(ids[n]).desired for n in (3, 5)} == {"run"}
    assert stopped() == []
    assert ("running", "search_stopped") in factories.reasons(ids[0])


def test_a_job_is_judged_once_at_a_rung(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    ids = searched(alice_user, alice_api, corpus, [[5.0], [4.0], []])
    assert stopped() == []
    fence = factories.row(ids[2]).fence
    point = events.PointsEvent(seq=1, at=1000.0, step=10, values={"eval_loss": 1.0})
    factories.record(ids[2], fence, [point])
    assert stopped() == []  # the first two went on before anyone was better
    assert [factories.row(job_id).search_rung for job_id in ids] == [10, 10, 10]


def test_early_stopping_waits_for_three_jobs_and_for_leave(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    searched(alice_user, alice_api, corpus, [[5.0], [4.0], []])
    searched(alice_user, alice_api, corpus, [[5.0], [4.0], [3.0]], early_stopping=False)
    assert stopped() == []


def test_the_form_submits_a_search_and_shows_its_plot(alice: TestClient, corpus: str) -> None:
    form = {
        "key": "k" * 16,
        **{name: str(value) for name, value in SMALL.items()},
        "corpora": corpus,
        "name": "by form",
    }
    rows = {"search_field_1": "learning_rate", "search_values_1": "0.001, 0.01", "search_field_2": "seed"}
    drawn = alice.post("/jobs/plan", data={**form, **rows}).text
    assert ("Start 2 jobs" in drawn, HtmlForm.of(drawn).value("search_values_1")) == (True, "0.001, 0.01")
    submitted = alice.post("/jobs", data={**form, **rows})
    assert submitted.status_code == 303
    page = alice.get(submitted.headers["Location"]).text
    assert all(part in page for part in ("by form", "Learning rate", "0.001", "0.01", "/jobs/searches/"))
    assert "by form" in alice.get("/jobs/searches").text
    assert alice.post("/jobs", data={**form, **rows}).headers["Location"] == submitted.headers["Location"]
    with_auto = {"search_field_1": "weight_decay", "search_values_1": "auto，0.5"}
    assert alice.post("/jobs", data={**form, **with_auto}).status_code in (303, 422)
    refused = alice.post("/jobs", data={**form, **rows, "search_values_1": "0.001, fast"})
    assert (refused.status_code, "must be a number (fast)" in refused.text) == (422, True)
