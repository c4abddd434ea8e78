"""The main user journey in a browser, from the setup link to logging out."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import stack
from tests.browser.conftest import SAMPLES, checked_page, until_started
from tests.stack import Stack
from tests.users import PASSWORD

TEXT = (SAMPLES / "king-james-bible.txt").read_text()[:60_000]
DROP = """([text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], "garden.txt", { type: "text/plain" }));
  const place = document.querySelector("[data-drop]");
  for (const type of ["dragenter", "dragover", "drop"]) {
    place.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""
MINUTE = 60_000


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running installation without any account."""
    with stack.running(tmp_path_factory.mktemp("fresh")) as installation:
        yield installation


def test_a_user_gets_from_the_setup_link_to_a_generating_model(fresh: Stack, chromium: Browser) -> None:
    with checked_page(chromium.new_context(locale="en", viewport={"width": 1440, "height": 900})) as page:
        page.set_default_timeout(240_000)
        create_the_owner(page, fresh.link)
        upload_by_dropping(page)
        train(page)
        check_live_updates(page)
        check_curve_after_reload(page)
        generate(page)
        page.goto(fresh.base_url + "/account")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")


def create_the_owner(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_label("Name").fill("Alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create the account").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_text("Three steps from text to a model of your own.")).to_be_visible()


def upload_by_dropping(page: Page) -> None:
    page.get_by_role("link", name="Upload a corpus").click()
    expect(page.get_by_role("heading", name="Corpora")).to_be_visible()
    page.wait_for_load_state()
    until_started(page)
    page.evaluate(DROP, [TEXT])
    row = page.get_by_role("row").filter(has_text="garden")
    expect(row.get_by_text("Ready")).to_be_visible(timeout=MINUTE)
    row.get_by_role("link").click()
    page.get_by_role("link", name="Train on this").click()


def train(page: Page) -> None:
    expect(page.get_by_role("checkbox", name="garden")).to_be_checked()
    page.get_by_label("Name", exact=True).fill("first try")
    for title in ("Data", "Training", "Evaluation and checkpoints"):
        page.locator("summary").filter(has_text=re.compile(rf"^\s*{title}\s")).click()
    for label, value in (
        ("Sequence length", "32"),
        ("Steps", "0"),
        ("Batch size", "4"),
        ("Micro-batch", "4"),
        ("Warm-up steps", "5"),
        ("Evaluate every", "20"),
        ("Save every", "40"),
    ):
        page.get_by_label(label, exact=True).fill(value)
    expect(page.get_by_text("Steps must be at least 1")).to_be_visible()  # from the plan, before anything is sent
    page.get_by_label("Steps", exact=True).fill("120")
    expect(page.get_by_text("Each process needs about")).to_be_visible()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("heading", name="first try")).to_be_visible()


def check_live_updates(page: Page) -> None:
    page.evaluate("window.notReloaded = true")
    readout = page.locator("[data-chart=loss] [data-readout]")
    expect(readout).to_contain_text("Training loss", timeout=2 * MINUTE)
    before = readout.inner_text()
    expect(readout).not_to_have_text(before, timeout=MINUTE)
    expect(page.locator("[data-badge]")).to_have_text("Succeeded", timeout=4 * MINUTE)
    expect(page.locator("#part-status [data-status]").first).to_have_text("Step 120 of 120")
    expect(page.locator("[data-samples] > li")).to_have_count(7)
    expect(page.locator("[data-checkpoints] > li")).to_have_count(3)
    expect(page.locator("[data-log]")).to_contain_text("step")
    assert page.evaluate("window.notReloaded")


def curve_values(page: Page) -> list[str]:
    page.locator("[data-chart=loss] summary").filter(has_text="Values").click()
    expect(page.locator("[data-table] tbody tr").last).to_contain_text("120")
    return page.locator("[data-table] tbody tr").all_inner_texts()


def check_curve_after_reload(page: Page) -> None:
    live_values = curve_values(page)
    assert len(live_values) > 50
    page.reload()
    expect(page.locator("[data-chart=loss] [data-readout]")).to_contain_text("Training loss")
    assert curve_values(page) == live_values


def generate(page: Page) -> None:
    page.get_by_role("link", name="Try step 120").click()
    page.get_by_label("Prompt").fill("And God said")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("[data-generations] [data-output]").first).not_to_be_empty(timeout=2 * MINUTE)
    expect(page.locator("[data-generations] [data-status]").first).to_contain_text("tokens/s", timeout=MINUTE)
