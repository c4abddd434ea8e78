"""The pages of somebody who was a member and is now a viewer: nothing on them leads to a refusal."""

import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.core.roles import is_at_least
from tests.browser.conftest import checked_page, finished_job, newest_checkpoint, until_started
from tests.browser.test_accessibility import barriers
from tests.routes import rights
from tests.stack import Stack
from tests.users import PASSWORD

PAGES = [
    "/",
    "/corpora",
    "/corpora/{corpus}",
    "/corpora/00kingjamesbible",
    "/synthetic",
    "/jobs",
    "/jobs/{job}",
    "/jobs/searches",
    "/jobs/presets",
    "/jobs/queue",
    "/checkpoints",
    "/checkpoints/{checkpoint}",
    "/models",
    "/tokenizers",
    "/tasks",
    "/playground?tab=completion&checkpoint={checkpoint}",
    "/playground?tab=chat&checkpoint={checkpoint}",
    "/playground/inspect?checkpoint={checkpoint}",
    "/deployments",
    "/evaluations",
    "/notices",
    "/account",
]
# Buttons of scripts that send nothing, and the search.
HARMLESS = {"Search", "Copy", "Smooth", "Log scale", "Ignore outliers", "Conversations", "Settings"}
# What can be used on a page: its visible forms and links, the forms of the dialogs that visible buttons open, and the
# visible buttons that neither open a dialog nor are in a form that posts.
LOOK = """() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const shown = (element) => element.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true });
  const usable = (element) => shown(element) && !element.disabled && !element.closest("[inert], [aria-disabled=true]");
  const all = (selector) => [...document.querySelectorAll(selector)].filter(usable);
  const path = (address) => new URL(address, location.href).pathname;
  const submits = (form) => [...form.elements].some((element) => element.type === "submit" && usable(element));
  const address = (form) => [form.method.toUpperCase(), path(form.getAttribute("action") ?? location.href)];
  const forms = (dialog) => document.getElementById(dialog).querySelectorAll("form[method=post]");
  return {
    addresses: [
      ...[...document.forms].filter(submits).map(address),
      ...all("[formaction]").map((button) => ["POST", path(button.formAction)]),
      ...all("[data-dialog]").flatMap((button) => [...forms(button.dataset.dialog)].map(address)),
      ...all("a[href]").filter((link) => link.host === location.host).map((link) => ["GET", path(link.href)]),
    ],
    buttons: all("button:not(form[method=post] button, [data-dialog])").map(
      (button) => button.ariaLabel ?? button.innerText.trim(),
    ),
  };
}"""


def refused(method: str, path: str) -> bool:
    """Whether a viewer may not use the route of an address."""
    routes = sorted(rights(), key=lambda route: route[1].count("{"))
    for other, pattern, right in routes:
        if other == method and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", pattern), path):
            return right is not None and not is_at_least("viewer", right.role)
    return False


@pytest.fixture(scope="module")
def ids(running_stack: Stack) -> dict[str, str]:
    """What Vera made while she was a member; she is a viewer now."""
    owner = running_stack.client
    person = owner.post("/api/v1/users", json={"name": "Vera", "password": PASSWORD, "role": "member"}).json()
    with httpx.Client(base_url=running_stack.base_url) as browser:
        browser.post("/api/v1/login", json={"name": "Vera", "password": PASSWORD}).raise_for_status()
        new = {"name": "test", "scopes": ["read", "submit"]}
        token = browser.post("/api/v1/tokens", json=new).raise_for_status().json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=running_stack.base_url, headers=headers, timeout=240) as client:
        stack = replace(running_stack, client=client)
        text = {"params": {"filename": "tale.txt"}, "content": b"Once upon a time. " * 99}
        corpus = client.post("/api/v1/corpora", **text).raise_for_status().json()["id"]
        job = finished_job(stack, name="first", corpora=["00kingjamesbible"], max_steps=20, save_steps=10)
        ids = {"corpus": corpus, "job": job, "checkpoint": newest_checkpoint(stack, job)}
    owner.patch(f"/api/v1/users/{person['id']}", json={"role": "viewer"}).raise_for_status()
    return ids


@pytest.fixture
def vera(running_stack: Stack, chromium: Browser, ids: dict[str, str]) -> Iterator[Page]:
    """Vera's browser."""
    with checked_page(chromium.new_context(locale="en", viewport={"width": 1440, "height": 900})) as page:
        page.goto(running_stack.base_url + "/login")
        page.get_by_label("Name").fill("Vera")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(running_stack.base_url + "/")
        yield page


def test_no_page_of_a_viewer_offers_what_is_refused(running_stack: Stack, vera: Page, ids: dict[str, str]) -> None:
    offered, buttons, unexplained, inaccessible = {}, {}, set(), {}
    for path in PAGES:
        vera.goto(running_stack.base_url + path.format(**ids))
        until_started(vera)
        look = vera.evaluate(LOOK)
        if wrong := sorted({(method, there) for method, there in look["addresses"] if refused(method, there)}):
            offered[path] = wrong
        if others := set(look["buttons"]) - HARMLESS:
            buttons[path] = others
        if path.startswith("/playground") and not vera.get_by_text("Your role is viewer").is_visible():
            unexplained.add(path)
        if violations := barriers(vera):
            inaccessible[path] = violations
        if path == "/account":
            for name in ("Change the password", "Create a token"):
                expect(vera.get_by_role("button", name=name)).to_be_visible()
    assert (offered, buttons, unexplained, inaccessible) == ({}, {}, set(), {})
