"""Somebody new gets an answer from a model of their own records; `make newcomer` asks for a right one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.core.i18n import use_locale
from tests import network_namespace
from tests.browser import first_minutes
from tests.browser.conftest import checked_page
from tests.stack import Stack

SECONDS = 1500  # where other programs leave it little
LANGUAGE, FEW_STEPS = "zh-CN", 20


def test_a_new_user_gets_from_a_link_to_an_answer(running_stack: Stack, chromium: Browser, tmp_path: Path) -> None:
    link = running_stack.client.post("/api/v1/invitations", json={}).raise_for_status().json()["link"]
    records = first_minutes.write_records(tmp_path, LANGUAGE)
    question = next(iter(first_minutes.ANSWERS[LANGUAGE]))
    with use_locale(LANGUAGE), checked_page(chromium.new_context(locale=LANGUAGE)) as page:
        first_minutes.live_through(page, link, "Bea", records, question, FEW_STEPS)
        expect(page.locator(first_minutes.ANSWER)).to_have_count(1)


@pytest.mark.newcomer
def test_a_new_user_gets_from_a_link_to_a_right_answer_without_a_network(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", first_minutes.__name__, str(tmp_path)]
    enclosed = network_namespace.enclosed(command)
    run = subprocess.run(enclosed or command, cwd=root, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["language"] for each in figures] == ["en", "zh-CN"]
    where = "without a network" if enclosed else "with the network: this machine allows no namespace without one"
    with capsys.disabled():
        sys.stdout.write(f"\nThe first minutes, {where}:\n{run.stdout}")


def test_nothing_but_loopback_is_there_in_a_namespace(root: Path) -> None:
    code = (
        "import socket; from tests.network_namespace import interfaces; print(interfaces());"
        "listener = socket.create_server(('127.0.0.1', 0)); socket.create_connection(listener.getsockname())"
    )
    command = network_namespace.enclosed([sys.executable, "-c", code])
    if command is None:
        pytest.skip("this machine allows no network namespace")
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "['lo']\n"
