"""Which fields decide about a search: the jobs it rests on, the floor, its operation and its part of the page."""

import json
import math
import re
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial
from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db
from app.core.models import HyperparameterSearch, Job
from app.jobs.lifecycle.state import add_history
from app.jobs.searches import importance
from app.web import preview_process
from tests.app.jobs import factories
from tests.users import Person
from trainer.tuning.importance import BEST_SHARE

ADDRESS = "/api/v1/hyperparameter-searches"
SMALL = {"recipe": "tiny", "max_steps": 8, "eval_steps": 4, "save_steps": 8, "warmup_steps": 1}
GRID: dict[str, list[Any]] = {"learning_rate": [0.0001, 0.001, 0.01, 0.1], "seed": [1, 2, 3]}


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=100)
    return factories.corpus(alice_user)


def begin(api: TestClient, corpus: str, **fields: Any) -> dict[str, Any]:
    body = {"name": "rates", "spec": {**SMALL, "corpora": [corpus]}, "grid": GRID, **fields}
    answer = api.post(ADDRESS, json=body)
    assert answer.status_code == 201, answer.text
    search: dict[str, Any] = answer.json()
    return search


def planted(rate: float) -> float:
    return abs(math.log10(rate) + 2.0) + 1.0  # the best is 0.01, whatever the seed


def end_all(search: dict[str, Any], count: int | None = None) -> list[tuple[float, int, float]]:
    """Learning rate, seed and loss of the jobs that end."""
    rows = []
    for job_id in search["jobs"][:count]:
        spec = factories.row(job_id).spec
        factories.end(job_id, planted(spec.learning_rate))
        rows.append((spec.learning_rate, spec.seed, planted(spec.learning_rate)))
    return rows


def read(api: TestClient, search: dict[str, Any]) -> dict[str, Any]:
    answer = api.get(f"{ADDRESS}/{search['id']}/importance")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("kind", ["grid", "random", "tpe"])
def test_the_field_that_decides_comes_first_as_optuna_says_itself(
    alice_api: TestClient, corpus: str, kind: str
) -> None:
    ranges = {"learning_rate": {"low": 1e-4, "high": 1e-1, "is_log": True}, "seed": {"low": 1, "high": 9}}
    drawn = {"grid": {}, "ranges": ranges, "num_jobs": 14}
    fields = {"grid": {}, "random": drawn, "tpe": {**drawn, "sampler": "tpe", "parallel_jobs": 14}}[kind]
    search = begin(alice_api, corpus, **fields)
    rows = end_all(search)
    answer = read(alice_api, search)
    assert (answer["num_jobs"], answer["min_jobs"]) == (len(rows), 10)
    rates, seeds = [row[0] for row in rows], [row[1] for row in rows]
    space = {
        "learning_rate": FloatDistribution(min(rates), max(rates), log=True),
        "seed": IntDistribution(min(seeds), max(seeds)),
    }
    study = optuna.create_study()
    for rate, seed, loss in rows:
        values = {"learning_rate": rate, "seed": seed}
        study.add_trial(create_trial(params=values, distributions=space, value=loss))
    direct = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE))
    assert {field["name"]: field["share"] for field in answer["fields"]} == pytest.approx(direct)
    assert [field["name"] for field in answer["fields"]] == ["learning_rate", "seed"]
    assert answer["fields"][0]["title"] == "Learning rate"
    assert answer["fields"][0]["share"] > 0.8


