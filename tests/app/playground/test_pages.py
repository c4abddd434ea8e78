"""The page of the playground, and its form without scripts."""

import re

from starlette.testclient import TestClient

from tests.app.playground.conftest import StoreCheckpoint, StoredCheckpoint
from tests.users import Person


def form(checkpoint: StoredCheckpoint, **fields: str) -> dict[str, str]:
    values = {"prompt": "In the beginning", "temperature": "0", "top_p": "1", "top_k": "0", "max_tokens": "40"}
    return {"checkpoint": checkpoint.id, **values, "random_seed": "true", **fields}


def chosen(page: str) -> list[str]:
    return re.findall(r'<option value="(\w+)"[^>]*selected', page)


def test_without_a_checkpoint_the_page_links_to_a_first_job(bob: TestClient) -> None:
    page = bob.get("/playground").text

    assert "No models to try yet" in page
    assert 'href="/jobs/new"' in page


def test_the_newest_checkpoint_is_selected_by_default(
    alice: TestClient, store_checkpoint: StoreCheckpoint, alice_user: Person, checkpoint: StoredCheckpoint
) -> None:
    newest = store_checkpoint(alice_user)

    assert chosen(alice.get("/playground").text) == [newest.id]
    assert chosen(alice.get(f"/playground?checkpoint={checkpoint.id}").text) == [checkpoint.id]


def test_checkpoints_of_another_user_are_not_listed(bob: TestClient, checkpoint: StoredCheckpoint) -> None:
    assert bob.get(f"/playground?checkpoint={checkpoint.id}").status_code == 404
    assert checkpoint.id not in bob.get("/playground").text


def test_a_visitor_is_redirected_to_the_login(visitor: TestClient) -> None:
    answer = visitor.get("/playground")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/playground"


def test_the_page_is_translated(alice: TestClient, checkpoint: StoredCheckpoint) -> None:
    page = alice.get("/playground", headers={"Accept-Language": "zh-CN"}).text

    assert "提示词" in page
    assert "Settings" not in page


def test_without_scripts_the_form_returns_the_full_text(
    alice: TestClient, checkpoint: StoredCheckpoint, node: str
) -> None:
    answer = alice.post("/playground", data=form(checkpoint))

    assert answer.status_code == 200
    assert " the furnace was cold" in answer.text
    assert re.search(r"40 tokens · [\d.]+ tokens/s · seed \d+", answer.text)


def test_a_rejected_form_keeps_its_input(alice: TestClient, checkpoint: StoredCheckpoint) -> None:
    answer = alice.post("/playground", data=form(checkpoint, temperature="9", prompt="<b>Keep me</b>", stop="one\ntwo"))

    assert answer.status_code == 422
    assert "Temperature must be at most 2" in answer.text
    assert "&lt;b&gt;Keep me&lt;/b&gt;" in answer.text
    assert "one\ntwo" in answer.text


def test_a_prompt_too_long_for_the_model_is_reported_at_its_field(
    alice: TestClient, checkpoint: StoredCheckpoint, node: str
) -> None:
    answer = alice.post("/playground", data=form(checkpoint, prompt="xyz " * 500))

    assert answer.status_code == 422
    assert "the limit of this model is 256" in answer.text
