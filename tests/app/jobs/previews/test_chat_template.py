"""Previews of chat templates over REST: in a child with limits, so that a template can do no more than be refused."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core.node_budget import node_budget
from app.web import preview_process as process
from app.web.preview_process import PREVIEWS

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{{ '' }}{% endfor %}{% endfor %}{{ messages }}"
GREEDY = "{% set x = namespace(s='a') %}{% for a in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}{{ messages }}"


def ask(api: TestClient, **fields: Any) -> Any:
    return api.post("/api/v1/jobs/preview-template", json=fields)


def test_a_preview_of_a_preset_marks_the_learned_tokens(alice_api: TestClient) -> None:
    answer = ask(alice_api, chat_template="chatml").json()

    assert [part["text"] for part in answer["parts"] if part["is_learned"]] == [
        "A metal.<|endoftext|>",
        "A softer one.<|endoftext|>",
    ]
    assert answer["prompt"].endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('no system') }}{{ messages }}", "no system"),
        ("{{ cycler.__init__.__globals__ }}{{ messages }}", "'__init__' of 'type' object is unsafe"),
    ],
)
def test_the_error_message_of_a_template_is_shown(alice_api: TestClient, template: str, why: str) -> None:
    refused = ask(alice_api, chat_template=template)

    assert (refused.status_code, refused.json()["code"]) == (422, "chat_template_unusable")
    assert why in refused.json()["title"]


@pytest.mark.parametrize("template", [ENDLESS, GREEDY])
def test_a_template_that_needs_too_much_time_or_memory_is_stopped(alice_api: TestClient, template: str) -> None:
    refused = ask(alice_api, chat_template=template)

    assert (refused.status_code, refused.json()["code"]) == (422, "chat_template_slow")


def test_a_preview_without_room_on_the_node_is_asked_to_come_again(
    alice_api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ROOM_SECONDS", 0.0)
    budget = node_budget()
    with budget.reserve(budget.shared_bytes):
        refused = ask(alice_api, chat_template="chatml")
    assert (refused.status_code, refused.json()["code"]) == (503, "preview_busy")
    assert int(refused.headers["Retry-After"]) > 0


def test_previews_that_find_no_place_in_their_queue_are_refused(
    alice_api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PREVIEWS, "_max_per_client", 0)
    assert ask(alice_api, chat_template="chatml").json()["code"] == "preview_busy"


def test_a_missing_base_model_is_named(alice_api: TestClient) -> None:
    assert ask(alice_api, base_model="nothing").json()["errors"][0]["field"] == "base_model"


def test_the_page_shows_the_preview_of_the_form(alice: TestClient) -> None:
    page = alice.post("/jobs/preview-template", data={"recipe": "chat", "chat_template": "mistral"})

    assert page.status_code == 200
    assert "<mark> A metal.&lt;|endoftext|&gt;</mark>" in page.text
    assert 'formaction="/jobs/preview-template"' in alice.get("/jobs/new?recipe=chat").text
    assert 'formaction="/jobs/preview-template"' not in alice.get("/jobs/new?recipe=tiny").text
