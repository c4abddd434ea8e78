"""Fixtures of the browser tests: Chromium, with pages that must not log errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, expect, sync_playwright

from tests import chromium as installed_chromium
from tests import folders
from tests.stack import Stack
from tests.users import PASSWORD
from tests.waiting import until

SAMPLES = Path(__file__).parents[2] / "app/corpora/samples"
REFUSED = "/api/v1/inspect/attention"  # of a text that is too long
SMALL = {"recipe": "tiny", "sequence_length": 64, "train_batch_size": 4, "per_device_batch_size": 4, "eval_steps": 10}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, started at first use."""
    path = installed_chromium.find()
    assert path, "There is no Chromium that starts. `make test` installs one."
    expect.set_options(timeout=60_000)  # milliseconds: the machine may be slow
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=installed_chromium.FLAGS)
        yield browser
        browser.close()


def is_unexpected_error(response: Response) -> bool:
    """Whether a response has an error status that no test provokes."""
    path = urlsplit(response.url).path
    if response.status == 409 and path.startswith("/api/v1/uploads/"):  # a browser repeats what was cut, by itself
        return False
    if response.status == 422 and path.startswith("/api/v1/record-generations/"):  # a record that became empty
        return False
    return response.status >= 500 or (
        response.status >= 400 and path not in ("/nowhere", "/jobs", "/synthetic/endpoints", REFUSED)
    )


@contextmanager
def checked_page(context: BrowserContext) -> Iterator[Page]:
    """A page that must not log errors or warnings, violate the content security policy or load from another host."""
    page = context.new_page()
    errors: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            errors.append(f"{message.type}: {message.text} ({page.url})")

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(f"exception: {error} ({page.url})"))
    page.on("response", lambda r: errors.append(f"{r.status} from {r.url}") if is_unexpected_error(r) else None)
    page.on("request", lambda r: errors.append(f"request to {r.url}") if "127.0.0.1" not in r.url else None)
    try:
        yield page
    finally:
        context.close()
    assert errors == []


def finished_job(stack: Stack, seconds: float = 180, **fields: Any) -> str:
    """The ID of a job of Alice's with these fields besides SMALL, once it has succeeded."""
    client = stack.client

    def submit() -> Any:
        answer = client.post("/api/v1/jobs", json={**SMALL, **fields})
        return answer.json()["id"] if answer.is_success else None  # the sample corpus may not be parsed yet

    job_id = until(submit, 60, "the sample corpus")

    def has_succeeded() -> bool:
        job = client.get(f"/api/v1/jobs/{job_id}").json()
        assert job["state"] != "failed", job["failure"]
        return bool(job["state"] == "succeeded")

    until(has_succeeded, seconds, "the end of the job")
    return str(job_id)


def newest_checkpoint(stack: Stack, job_id: str) -> str:
    """The ID of the newest checkpoint of a job."""
    return str(stack.client.get("/api/v1/checkpoints", params={"job": job_id}).json()["data"][0]["id"])


@pytest.fixture(scope="session")
def trained(running_stack: Stack) -> str:
    """The ID of a short job of Alice's that has succeeded."""
    more = {"max_steps": 20, "save_steps": 10}
    return finished_job(running_stack, name="a short job", corpora=["00kingjamesbible"], **more)


@pytest.fixture(scope="session")
def chat_model(running_stack: Stack, trained: str) -> str:
    """The ID of a checkpoint with a chat template, fine-tuned from another one of Alice's."""
    base = newest_checkpoint(running_stack, trained)
    more = {"max_steps": 4, "warmup_steps": 1, "save_steps": 4, "eval_steps": 4}
    corpora = ["00smalltalk"]
    job_id = finished_job(running_stack, recipe="chat", name="a talker", corpora=corpora, base_model=base, **more)
    return newest_checkpoint(running_stack, job_id)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny base model, with a pickle file in it that must not be uploaded."""
    directory = folders.saved(tmp_path_factory.mktemp("models") / "tiny-bert", "bert")
    (directory / "pytorch_model.bin").write_bytes(b"pickled")
    return directory


@pytest.fixture(scope="session")
def base_model(running_stack: Stack, chromium: Browser, login_state: Any, model_folder: Path) -> str:
    """The ID of a base model of Alice's, uploaded as a folder and imported."""
    context = chromium.new_context(locale="en", storage_state=login_state)
    with checked_page(context) as page:
        page.goto(running_stack.base_url + "/models")
        until_started(page)
        page.locator("input[webkitdirectory]").set_input_files(model_folder)
        page.wait_for_url("**/models/*")
        page.locator(".page-header").get_by_role("link", name="Fine-tune").wait_for(timeout=240_000)
        assert page.get_by_role("heading", level=1).inner_text() == "tiny-bert"
        return page.url.rpartition("/")[2]


@pytest.fixture(scope="session")
def login_state(running_stack: Stack, chromium: Browser) -> Any:
    """The cookies of Alice's browser after she has logged in, as Playwright's storage state."""
    context = chromium.new_context(locale="en")
    with checked_page(context) as page:
        page.goto(running_stack.base_url + "/login")
        page.get_by_label("Name").fill("Alice")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(running_stack.base_url + "/")
        return context.storage_state()


Open = Callable[..., Any]


def until_started(page: Page) -> None:
    """Wait for the modules of a page, which are imported after it has loaded."""
    page.wait_for_function("() => !document.querySelector('[data-module]:not([data-started])')")


@pytest.fixture
def open_page(running_stack: Stack, chromium: Browser, login_state: Any) -> Open:
    """Opens a page of the running stack by its path, as Alice or as a visitor; see `checked_page`."""

    @contextmanager
    def open_path(path: str, *, visitor: bool = False, **settings: Any) -> Iterator[Page]:
        state = None if visitor else login_state
        options = {"locale": "en", "viewport": {"width": 1440, "height": 900}, "storage_state": state, **settings}
        with checked_page(chromium.new_context(**options)) as page:
            page.goto(running_stack.base_url + path)
            until_started(page)
            yield page

    return open_path
