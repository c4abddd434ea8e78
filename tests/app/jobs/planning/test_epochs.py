"""Epochs in place of steps: estimated in the plan, counted by the first attempt, and kept from then on."""

import math
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.jobs.attempts.effective_spec import effective_spec
from tests.app.jobs import factories
from tests.app.jobs.html_form import HtmlForm
from tests.users import Person
from trainer import events

NUM_TOKENS = 9_000


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node()
    return factories.corpus(alice_user)


def data_event(seq: int, max_steps: int, num_train: int = 70) -> events.DataEvent:
    sizes = {"num_train_sequences": num_train, "num_validation_sequences": 4, "bytes_per_token": 2.1}
    return events.DataEvent(seq=seq, at=10.0, num_tokens=NUM_TOKENS, max_steps=max_steps, num_epochs=2.0, **sizes)


def plan(client: TestClient, corpus: str, **fields: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/jobs/plan", json={"corpora": [corpus], **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"num_train_epochs": 2, "max_steps": 10}, "num_train_epochs", "choose one of the two"),
        ({"num_train_epochs": 0}, "num_train_epochs", "greater than 0"),
        ({"num_train_epochs": 10_001}, "num_train_epochs", "at most 10000"),
        ({"num_train_epochs": "many"}, "num_train_epochs", "must be a number"),
        ({"max_steps": None}, "max_steps", "is required, unless num_train_epochs is set"),
        ({"num_train_epochs": 1, "warmup_steps": 5_000}, "warmup_steps", "must not exceed max_steps"),
    ],
)
def test_epochs_that_cannot_be_are_refused_at_their_field(
    alice_api: TestClient, corpus: str, fields: dict[str, Any], field: str, text: str
) -> None:
    for address in ("/api/v1/jobs", "/api/v1/jobs/plan"):
        answer = alice_api.post(address, json={"corpora": [corpus], **fields})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == field
        assert text in answer.json()["errors"][0]["message"]


def test_steps_are_estimated_counted_once_and_stay(
    alice_user: Person, alice_api: TestClient, alice: TestClient, corpus: str
) -> None:
    before = plan(alice_api, corpus, num_train_epochs=2)
    estimate = before["figures"]["max_steps"]
    assert estimate["low"] < estimate["value"] == before["max_steps"] < estimate["high"]
    assert estimate["reason"].startswith("An estimate of the training samples: about")
    assert (before["num_epochs"], before["spec"]["max_steps"], before["spec"]["warmup_steps"]) == (2, None, None)

    job_id, fence = factories.started(alice_user, corpus, num_train_epochs=2)
    address = f"/api/v1/jobs/{job_id}"
    assert (alice_api.get(address).json()["max_steps"], alice_api.get(address).json()["eta_seconds"]) == (None, None)
    assert "Epochs: 2; their steps are counted once the data are tokenized" in alice.get("/jobs").text
    assert alice.get(f"/jobs/{job_id}").status_code == 200

    factories.record(job_id, fence, [data_event(1, 37)])
    factories.record(job_id, fence, [data_event(2, 99)])  # nothing that comes later changes it
    assert alice_api.get(address).json()["max_steps"] == 37
    spec = effective_spec(factories.row(job_id))
    assert (spec.max_steps, spec.num_train_epochs) == (37, None)
    assert factories.row(job_id).spec.num_train_epochs == 2  # what was asked for

    # The next plan on these data is exact: sequences of the recipe's length, with one more token, 5 % held out.
    after = plan(alice_api, corpus, num_train_epochs=2)
    length, batch = spec.sequence_length, spec.train_batch_size
    num_sequences = (NUM_TOKENS - 1) // length
    num_train = num_sequences - max(1, int(num_sequences * spec.validation_fraction))
    steps = after["figures"]["max_steps"]
    assert steps["low"] == steps["high"] == after["max_steps"] == math.ceil(2 * num_train / batch)
    in_steps = plan(alice_api, corpus, max_steps=100)
    assert in_steps["num_epochs"] == pytest.approx(100 * batch / num_train)


