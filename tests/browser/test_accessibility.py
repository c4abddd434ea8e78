"""Every page at five widths, and checked by axe-core, in both languages and both themes."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open

AXE = (Path(__file__).parent / "vendor/axe/axe.min.js").read_text()
RUN = """async () => {
  const context = { exclude: [".swagger-ui"] }; // third-party: its low contrast and nested controls are not ours to fix
  const rules = { "landmark-no-duplicate-main": { enabled: !document.querySelector(".swagger-ui") } };
  const { violations } = await axe.run(context, { resultTypes: ["violations"], rules });
  return violations.map((v) => ({ id: v.id, impact: v.impact, nodes: v.nodes.map((n) => n.html.slice(0, 200)) }));
}"""
WIDTHS = (320, 390, 768, 1440, 2560)
PAGES = [
    "/",
    "/jobs",
    "/jobs/new?corpus=00kingjamesbible",
    "/jobs/presets",
    "/jobs/queue",
    "/jobs/searches",
    "/jobs/import",
    "/everyones-jobs",
    "/jobs/{job}",
    "/jobs/{job}/edit",
    "/jobs/compare?job={job}",
    "/jobs/{job}/batches?step=2",
    "/corpora",
    "/corpora/write?kind=classification",
    "/corpora/00kingjamesbible",
    "/synthetic",
    "/synthetic/new?corpus=00kingjamesbible",
    "/tokenizers",
    "/tokenizers/{tokenizer}",
    "/tokenizers/compare?tokenizer={tokenizer}",
    "/models",
    "/models/{model}",
    "/checkpoints",
    "/checkpoints/{checkpoint}",
    "/lineage/{checkpoint}",
    "/tasks?subject={checkpoint}",
    "/tasks",
    "/evaluations",
    "/trash",
    "/playground?tab=completion",
    "/playground?tab=chat",
    "/playground?tab=text-to-text",
    "/playground/time-lapse/{job}",
    "/deployments",
    "/deployments/{deployment}",
    "/playground/inspect?checkpoint={checkpoint}",
    "/playground/inspect?checkpoint={model}",
    "/learn",
    "/learn/tokenize?checkpoint={checkpoint}",
    "/learn/embed?checkpoint={checkpoint}",
    "/learn/attend?checkpoint={checkpoint}",
    "/learn/predict?checkpoint={checkpoint}",
    "/learn/train?checkpoint={checkpoint}",
    "/nodes",
    "/usage",
    "/health",
    "/audit-log",
    "/jobs/new?from={checkpoint}",
    "/jobs/new?like={job}",
    "/api/docs",
    "/account",
    "/account/people",
    "/account/people/{person}",
    "/account/notices",
    "/notices",
    "/nowhere",
]


@pytest.fixture(scope="session")
def ids(running_stack: Any, trained: str, base_model: str) -> dict[str, str]:
    """The IDs for the {placeholders} in PAGES."""
    client = running_stack.client
    checkpoint = client.get("/api/v1/checkpoints", params={"job": trained}).json()["data"][0]["id"]
    deployment = client.post("/api/v1/deployments", json={"name": "accessible", "model": checkpoint}).json()["id"]
    tokenizer = client.get("/api/v1/tokenizers").json()["data"][0]["id"]
    return {
        "job": trained,
        "model": base_model,
        "checkpoint": checkpoint,
        "deployment": deployment,
        "tokenizer": tokenizer,
        "person": client.get("/api/v1/me").json()["id"],
    }


def wait_until_drawn(page: Page, path: str) -> None:
    """Wait until the page's scripts have drawn its content."""
    page.wait_for_load_state("load")
    if path == "/jobs/{job}":
        page.locator("[data-chart=loss] [data-readout] .key").first.wait_for()
        page.locator("[data-samples] > li").first.wait_for()
    if path.startswith("/learn/train"):
        page.locator("[data-chart=loss] [data-readout] .key").first.wait_for()
    elif path.startswith("/learn/"):
        page.locator(".finding:visible").first.wait_for()
    if path == "/api/docs":
        page.locator(".opblock").first.wait_for()


def barriers(page: Page) -> list[dict[str, Any]]:
    page.evaluate(AXE)
    violations: list[dict[str, Any]] = page.evaluate(RUN)
    return violations


@pytest.mark.parametrize(("language", "theme"), [("en", "light"), ("zh-CN", "dark")])
def test_no_page_scrolls_sideways_or_has_an_accessibility_violation(
    open_page: Open, ids: dict[str, str], language: str, theme: str
) -> None:
    wide, inaccessible = {}, {}
    with open_page("/nodes", locale=language, color_scheme=theme, reduced_motion="reduce") as page:
        page.set_default_timeout(240_000)
        for path in PAGES:
            show(page, path, ids)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                if (needed := page.evaluate("document.documentElement.scrollWidth")) > width:
                    wide[path, width] = needed
            page.set_viewport_size({"width": 1440, "height": 900})
            if found := barriers(page):
                inaccessible[path] = found
    assert (wide, inaccessible) == ({}, {}), f"{wide}\n{json.dumps(inaccessible, indent=1)}"


def show(page: Page, path: str, ids: dict[str, str]) -> None:
    origin = page.url.split("/")[0] + "//" + page.url.split("/")[2]
    page.goto(origin + path.format(**ids))
    wait_until_drawn(page, path)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_login_page_has_no_serious_accessibility_violation(open_page: Open, theme: str) -> None:
    with open_page("/login", visitor=True, color_scheme=theme) as page:
        assert barriers(page) == []


def test_what_was_typed_as_a_password_can_be_read(open_page: Open) -> None:
    with open_page("/login", visitor=True) as page:
        password, box = page.get_by_label("Password"), page.get_by_label("Show characters")
        password.fill("correct horse battery")
        for shown in (True, False):
            box.set_checked(shown)
            expect(password).to_have_attribute("type", "text" if shown else "password")
            expect(password).to_have_value("correct horse battery")


def test_language_and_theme_change_on_click(open_page: Open) -> None:
    with open_page("/login", visitor=True) as page:
        page.get_by_role("button", name="中文").click()
        assert page.locator("html").get_attribute("lang") == "zh-CN"
        page.get_by_role("button", name="深色").click()
        assert page.locator("html").get_attribute("data-theme") == "dark"
        assert page.url.endswith("/login")
