"""Errors of requests: a client that goes away is no error of the panel."""

import logging
from typing import Any

import pytest
from anyio import run
from fastapi import FastAPI, Request

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