def test_a_job_that_continues_has_the_steps_of_what_its_parent_counted(
    alice_user: Person, alice_api: TestClient, corpus: str
) -> None:
    job_id, fence = factories.started(alice_user, corpus, num_train_epochs=1)
    factories.record(job_id, fence, [data_event(1, 9, num_train=70)])
    batch = factories.row(job_id).spec.train_batch_size
    checkpoint_id = factories.saved(job_id, fence, 3)
    origin = {"resume_from_checkpoint": checkpoint_id}

    same = alice_api.post("/api/v1/jobs/plan", json=origin)
    assert same.json()["spec"]["max_steps"] == 9
    longer = alice_api.post("/api/v1/jobs/plan", json={**origin, "num_train_epochs": 3})
    assert longer.json()["spec"]["max_steps"] == math.ceil(3 * 70 / batch)
    longest = alice_api.post("/api/v1/jobs/plan", json={**origin, "max_steps": 900})
    assert longest.json()["spec"]["warmup_steps"] == 9 // 20  # as before, not a twentieth of 900
    short = alice_api.post("/api/v1/jobs/plan", json={**origin, "num_train_epochs": 0.01})
    assert short.status_code == 422


def test_the_form_offers_one_or_the_other(alice: TestClient, corpus: str) -> None:
    form = {"key": "e" * 16, "recipe": "tiny", "corpora": corpus}
    assert "Steps (estimated)" in alice.post("/jobs/plan", data={**form, "num_train_epochs": "1.5"}).text
    assert "Steps (estimated)" not in alice.post("/jobs/plan", data={**form, "max_steps": "50"}).text
    both = alice.post("/jobs/plan", data={**form, "num_train_epochs": "1.5", "max_steps": "50"}).text
    assert "choose one of the two" in both
    answer = alice.post("/jobs", data={**form, "num_train_epochs": "1.5", "max_steps": "auto"}, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    assert factories.row(answer.headers["location"].rpartition("/")[2]).spec.num_train_epochs == 1.5


def test_an_empty_control_shows_what_the_other_comes_to(alice: TestClient, alice_user: Person) -> None:
    corpus = factories.corpus(alice_user, text=factories.TEXT * 2)
    form = {"key": "e" * 16, "recipe": "tiny", "corpora": corpus}
    in_steps = HtmlForm.of(alice.post("/jobs/plan", data={**form, "max_steps": "50"}).text).placeholders
    in_epochs = HtmlForm.of(alice.post("/jobs/plan", data={**form, "num_train_epochs": "3"}).text).placeholders
    one = plan(alice, corpus, max_steps=50)
    assert in_steps["num_train_epochs"] == f"≈ {one['num_epochs']:.3g} (from the plan)"
    assert in_epochs["max_steps"] == f"≈ {plan(alice, corpus, num_train_epochs=3)['max_steps']} (from the plan)"
    assert in_steps["max_steps"] != in_epochs["max_steps"]  # the recipe's, where steps count


def test_remarks_on_records_are_on_the_page_and_in_the_api(
    alice_user: Person, alice_api: TestClient, alice: TestClient, corpus: str
) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    why = {"code": "key", "template": "the chat template leaves out its {key}", "values": {"key": "tool_calls"}}
    remark = {"corpus": corpus, "record": 1234, "kind": "refused", "why": why}
    held_out = {"num_sequences": 4, "num_cut": 0, "num_dropped": 1, "num_refused": 1, "remarks": [remark]}
    held_out["num_in_training"] = 3
    event = data_event(1, 37).model_dump() | {"num_dropped": 1, "num_refused": 1, "remarks": [remark]}
    factories.record(job_id, fence, [events.DataEvent.model_validate(event | {"held_out": {corpus: held_out}})])

    facts = alice_api.get(f"/api/v1/jobs/{job_id}").json()["facts"]
    sentence = "the chat template leaves out its tool_calls"
    expected = [{"corpus": corpus, "record": 1234, "kind": "refused", "message": sentence}]
    assert (facts["num_refused"], facts["remarks"], facts["held_out"][corpus]["remarks"]) == (1, expected, expected)
    assert facts["held_out"][corpus]["num_in_training"] == 3
    page = alice.get(f"/jobs/{job_id}").text
    assert page.count(f"Record 1,234 of Genesis: {sentence}") == 2
    assert "3 of the records or documents of Genesis also occur in the training data" in page
    chinese = alice.get(f"/jobs/{job_id}", headers={"Accept-Language": "zh-CN"}).text
    assert chinese.count("Genesis 的第 1,234 条记录：对话模板略去了它的 tool_calls") == 2
    assert "Genesis 中有 3 条记录或文档也出现在训练数据中" in chinese
