"""How soon pages are painted: the first contentful paint in Chromium on loopback, with an empty cache.

`PYTHONPATH=. python bench/first_paint.py [TIMES | --smoke]`. Starts its own installation and trains a short job there.
"""

import statistics
from typing import Any

import httpx
from playwright.sync_api import Browser, sync_playwright

from bench.support import installation, timing
from bench.support.arguments import size
from tests import chromium
from tests.waiting import until

GOAL_MILLISECONDS = 1000
SPEC = {**installation.SMALL, "recipe": "tiny", "corpora": [installation.CORPUS], "max_steps": 20, "warmup_steps": 1}
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "new job": f"/jobs/new?corpus={installation.CORPUS}",
    "job": "/jobs/{job}",
    "comparison": "/jobs/compare?job={job}",
    "corpus": f"/corpora/{installation.CORPUS}",
    "checkpoints": "/checkpoints",
    "playground": "/playground",
    "health": "/health",
}
PAINT = """() => new Promise((done) => new PerformanceObserver((list) => {
  for (const { startTime } of list.getEntriesByName("first-contentful-paint")) done(startTime);
}).observe({ type: "paint", buffered: true }))"""


def train(client: httpx.Client) -> str:
    """The ID of a short job that has ended."""
    job_id = str(client.post("/api/v1/jobs", json=SPEC).raise_for_status().json()["id"])

    def has_ended() -> bool:
        job: dict[str, Any] = client.get(f"/api/v1/jobs/{job_id}").json()
        assert job["state"] != "failed", job["failure"]
        return bool(job["state"] == "succeeded")

    until(has_ended, 300, "the end of the job")
    return job_id


def first_paint(browser: Browser, client: httpx.Client, path: str) -> float:
    """Milliseconds from the navigation to the first paint of text, in a fresh profile."""
    context = browser.new_context(
        extra_http_headers={"Authorization": client.headers["Authorization"]},
        viewport={"width": 1440, "height": 900},
    )
    page = context.new_page()
    page.goto(f"{client.base_url}".rstrip("/") + path)
    milliseconds = float(page.evaluate(PAINT))
    context.close()
    return milliseconds


def main(times: int) -> None:
    """Open each page so often, and print its figures."""
    chromium_path = chromium.find()
    with installation.running() as (client, data), sync_playwright() as playwright:
        installation.wait_until_ready(client, data)
        job_id = train(client)
        browser = playwright.chromium.launch(executable_path=chromium_path, args=chromium.FLAGS)
        for name, path in PAGES.items():
            painted = [first_paint(browser, client, path.format(job=job_id)) for _time in range(times)]
            slowest = max(painted)
            print(
                f"{name}: first paint median {statistics.median(painted):.0f} ms, slowest of {times} {slowest:.0f} ms "
                f"{timing.verdict(slowest, GOAL_MILLISECONDS)}"
            )
        browser.close()


if __name__ == "__main__":
    main(size(10, smoke=1))
