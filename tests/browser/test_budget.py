"""What pages cost a browser: how much script they load, and whether their layout stays when live data arrives."""

from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import SMALL, Open, until_started
from tests.stack import Stack

MAX_SCRIPT_BYTES = 150_000
MAX_SHIFT = 0.001  # of dates that the browser writes in its own way beside others; Web Vitals call 0.1 good
MAX_SHIFT_WHILE_RUNNING = 0.01
# The bytes of each script as they were sent.
SCRIPTS = """() => Object.fromEntries(performance.getEntriesByType("resource")
  .filter(({ name }) => new URL(name).pathname.endsWith(".js"))
  .map(({ name, encodedBodySize }) => [new URL(name).pathname.replace(/^.static.[^/]*./, ""), encodedBodySize]))"""
WATCH = """() => {
  window.shifts = [];
  const place = ({ x, y, width, height }) => [x, y, width, height].map(Math.round).join(" ");
  const describe = ({ node, previousRect, currentRect }) =>
    [(node?.outerHTML ?? node?.textContent ?? "").slice(0, 80), place(previousRect), place(currentRect)];
  const note = ({ value, sources }) => window.shifts.push([value, ...sources.map(describe)]);
  new PerformanceObserver((list) => list.getEntries().forEach(note)).observe({ type: "layout-shift", buffered: true });
}"""
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
SHIFTS = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(window.shifts))))"


def watch_layout(page: Page) -> None:
    """Note from now on, and since the page was opened, what moves without being asked to."""
    page.evaluate(WATCH)


def layout_shifts(page: Page) -> list[Any]:
    """How far things moved, and what."""
    shifts: list[Any] = page.evaluate(SHIFTS)
    return shifts


@pytest.mark.parametrize("path", ["/", "/jobs/new", "/jobs/{job}", "/jobs/compare?job={job}"])
def test_a_page_loads_little_script(open_page: Open, trained: str, path: str) -> None:
    with open_page(path.format(job=trained)) as page:
        sizes: dict[str, int] = page.evaluate(SCRIPTS)
    assert sizes["js/page.js"] > 0
    assert sum(sizes.values()) <= MAX_SCRIPT_BYTES, sizes


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_moves_when_curves_arrive(open_page: Open, trained: str, width: int) -> None:
    with open_page(f"/jobs/{trained}", viewport={"width": width, "height": 900}) as page:
        watch_layout(page)
        expect(page.locator("[data-stream]")).to_have_text("Ended")
        expect(page.locator("canvas").first).to_be_visible()
        shifts = layout_shifts(page)
    assert sum(value for value, *_moved in shifts) < MAX_SHIFT, shifts


@pytest.mark.parametrize(("path", "data"), [("/jobs/{job}", "/events"), ("/jobs/compare?job={job}", "/metrics?")])
def test_charts_do_not_say_that_they_have_no_values_while_these_are_loaded(
    open_page: Open, running_stack: Stack, trained: str, path: str, data: str
) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    with open_page("/jobs") as page:
        page.route(lambda address: data in address, hold)
        page.goto(running_stack.base_url + path.format(job=trained), wait_until="commit")
        until_started(page)
        page.evaluate(TWO_FRAMES)
        assert page.locator("[data-chart][data-empty]").count() == 0
        assert held
        for route in held:
            route.continue_()
        expect(page.locator("[data-chart] .u-over").first).to_be_visible()
        expect(page.locator("[data-chart] [data-readout] .key").first).to_be_visible()


@pytest.mark.parametrize("width", [390, 1440])
def test_hardly_anything_moves_while_a_job_runs_and_the_card_of_its_end_can_be_closed(
    open_page: Open, running_stack: Stack, trained: str, width: int
) -> None:
    more = {"corpora": ["00kingjamesbible"], "max_steps": 30, "warmup_steps": 2, "eval_steps": 5, "save_steps": 10}
    job = running_stack.client.post("/api/v1/jobs", json={**SMALL, **more}).raise_for_status().json()
    with open_page(f"/jobs/{job['id']}", viewport={"width": width, "height": 900}) as page:
        watch_layout(page)
        expect(page.locator("[data-badge]")).to_have_text("Succeeded", timeout=180_000)
        expect(page.locator("[data-samples] > li")).to_have_count(7)
        expect(page.locator("[data-checkpoints] > li")).to_have_count(3)
        shifts = layout_shifts(page)
        card = page.get_by_label("Your model is ready")
        expect(card).to_be_visible()
        page.evaluate("document.body.dataset.isSame = 'yes'")
        card.get_by_role("button", name="Close").click()
        expect(card).to_be_hidden()
        expect(page.locator("body[data-is-same]")).to_have_count(1)
    assert sum(value for value, *_moved in shifts) < MAX_SHIFT_WHILE_RUNNING, shifts
