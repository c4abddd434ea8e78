"""Actions on jobs in a browser: pause, resume, cancel, continue and pin; and the health page."""

import re
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import SMALL, Open
from tests.browser.test_accessibility import barriers
from tests.stack import Stack
from tests.users import PASSWORD

MINUTE = 60_000
SECONDS_OF_SILENCE = 10  # after which a page knows that its connection is dead
MAX_PINGS = 4  # one each 4 s: a page is told within 15 s that its session has ended
COUNT_PINGS = """
window.numPings = 0;
window.EventSource = class extends EventSource {
  constructor(address) {
    super(address);
    this.addEventListener("ping", () => { window.numPings += 1; });
  }
};
"""


@pytest.fixture
def long_job(running_stack: Stack, trained: str) -> str:
    """The ID of a job of Alice's that runs long enough to be paused."""
    body = {**SMALL, "name": "a long job", "corpora": ["00kingjamesbible"], "max_steps": 4000, "save_steps": 1000}
    return str(running_stack.client.post("/api/v1/jobs", json=body).raise_for_status().json()["id"])


def test_a_job_is_paused_resumed_and_continued_with_buttons(
    open_page: Open, long_job: str, running_stack: Stack
) -> None:
    with open_page(f"/jobs/{long_job}") as page:
        page.set_default_timeout(240_000)
        page.clock.install()
        page.reload()
        expect(page.locator("[data-badge]")).to_have_text("Running", timeout=2 * MINUTE)
        pause(page)
        freeze(page, running_stack)
        resume(page)
        lose_session(page, running_stack)
        page.get_by_role("button", name="Cancel job").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
        expect(page.locator("[data-badge]")).to_have_text("Cancelled", timeout=2 * MINUTE)
        continue_from_checkpoint(page)


def pause(page: Page) -> None:
    page.get_by_role("button", name="Pause", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("It saves a checkpoint")
    assert barriers(page) == []
    dialog.get_by_role("button", name="Pause").click()
    expect(page.locator("[data-badge]")).to_have_text("Paused", timeout=2 * MINUTE)
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_hidden()
    expect(page.locator("[data-checkpoints] > li").first).to_be_visible()
    assert barriers(page) == []


def freeze(page: Page, running_stack: Stack) -> None:
    """A web process that hangs breaks no connection. The page tells it from silence, and finds back."""
    connection = page.locator("[data-stream]")
    children = psutil.Process(running_stack.process.pid).children()
    living = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    web = [child for child in living if child.cmdline()[2:4] == ["app.launcher.cli", "web"]]
    assert web
    expect(connection).to_have_text("Live")
    try:
        for process in web:
            process.suspend()
        page.clock.fast_forward(SECONDS_OF_SILENCE * 1000)
        expect(connection).to_have_text("Reconnecting")
    finally:
        for process in web:
            process.resume()
    expect(connection).to_have_text("Live")


def resume(page: Page) -> None:
    page.evaluate("window.notReloaded = true")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("[data-badge]")).to_have_text("Running", timeout=2 * MINUTE)
    expect(page.locator("[data-history]")).to_contain_text("Attempt 2")
    expect(page.locator("[data-history]")).to_contain_text("0 steps are trained again.")


def lose_session(page: Page, running_stack: Stack) -> None:
    """The live view of a session that ends elsewhere says so; those of other sessions stay."""
    browser = page.context.browser
    assert browser is not None
    context = browser.new_context(locale="en")
    context.add_init_script(COUNT_PINGS)
    try:
        other = context.new_page()
        other.goto(running_stack.base_url + "/login")
        other.get_by_label("Name").fill("Alice")
        other.get_by_label("Password").fill(PASSWORD)
        other.get_by_role("button", name="Log in").click()
        other.wait_for_url(running_stack.base_url + "/")
        other.goto(page.url)
        expect(other.locator("[data-stream]")).to_have_text("Live")
        num_pings = other.evaluate("() => window.numPings")
        left = context.request.post(running_stack.base_url + "/logout", headers={"Origin": running_stack.base_url})
        assert left.ok, left.status
        expect(other.locator("[data-stream]")).to_have_text("Log in again", timeout=2 * MINUTE)
        assert other.evaluate("() => window.numPings") - num_pings <= MAX_PINGS
        expect(page.locator("[data-stream]")).to_have_text("Live")
    finally:
        context.close()


def continue_from_checkpoint(page: Page) -> None:
    page.get_by_role("link", name="Train further", exact=True).first.click()
    expect(page.get_by_role("heading", name="Train further from step")).to_be_visible()
    expect(page.get_by_text("Each process needs about")).to_be_visible()  # the plan knows the checkpoint's job
    assert barriers(page) == []
    page.locator("summary").filter(has_text="Training").click()
    expect(page.get_by_label("Batch size", exact=True)).to_be_disabled()
    page.get_by_label("Learning rate", exact=True).fill("0.001")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".meta")).to_contain_text("a long job")
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
    expect(page.locator("[data-badge]")).to_have_text("Cancelled", timeout=2 * MINUTE)


def test_a_click_on_the_curve_leads_to_the_samples_of_that_step(open_page: Open, trained: str) -> None:
    with open_page(f"/jobs/{trained}") as page:
        link = page.get_by_role("link", name="Samples of a step")
        expect(link).to_have_attribute("href", f"/jobs/{trained}/batches")
        expect(page.locator(".chart.big [data-readout]")).not_to_be_empty()  # the curve is drawn
        page.locator(".chart.big .u-over").click()
        expect(page.locator("a[data-batches]")).to_have_text(re.compile(r"Samples of step \d+"))
        step = page.locator("a[data-batches]").inner_text().rpartition(" ")[2]
        page.locator("a[data-batches]").click()
        expect(page.get_by_label("Step", exact=True)).to_have_value(step)
        expect(page.locator(".tokens [data-role=learned]").first).to_be_visible()


def test_a_checkpoint_is_pinned_in_the_list(open_page: Open, trained: str) -> None:
    with open_page(f"/jobs/{trained}") as page:
        pin = page.get_by_role("button", name="Pin step 20")
        for pressed in ("true", "false"):
            pin.click()
            expect(pin).to_have_attribute("aria-pressed", pressed)
            expect(page.locator("[data-checkpoints] .pinned")).to_have_count(int(pressed == "true"))


def test_all_parts_of_a_running_installation_are_healthy(open_page: Open, running_stack: Any) -> None:
    with open_page("/health") as page:
        names = ["Database", "Broker", "Scheduler", re.compile("Node .+"), "Data directory", "Cache"]
        expect(page.locator(".parts li strong")).to_have_text(names)
        expect(page.get_by_text("It starts jobs and recovers lost attempts.")).to_be_visible(timeout=MINUTE)
