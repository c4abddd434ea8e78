"""Fixtures of the browser tests: a real Chromium whose pages are held to an empty console."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, sync_playwright

from tests import chromium as installed_chromium
from tests import folders
from tests.stack import Stack
from tests.users import PASSWORD
from tests.waiting import until

SAMPLES = Path(__file__).parents[2] / "app/corpora/samples"
SMALL = {"recipe": "tiny", "sequence_length": 64, "train_batch_size": 4, "per_device_batch_size": 4, "eval_steps": 10}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, started at first use."""
    path = installed_chromium.find()
    assert path, "There is no Chromium that starts. `make test` installs one."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=installed_chromium.FLAGS)
        yield browser
        browser.close()


def refused(response: Response) -> bool:
    """Whether an answer is an error that the page did not ask for."""
    path = urlsplit(response.url).path
    return response.status >= 500 or (response.status >= 400 and path not in ("/nowhere", "/jobs"))


@contextmanager
def watched(context: BrowserContext) -> Iterator[Page]:
    """A page that must neither log an error, nor break the content security policy, nor ask another host."""
    page = context.new_page()
    faults: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            faults.append(f"{message.type}: {message.text} ({page.url})")

    page.on("console", hear)
    page.on("pageerror", lambda error: faults.append(f"exception: {error} ({page.url})"))
    page.on("response", lambda r: faults.append(f"{r.status} from {r.url}") if refused(r) else None)
    page.on("request", lambda r: faults.append(f"asked {r.url}") if "127.0.0.1" not in r.url else None)
    try:
        yield page
    finally:
        context.close()
    assert faults == []


@pytest.fixture(scope="session")
def trained(running_stack: Stack) -> str:
    """The id of a short job of Alice's that has succeeded."""
    client = running_stack.client
    body = {**SMALL, "name": "a short job", "corpora": ["00kingjamesbible"], "max_steps": 20, "save_steps": 10}

    def submitted() -> Any:
        answer = client.post("/api/v1/jobs", json=body)
        return answer.json()["id"] if answer.is_success else None  # the sample corpus may still be read

    job_id = until(submitted, 60, "the sample corpus")

    def state() -> bool:
        job = client.get(f"/api/v1/jobs/{job_id}").json()
        assert job["state"] != "failed", job["failure"]
        return bool(job["state"] == "succeeded")

    until(state, 180, "the end of the job")
    return str(job_id)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model as people save it, with a file of pickles beside it that is not to be sent."""
    directory = folders.saved(tmp_path_factory.mktemp("models") / "tiny-bert", "bert")
    (directory / "pytorch_model.bin").write_bytes(b"pickled")
    return directory


@pytest.fixture(scope="session")
def base_model(running_stack: Stack, chromium: Browser, login_state: Any, model_folder: Path) -> str:
    """The id of a base model of Alice's, uploaded by its folder and imported."""
    context = chromium.new_context(locale="en", storage_state=login_state)
    with watched(context) as page:
        page.goto(running_stack.base_url + "/models")
        page.locator("input[webkitdirectory]").set_input_files(model_folder)
        page.wait_for_url("**/models/*")
        page.locator(".page-header").get_by_role("link", name="Fine-tune").wait_for(timeout=60_000)
        assert page.get_by_role("heading", level=1).inner_text() == "tiny-bert"
        return page.url.rpartition("/")[2]


@pytest.fixture(scope="session")
def login_state(running_stack: Stack, chromium: Browser) -> Any:
    """What Alice's browser keeps once she has logged in."""
    context = chromium.new_context(locale="en")
    with watched(context) as page:
        page.goto(running_stack.base_url + "/login")
        page.get_by_label("Name").fill("Alice")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(running_stack.base_url + "/")
        return context.storage_state()


Open = Callable[..., Any]


@pytest.fixture
def open_page(running_stack: Stack, chromium: Browser, login_state: Any) -> Open:
    """Opens a watched page of the running stack, as Alice unless told otherwise."""

    @contextmanager
    def opened(path: str, *, visitor: bool = False, **settings: Any) -> Iterator[Page]:
        state = None if visitor else login_state
        options = {"locale": "en", "viewport": {"width": 1440, "height": 900}, "storage_state": state, **settings}
        with watched(chromium.new_context(**options)) as page:
            page.goto(running_stack.base_url + path)
            yield page

    return opened
