"""Weights of corpora in plans, forms and pages."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.jobs import factories
from tests.app.jobs.html_form import HtmlForm
from tests.users import Person
from trainer import events


@pytest.fixture(scope="module")
def corpora(alice_user: Person) -> list[str]:
    factories.node()
    return [factories.corpus(alice_user), factories.corpus(alice_user, name="Exodus", text=factories.TEXT * 3)]


def test_a_plan_says_what_the_job_sees_of_each_corpus(alice_api: TestClient, corpora: list[str]) -> None:
    body = {"corpora": corpora, "max_steps": 100, "split": "document"}
    plain = alice_api.post("/api/v1/jobs/plan", json=body).json()
    weighed = alice_api.post("/api/v1/jobs/plan", json={**body, "corpus_weights": [3, 1]}).json()
    assert [part["corpus"] for part in weighed["corpora"]] == corpora
    assert [part["share"] for part in weighed["corpora"]] == [0.75, 0.25]
    assert plain["corpora"][0]["share"] == pytest.approx(0.25, abs=0.02)
    first, second = ([part["num_epochs"] for part in answer["corpora"]] for answer in (plain, weighed))
    assert first[0] == first[1] == pytest.approx(plain["num_epochs"], rel=0.05)
    assert second[0] == pytest.approx(9 * second[1], rel=0.1)  # three times the share of a third of the text


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"corpus_weights": [1]}, "corpus_weights", "one number for each of the corpora in their order (2), but has 1"),
        ({"corpus_weights": [1, -1]}, "corpus_weights.1", "greater than 0"),
        ({"corpus_weights": [1, 1], "corpus_temperature": 2}, "corpus_temperature", "choose one of the two"),
    ],
)
def test_weights_that_cannot_be_are_refused_at_their_field(
    alice_api: TestClient, corpora: list[str], fields: dict[str, Any], field: str, text: str
) -> None:
    answer = alice_api.post("/api/v1/jobs", json={"corpora": corpora, **fields})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert text in answer.json()["errors"][0]["message"]


def test_the_form_takes_a_weight_beside_each_corpus(alice: TestClient, corpora: list[str]) -> None:
    form = {"key": "m" * 16, "recipe": "tiny", "corpora": corpora}
    names = [f"weight-{corpus}" for corpus in corpora]
    weights = dict(zip(names, ("3", "1"), strict=True))
    page = alice.post("/jobs/plan", data={**form, **weights, "split": "document"}).text
    assert "75.0 %" in page
    assert "Exodus" in page
    wrong = HtmlForm.of(alice.post("/jobs/plan", data={**form, **weights, names[1]: "x"}).text)
    assert wrong.errors["corpus_weights"] == "Corpus weights must be a number"
    assert [wrong.value(name) for name in names] == ["3", "x"]
    answer = alice.post("/jobs", data={**form, **weights}, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    job_id = answer.headers["location"].rpartition("/")[2]
    assert factories.row(job_id).spec.corpus_weights == [3, 1]
    copy = HtmlForm.of(alice.get(f"/jobs/new?like={job_id}").text)
    assert [float(copy.value(name)) for name in names] == [3, 1]


def test_what_a_job_sees_is_on_its_page(
    alice_user: Person, alice: TestClient, alice_api: TestClient, corpora: list[str]
) -> None:
    job_id, fence = factories.started(alice_user, corpora[0])
    uses = [
        events.CorpusUse(corpus=corpora[0], num_tokens=3_000, share=0.625, num_epochs=2.5),
        events.CorpusUse(corpus="gone", num_tokens=9_000, share=0.375, num_epochs=0.5),
    ]
    sizes = {"num_train_sequences": 70, "num_validation_sequences": 4, "bytes_per_token": 2.1, "num_tokens": 12_000}
    factories.record(job_id, fence, [events.DataEvent(seq=1, at=10.0, corpora=uses, **sizes)])
    assert alice_api.get(f"/api/v1/jobs/{job_id}").json()["facts"]["corpora"] == [use.model_dump() for use in uses]
    page = alice.get(f"/jobs/{job_id}").text
    assert "62.5 %" in page
    assert "a deleted corpus" in page
