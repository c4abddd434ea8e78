"""How soon a curve is on the screen: that of ten million points when its page opens, and each point that is appended.

`PYTHONPATH=. python bench/paint.py [POINTS | --smoke]`. Chromium shows the page of a job at 1440 px while points are
appended four times a second, as a supervisor does. A chart counts as painted at the frame after the one that drew it.
Starts servers of its own, a real web process and Chromium.
"""

import statistics
import time
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from bench import long_run, viewers
from bench.support import timing, web_process
from bench.support.arguments import IS_SMOKE
from tests import chromium, users
from tests.waiting import until

# isort: split
from tests.app.jobs import factories

OPENS = 2 if IS_SMOKE else 20
GOAL_OPEN_MILLISECONDS = GOAL_APPEND_MILLISECONDS = 300
# Notes the last step of each event with points of the loss, when it came, and when a chart with them was painted.
WATCH = """
window.paints = [];
let waiting = [];
const note = ({ data }) => {
  const loss = JSON.parse(data).series.loss;
  if (loss) waiting.push({ step: loss.steps.at(-1), arrived: performance.now() });
};
window.EventSource = class extends EventSource {
  constructor(...options) {
    super(...options);
    for (const name of ["curve", "points"]) this.addEventListener(name, note);
  }
};
const stroke = CanvasRenderingContext2D.prototype.stroke;
CanvasRenderingContext2D.prototype.stroke = function (...path) {
  stroke.apply(this, path);
  const drawn = waiting;
  waiting = [];
  if (drawn.length) requestAnimationFrame(() => {
    const painted = performance.now();
    for (const entry of drawn) window.paints.push({ ...entry, painted, at: performance.timeOrigin + painted });
  });
};
"""


def open_page(browser: Browser, address: str, token: str) -> Page:
    """The page of a job in a fresh profile, once its curve is painted."""
    headers = {"Authorization": f"Bearer {token}"}
    context = browser.new_context(extra_http_headers=headers, viewport={"width": 1440, "height": 900})
    context.add_init_script(WATCH)
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("() => window.paints.length")
    return page


def paints(page: Page) -> list[dict[str, Any]]:
    """The step, arrival and paint of each event: milliseconds since the navigation; `at`: since 1970."""
    result: list[dict[str, Any]] = page.evaluate("() => window.paints")
    return result


def measure_open(browser: Browser, address: str, token: str) -> None:
    """Print how soon a long curve is painted."""
    first = []
    for _time in range(OPENS):
        page = open_page(browser, address, token)
        first.append(paints(page)[0])
        page.context.close()
    drawn = timing.p95([entry["painted"] - entry["arrived"] for entry in first])
    opened = [entry["painted"] for entry in first]
    latest = timing.p95(opened)
    print(
        f"{long_run.POINTS:,} points: navigation to painted curve median {statistics.median(opened):.0f} ms, "
        f"p95 of {OPENS} {latest:.0f} ms {timing.verdict(latest, GOAL_OPEN_MILLISECONDS)}; "
        f"of that, from its arrival p95 {drawn:.0f} ms"
    )


def measure_appends(browser: Browser, address: str, token: str, job_id: str, fence: int) -> None:
    """Print how soon points are painted after they were appended."""
    page = open_page(browser, address, token)
    offset = 1000 * (time.time() - time.monotonic())
    instants = viewers.append_live(job_id, fence)
    last = max(instants)
    until(lambda: paints(page)[-1]["step"] == last, what="the last point on the screen")
    at = {entry["step"]: entry["at"] for entry in paints(page)}
    late = []
    for step, instant in instants.items():  # a step that came together with later ones was painted with them
        late.append(min(moment for other, moment in at.items() if other >= step) - offset - 1000 * instant)
    page.context.close()
    latest = timing.p95(late)
    print(
        f"{len(late)} appends: append to paint median {statistics.median(late):.0f} ms, p95 {latest:.0f} ms "
        f"{timing.verdict(latest, GOAL_APPEND_MILLISECONDS)}, slowest {max(late):.0f} ms"
    )


def main() -> None:
    """Store both runs, open them, append, print."""
    chromium_path = chromium.find()
    with web_process.empty_database(), sync_playwright() as playwright:
        alice = users.enter("Alice", "owner")
        long_job = long_run.fill(alice, long_run.plant(long_run.POINTS))
        job_id, fence = factories.started(alice, factories.corpus(alice), max_steps=10_000)
        viewers.append(job_id, fence, range(1, viewers.POINTS_BEFORE + 1))
        browser = playwright.chromium.launch(executable_path=chromium_path, args=chromium.FLAGS)
        with web_process.running(alice) as (client, _process):
            address, token = f"{client.base_url}".rstrip("/"), alice.token()
            measure_open(browser, f"{address}/jobs/{long_job}", token)
            measure_appends(browser, f"{address}/jobs/{job_id}", token, job_id, fence)
        browser.close()


if __name__ == "__main__":
    main()
