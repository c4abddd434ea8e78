"""The form of a new job asks for an evaluation at its end; duplicates and presets keep that."""

import pytest
from starlette.testclient import TestClient

from app.core import db
from app.core.models import Corpus, Job
from tests.app.jobs import factories
from tests.app.jobs.html_form import HtmlForm
from tests.users import Person
from trainer.spec import resolve


@pytest.fixture(scope="module")
def training(alice_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(alice_user, name="Training")


@pytest.fixture(scope="module")
def held_out(alice_user: Person) -> str:
    return factories.corpus(alice_user, name="Held out")


def chosen(page: str) -> list[str]:
    return HtmlForm.of(page).sent.get("evaluation_corpora", [])


def test_the_form_asks_for_an_evaluation_that_duplicates_keep(alice: TestClient, training: str, held_out: str) -> None:
    data = {"recipe": "tiny", "corpora": training, "max_steps": "8", "warmup_steps": "0"}
    data["evaluation_corpora"] = held_out
    assert chosen(alice.post("/jobs/plan", data=data).text) == [held_out]
    answer = alice.post("/jobs", data=data)
    assert answer.status_code == 303, answer.text
    job_id = answer.headers["location"].rpartition("/")[2]
    job = alice.get(f"/api/v1/jobs/{job_id}").json()
    assert (job["evaluation_corpora"], job["spec"]["evaluation_corpora"]) == ([held_out], [held_out])
    with db.transaction() as session:
        session.get_one(Job, job_id).evaluation_corpora = []  # as when the evaluation begins
    assert chosen(alice.get(f"/jobs/new?like={job_id}").text) == [held_out]
    alice.patch(f"/api/v1/jobs/{job_id}", json={"evaluation_corpora": [training]})
    assert chosen(alice.get(f"/jobs/new?like={job_id}").text) == [training]
    assert held_out not in alice.get(f"/jobs/{job_id}").text


def test_a_preset_keeps_the_evaluation_and_others_see_no_corpora(
    alice: TestClient, bob: TestClient, training: str, held_out: str
) -> None:
    data = {"recipe": "tiny", "corpora": training, "evaluation_corpora": held_out, "preset_name": "Evaluated"}
    assert alice.post("/jobs/presets", data={**data, "preset_everyone": "true"}).status_code == 200
    (preset,) = [row for row in alice.get("/api/v1/job-presets").json()["data"] if row["name"] == "Evaluated"]
    assert preset["spec"]["evaluation_corpora"] == [held_out]
    typed = {"recipe": "tiny", "corpora": training, "preset": preset["id"]}
    assert chosen(alice.post("/jobs/plan", data=typed).text) == [held_out]
    assert chosen(bob.get("/jobs/new", params={"preset": preset["id"]}).text) == []
    assert held_out not in bob.get("/jobs/presets").text


def test_a_job_that_trains_further_asks_again(alice: TestClient, alice_user: Person, training: str) -> None:
    gone = factories.corpus(alice_user, name="Deleted")
    kept = factories.corpus(alice_user, name="Kept")
    _job, checkpoint = factories.finished(
        alice_user, training, max_steps=8, warmup_steps=0, evaluation_corpora=[gone, kept]
    )
    with db.transaction() as session:
        session.delete(session.get_one(Corpus, gone))
    form = HtmlForm.of(alice.get(f"/jobs/new?from={checkpoint}").text)
    assert (form.sent["evaluation_corpora"], form.errors, form.has_plan) == ([kept], {}, True)
    answer = alice.post("/api/v1/jobs", json={"resume_from_checkpoint": checkpoint, "max_steps": 16})
    assert (answer.status_code, answer.json()["evaluation_corpora"]) == (201, [])


def test_what_cannot_be_evaluated_on_is_refused_at_the_field(alice_api: TestClient, training: str) -> None:
    request = {"recipe": "tiny", "corpora": [training], "evaluation_corpora": ["nothing000000000"]}
    for path in ("/api/v1/jobs", "/api/v1/jobs/plan"):
        answer = alice_api.post(path, json=request)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "evaluation_corpora")


def test_the_hash_of_a_spec_does_not_depend_on_its_evaluation() -> None:
    spec = resolve({"recipe": "tiny", "corpora": ["any"]})
    assert spec.model_copy(update={"evaluation_corpora": ["other"]}).sha256() == spec.sha256()