def test_nine_jobs_are_too_few_and_ten_enough(
    alice: TestClient, alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = begin(alice_api, corpus)
    end_all(search, 9)
    with monkeypatch.context() as without_child:
        without_child.setattr(preview_process, "run", None)
        assert read(alice_api, search) == {"num_jobs": 9, "min_jobs": 10, "fields": []}
        page = alice.get(f"/jobs/compare?search={search['id']}").text
    assert "9 jobs have succeeded or were stopped early so far. With fewer than 10 such jobs" in page
    factories.end(search["jobs"][9], 1.0)
    assert len(read(alice_api, search)["fields"]) == 2
    assert "data-busy" in alice.get(f"/jobs/compare?search={search['id']}").text
    address = f"/jobs/searches/{search['id']}/importance"
    part = alice.get(f"{address}?part=fields").text
    assert "data-busy" not in part
    assert "<html" not in part
    assert "By 10 jobs" in part
    assert part.count("<progress") == 2


def test_without_scripts_a_link_leads_to_a_page_that_computes(
    alice: TestClient, alice_api: TestClient, corpus: str
) -> None:
    search = begin(alice_api, corpus)
    end_all(search, 10)
    compared = alice.get(f"/jobs/compare?search={search['id']}").text
    (link,) = re.findall(r'<noscript><p><a [^>]*href="(/jobs/searches/\w+/importance)"', compared)
    page = alice.get(link).text
    assert page.count("<progress") == 2
    assert f'href="/jobs/compare?search={search["id"]}"' in page
    assert "data-busy" not in page


def test_jobs_that_failed_or_a_user_cancelled_do_not_count_and_those_stopped_early_do(
    alice_api: TestClient, corpus: str
) -> None:
    search = begin(alice_api, corpus)
    states = ("failed", "cancelled", "cancelled")
    for job_id, state in zip(search["jobs"], states, strict=False):
        factories.end(job_id, 2.0, state)
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id.in_(search["jobs"][1:3])).values(search_rung=4))  # both were judged
        stopped = session.get_one(Job, search["jobs"][2])
        add_history(session, stopped, stopped.state, "scheduler", "search_stopped", step=4)
    for job_id in search["jobs"][3:10]:
        factories.end(job_id, 2.0)
    assert read(alice_api, search)["num_jobs"] == 8
    factories.end(search["jobs"][10], None)  # fails without a loss
    assert read(alice_api, search)["num_jobs"] == 8
    assert alice_api.delete(f"/api/v1/jobs/{search['jobs'][9]}").status_code == 204
    assert read(alice_api, search)["num_jobs"] == 7


def test_a_field_with_one_value_has_no_part_in_it(alice: TestClient, alice_api: TestClient, corpus: str) -> None:
    search = begin(alice_api, corpus, grid={"seed": [*range(1, 11)], "learning_rate": [0.01]})
    end_all(search)
    assert read(alice_api, search)["fields"] == []
    assert "Fewer than two fields" in alice.get(f"/jobs/compare?search={search['id']}").text


def test_where_no_job_is_better_no_field_decides(alice: TestClient, alice_api: TestClient, corpus: str) -> None:
    search = begin(alice_api, corpus)
    for job_id in search["jobs"]:
        factories.end(job_id, 2.0)
    assert {field["share"] for field in read(alice_api, search)["fields"]} == {0.0}
    assert "No job is better than another" in alice.get(f"/jobs/searches/{search['id']}/importance").text


def test_a_child_without_an_answer_says_so_and_the_page_does_not_ask_again(
    alice: TestClient, alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = begin(alice_api, corpus, grid={**GRID, "seed": [7, 8, 9]})
    end_all(search)
    with monkeypatch.context() as slow:
        slow.setattr(preview_process, "WAIT_SECONDS", 0.001)
        answer = alice_api.get(f"{ADDRESS}/{search['id']}/importance")
        assert (answer.status_code, answer.json()["code"]) == (503, "importance_slow")
        part = alice.get(f"/jobs/searches/{search['id']}/importance")
        assert part.status_code == 200
        assert "too much time or memory" in part.text
        assert "data-busy" not in part.text


def test_what_was_computed_is_not_computed_again(
    alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = begin(alice_api, corpus, grid={**GRID, "seed": [4, 5, 6]})
    end_all(search)
    first = read(alice_api, search)
    monkeypatch.setattr(preview_process, "run", None)
    assert read(alice_api, search) == first


def test_lists_of_a_field_are_weighed_as_categories(alice_api: TestClient, corpus: str) -> None:
    search = begin(alice_api, corpus)
    end_all(search, 1)
    with db.transaction() as session:
        row = session.get_one(HyperparameterSearch, search["id"])
        row.fields = ["corpora"]
        search_results = importance.results(session, row)
    assert search_results.fields == ()
    assert importance._scalar([corpus]) == str([corpus])
    assert json.dumps([importance._scalar(value) for value in (None, True, 2, 0.5, "x")]) == '[null, true, 2, 0.5, "x"]'


def test_searches_of_others_say_nothing(
    bob: TestClient, bob_api: TestClient, alice_api: TestClient, corpus: str
) -> None:
    search = begin(alice_api, corpus, grid={"seed": [1]})
    assert bob_api.get(f"{ADDRESS}/{search['id']}/importance").status_code == 404
    assert bob.get(f"/jobs/searches/{search['id']}/importance").status_code == 404
