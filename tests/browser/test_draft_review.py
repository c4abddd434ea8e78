"""Records that a model writes: from the form of an endpoint to a corpus, reviewed by keyboard and by mouse."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.app.synthetic import teacher as teachers
from tests.app.synthetic.teacher import Reply, completion, prompt_of
from tests.browser.conftest import Open
from tests.browser.test_accessibility import barriers
from tests.stack import Stack
from tests.waiting import until

NUM_DOCUMENTS = 4


def answer(request: dict[str, Any]) -> Reply:
    metal = prompt_of(request).partition("about ")[2].partition(".")[0]
    return completion(json.dumps({"records": [{"question": f"What is {metal}?", "answer": f"{metal} is a metal."}]}))


@pytest.fixture(scope="module")
def generation(running_stack: Stack) -> str:
    """The ID of four records that an endpoint wrote about four documents."""
    client = running_stack.client
    metals = ("iron", "tin", "lead", "zinc")
    lines = "".join(json.dumps({"text": f"This document is about {metal}."}) + "\n" for metal in metals)
    corpus = client.post("/api/v1/corpora", params={"filename": "metals.jsonl"}, content=lines).json()["id"]
    until(lambda: client.get(f"/api/v1/corpora/{corpus}").json()["state"] == "ready", 60, "the corpus")
    with teachers.running() as teacher:
        teacher.answer = answer
        endpoint = client.post(
            "/api/v1/model-endpoints", json={"name": "teacher", "base_url": teacher.url, "model": "large"}
        ).json()["id"]
        body = {"corpus": corpus, "endpoint": endpoint, "records_per_document": 1, "num_documents": NUM_DOCUMENTS}
        started = client.post("/api/v1/record-generations", json=body).json()["id"]

        def has_ended() -> bool:
            state = client.get(f"/api/v1/record-generations/{started}").json()
            assert state["state"] not in ("failed", "cancelled"), state["message"]
            return bool(state["state"] == "succeeded")

        until(has_ended, 60, "the records")
    return str(started)


def counts(page: Page) -> list[str]:
    return [page.locator(f"[data-count={state}]").inner_text() for state in ("draft", "accepted", "rejected")]


def test_records_are_reviewed_by_keyboard_and_mouse(open_page: Open, running_stack: Stack, generation: str) -> None:
    client = running_stack.client
    stored = client.get(f"/api/v1/record-generations/{generation}/records").json()["data"]
    with open_page(f"/synthetic/{generation}") as page:
        rows = page.locator("tr[data-draft]")
        expect(rows).to_have_count(NUM_DOCUMENTS)
        expect(rows.nth(0).locator(".excerpt")).to_contain_text("This document is about")
        assert counts(page) == ["4", "0", "0"]

        page.keyboard.press("a")  # outside of the table it is a letter like any other
        page.keyboard.press("r")
        rows.nth(0).focus()
        page.keyboard.press("a")
        expect(rows.nth(0).locator("[data-state-word]")).to_have_text("Accepted")
        expect(rows.nth(1)).to_be_focused()
        page.keyboard.press("j")
        expect(rows.nth(2)).to_be_focused()
        page.keyboard.press("r")
        expect(rows.nth(2).locator("[data-state-word]")).to_have_text("Rejected")
        expect(rows.nth(3)).to_be_focused()
        page.keyboard.press("k")
        page.keyboard.press("k")
        expect(rows.nth(1)).to_be_focused()
        page.keyboard.press("e")
        question = page.get_by_label("Question 2", exact=True)
        expect(question).to_be_focused()
        page.keyboard.press("Control+a")
        page.keyboard.type("Are a, r, e, j and k letters?")  # and no commands while one writes
        page.keyboard.press("Escape")
        expect(rows.nth(1)).to_be_focused()
        page.keyboard.press("a")
        expect(rows.nth(1).locator("[data-state-word]")).to_have_text("Accepted")

        reject = page.get_by_role("button", name="Reject record 4")
        reject.click()
        expect(reject).to_have_attribute("aria-pressed", "true")
        reject.click()  # once more takes it back
        expect(rows.nth(3).locator("[data-state-word]")).to_have_text("Undecided")
        assert counts(page) == ["1", "2", "1"]
        assert barriers(page) == []

        after = client.get(f"/api/v1/record-generations/{generation}/records").json()["data"]
        assert [row["state"] for row in after] == ["accepted", "accepted", "rejected", "draft"]
        assert after[1]["cells"] == ["Are a, r, e, j and k letters?", stored[1]["cells"][1]]
        assert [row["is_edited"] for row in after] == [False, True, False, False]

        page.get_by_role("button", name="Accept all undecided").click()
        expect(page.locator("[data-count=accepted]")).to_have_text("3")
        page.get_by_role("link", name="Rejected").click()
        expect(page.locator("tr[data-draft]")).to_have_count(1)

        page.get_by_label("Name", exact=True).fill("Metals")
        page.get_by_role("button", name="Make a corpus").click()
        page.wait_for_url("**/corpora/*")
        corpus_id = page.url.rpartition("/")[2]
    until(lambda: client.get(f"/api/v1/corpora/{corpus_id}").json()["state"] == "ready", 60, "the corpus")
    corpus = client.get(f"/api/v1/corpora/{corpus_id}").json()
    assert (corpus["name"], corpus["kind"], corpus["num_documents"]) == ("Metals", "chat", 3)
    with open_page(f"/corpora/{corpus_id}") as page:
        expect(page.locator("#synthesis")).to_contain_text(re.compile(r"Records\s*3\s*Edited by people\s*1"))


def test_a_record_cannot_become_empty(open_page: Open, generation: str) -> None:
    with open_page(f"/synthetic/{generation}") as page:
        page.get_by_label("Answer 1", exact=True).fill(" ")
        page.keyboard.press("Escape")
        expect(page.get_by_role("alert")).to_contain_text("none of them is empty")


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_the_review_fits_a_narrow_screen(open_page: Open, generation: str, language: str) -> None:
    with open_page(f"/synthetic/{generation}", locale=language, viewport={"width": 390, "height": 844}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert barriers(page) == []


def test_an_endpoint_and_a_generation_begin_with_forms(open_page: Open, running_stack: Stack) -> None:
    with teachers.running() as teacher, open_page("/synthetic") as page:
        teacher.answer = answer
        page.get_by_text("Add an endpoint").click()
        page.get_by_label("Name", exact=True).fill("by hand")
        page.get_by_label("Address", exact=True).fill("http://10.0.0.1/v1")
        page.get_by_label("Model", exact=True).fill("small")
        page.get_by_role("button", name="Add the endpoint").click()
        expect(page.get_by_text("list it in ATHANOR_ENDPOINT_HOSTS")).to_be_visible()
        page.get_by_label("Address", exact=True).fill(teacher.url)
        page.get_by_role("button", name="Add the endpoint").click()
        expect(page.get_by_role("row", name="by hand")).to_be_visible()
        page.get_by_role("link", name="Generate records").first.click()
        page.get_by_label("Corpus").select_option(label="King James Bible: Genesis and Exodus")
        page.get_by_label("Model", exact=True).select_option(label="by hand · small")
        page.get_by_label("Documents", exact=True).fill("2")
        page.get_by_role("button", name="Start").click()
        page.wait_for_url("**/synthetic/0*")
        expect(page.locator("tr[data-draft]")).to_have_count(2, timeout=240_000)
