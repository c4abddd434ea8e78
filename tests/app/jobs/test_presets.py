"""Presets of jobs: by REST, in the form, and in their list."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.jobs import presets
from tests.app.jobs import factories
from tests.users import Person

PATH = "/api/v1/job-presets"
SPEC = {"recipe": "tiny", "max_steps": 40, "warmup_steps": 2, "num_attention_heads": 4}


def save(client: TestClient, name: str, spec: dict[str, Any] = SPEC, **more: Any) -> dict[str, Any]:
    answer = client.post(PATH, json={"name": name, "spec": spec, **more})
    assert answer.status_code == 201, answer.text
    preset: dict[str, Any] = answer.json()
    return preset


def names(client: TestClient) -> list[str]:
    return [row["name"] for row in client.get(PATH).json()["data"]]


def value_of(html: str, control: str) -> str:
    tag = re.search(rf"<input[^>]* name=\"{control}\"[^>]*>", html)
    assert tag is not None
    value = re.search(r'value="([^"]*)"', tag[0])
    return value[1] if value else ""


def test_a_preset_is_saved_replaced_and_deleted(alice: TestClient) -> None:
    first = save(alice, " Small ")
    again = save(alice, "Small", {**SPEC, "max_steps": 60})
    assert (first["id"], first["name"], first["own"], first["everyone"]) == (again["id"], "Small", True, False)
    assert alice.get(f"{PATH}/{first['id']}").json() == again
    assert (again["spec"]["max_steps"], again["owner"]) == (60, "Alice")
    assert alice.delete(f"{PATH}/{first['id']}").status_code == 204
    assert alice.get(f"{PATH}/{first['id']}").status_code == 404


def test_what_belongs_to_one_job_is_not_saved(alice: TestClient, alice_user: Person) -> None:
    corpus = factories.corpus(alice_user)
    spec = {**SPEC, "corpora": [corpus], "validation_corpora": [corpus], "name": "mine", "corpus_weights": [1]}
    assert save(alice, "Without data", spec)["spec"] == SPEC


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"max_steps": "many"}, "max_steps"),
        ({"recipe": "huge"}, "recipe"),
        ({"poem": 1}, "poem"),
        ({"num_attention_heads": 7}, "hidden_size"),
    ],
)
def test_settings_that_no_job_could_have_are_refused(alice: TestClient, spec: dict[str, Any], field: str) -> None:
    refused = alice.post(PATH, json={"name": "Wrong", "spec": spec})
    assert (refused.status_code, refused.json()["code"]) == (422, "spec_invalid")
    assert field in [problem["field"] for problem in refused.json()["errors"]]
    assert "Wrong" not in names(alice)


def test_presets_for_everyone_are_offered_but_only_their_owner_changes_them(alice: TestClient, bob: TestClient) -> None:
    own, shared = save(alice, "Mine"), save(alice, "Ours", everyone=True)
    assert ("Ours" in names(bob), "Mine" in names(bob)) == (True, False)
    assert bob.get(f"{PATH}/{shared['id']}").json()["own"] is False
    assert [bob.delete(f"{PATH}/{row['id']}").status_code for row in (own, shared)] == [404, 403]
    page = bob.get("/jobs/presets").text
    assert ("Ours" in page, "Mine" in page, f"/jobs/presets/{shared['id']}/delete" in page) == (True, False, False)
    assert bob.get("/jobs/new", params={"preset": own["id"]}).status_code == 404
    save(alice, "Ours")
    assert "Ours" not in names(bob)
    mine = save(bob, "Ours")  # names are a user's own
    assert mine["id"] != shared["id"]


def test_the_form_saves_its_settings_and_a_preset_fills_it_in(alice: TestClient, alice_user: Person) -> None:
    corpus = factories.corpus(alice_user)
    fields = {"recipe": "tiny", "corpora": corpus, "max_steps": "44", "name": "first", "preset_name": "From the form"}
    saved = alice.post("/jobs/presets", data=fields)
    assert (saved.status_code, "Saved as “From the form”." in saved.text) == (200, True)
    (preset,) = [row for row in alice.get(PATH).json()["data"] if row["name"] == "From the form"]
    assert preset["spec"] == {"recipe": "tiny", "max_steps": 44}
    opened = alice.get("/jobs/new", params={"preset": preset["id"]}).text
    assert value_of(opened, "max_steps") == "44"
    typed = {"recipe": "tiny", "corpora": corpus, "learning_rate": "0.01", "name": "second", "preset": preset["id"]}
    filled = alice.post("/jobs/plan", data=typed).text
    assert [value_of(filled, name) for name in ("max_steps", "learning_rate", "name")] == ["44", "", "second"]
    assert re.search(rf'name="corpora" value="{corpus}"\s+checked', filled)
    deleted = alice.post(f"/jobs/presets/{preset['id']}/delete")
    assert (deleted.status_code, deleted.headers["location"]) == (303, "/jobs/presets")
    assert "From the form" not in names(alice)


def test_the_form_says_why_a_preset_is_not_saved(alice: TestClient) -> None:
    for name, steps, words in (("", "40", "name"), ("Wrong", "many", "Steps must be")):
        page = alice.post("/jobs/presets", data={"recipe": "tiny", "max_steps": steps, "preset_name": name})
        error = re.search(r'id="field-preset_name-error".*?</p>', page.text, re.DOTALL)
        assert error is not None
        assert words.lower() in error[0].lower()


def test_a_user_saves_a_limited_number_of_presets(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    save(alice, "Last")
    monkeypatch.setattr(presets, "MAX_PRESETS", 0)
    refused = alice.post(PATH, json={"name": "One more", "spec": SPEC})
    assert (refused.status_code, refused.json()["code"]) == (422, "presets_many")
