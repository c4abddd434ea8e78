"""Responses to errors: a client that goes away is no error of the panel; pages are rendered beside the event loop."""

import logging
import threading
from typing import Any

import pytest
from anyio import run
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient

from app.web import errors, pages
from app.web.errors import install_errors


def test_a_client_disconnecting_during_its_form_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    application = FastAPI()
    install_errors(application)
    sent: list[dict[str, Any]] = []

    @application.post("/form")
    async def read(request: Request) -> None:
        await request.form()

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/form",
        "headers": [(b"content-type", b"application/x-www-form-urlencoded")],
        "query_string": b"",
    }
    with caplog.at_level(logging.WARNING):
        run(application, scope, receive, send)
    assert sent[0]["status"] == 499
    assert caplog.records == []


def test_error_pages_are_rendered_by_threads_and_not_in_the_event_loop(
    web: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def render(*arguments: Any, **context: Any) -> Response:
        threads.append(threading.current_thread().name)
        return pages.render(*arguments, **context)

    monkeypatch.setattr(errors, "render", render)
    assert web.get("/nowhere").status_code == 404
    assert [name.split(" (")[0] for name in threads] == ["AnyIO worker thread"]


@pytest.mark.parametrize("path", ["/jobs/06h2z2t0dag9v4p3", "/nothing/here", "/jobs/new/and/more"])
def test_an_error_page_has_the_menu_of_its_user(alice: TestClient, visitor: TestClient, path: str) -> None:
    page = alice.get(path)
    assert page.status_code == 404
    assert ('href="/account"' in page.text, ">Alice<" in page.text) == (True, True)
    assert 'href="/account"' not in visitor.get(path).text


def test_a_change_of_language_leads_back_with_the_query(alice: TestClient) -> None:
    assert (
        '<input type="hidden" name="next" value="/jobs?show=ended&amp;tag=a">'
        in alice.get("/jobs?show=ended&tag=a").text
    )
