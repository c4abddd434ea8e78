"""The requests of Open WebUI, written down from its source (backend/open_webui/routers/openai.py and tasks.py).

Its server sends them, so that no browser asks from another site. It passes on what users set in its forms.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.app.openai.test_chat import QUESTION
from tests.app.playground.conftest import StoredCheckpoint

USER = {
    "X-OpenWebUI-User-Name": "Ann%20B",
    "X-OpenWebUI-User-Id": "0b4c6c5e-1111-4f1d-9f5e-2f6a8c5b7d10",
    "X-OpenWebUI-User-Email": "ann@example.org",
    "X-OpenWebUI-User-Role": "user",
}
TITLE = '### Task:\nWrite a title.\n### Output:\nJSON: {"title": "..."}\n### Chat:\nUSER: In the'


@pytest.fixture
def webui(address: str, key: str) -> Iterator[httpx.Client]:
    """Its server, with a connection to the base URL and an API key."""
    headers = {"Authorization": f"Bearer {key}", **USER}
    with httpx.Client(base_url=f"{address}/v1", headers=headers, timeout=240) as client:
        yield client


@pytest.fixture
def model(webui: httpx.Client, talking: StoredCheckpoint) -> str:
    """The name of a model, as its list shows it."""
    name = str(webui.get(f"/models/{talking.id}").json()["id"])
    listed = webui.get("/models").json()
    assert listed["object"] == "list"
    assert name in [one["id"] for one in listed["data"]]
    return name


def post(webui: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    headers = {"Content-Type": "application/json", "X-OpenWebUI-Chat-Id": "1c2d"}
    return webui.post("/chat/completions", content=json.dumps(body), headers=headers)


def test_a_chat_is_streamed_with_its_usage(webui: httpx.Client, model: str) -> None:
    body = {
        "stream": True,
        "model": model,
        "messages": [{"role": "system", "content": " "}, *QUESTION],
        "stream_options": {"include_usage": True},
        "user": {"name": "Ann", "id": "1", "email": "a@b.c", "role": "user"},
        "max_tokens": 5,
        "temperature": 0.8,
        "top_p": 0.9,
        "frequency_penalty": 0.1,
        "seed": 7,
        "stop": ["END"],
        "logit_bias": {"5": -1},
    }
    answer = post(webui, body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert 0 < chunks[-1]["usage"]["completion_tokens"] <= 5
    assert "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_title_is_written_at_once_however_short_the_context_is(webui: httpx.Client, model: str, limit: str) -> None:
    messages = [{"role": "user", "content": TITLE}]
    answer = post(webui, {"model": model, "messages": messages, "stream": False, limit: 1000})
    assert answer.status_code == 200, answer.text
    assert isinstance(answer.json()["choices"][0]["message"]["content"], str)
    assert answer.json()["usage"]["total_tokens"] > 0


def test_errors_of_streams_are_json_that_it_shows(webui: httpx.Client) -> None:
    answer = post(webui, {"model": "away", "messages": QUESTION, "stream": True})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert "away" in answer.json()["error"]["message"]
    refused = webui.get("/models", headers={"Authorization": "Bearer"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_browser_cannot_ask_from_another_site_but_programs_read_what_is_allowed(
    webui: httpx.Client, model: str
) -> None:
    """Open WebUI's direct connections, which its browser part would make, are refused before any work."""
    asked = {"Origin": "https://chat.example.org", "Access-Control-Request-Method": "POST"}
    preflight = webui.options("/chat/completions", headers=asked)
    assert (preflight.status_code, preflight.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in preflight.headers
    assert webui.options("/chat/completions").headers["allow"] == "OPTIONS, POST"
