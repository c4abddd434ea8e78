"""Tokenizers side by side on one text, and what is counted and found in a corpus: by keyboard, in a browser."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, until_started
from tests.stack import Stack
from tests.waiting import until

MINUTE = 60_000
WORDS = {
    "en": {"chinese": "Chinese sample", "token": "is token", "count": "Count", "slider": "Sequence length"},
    "zh-CN": {"chinese": "中文示例", "token": "是词元", "count": "统计", "slider": "序列长度"},
}


@pytest.fixture(scope="module")
def tokenizers(running_stack: Stack) -> list[str]:
    """One of English text and one of Chinese."""
    client = running_stack.client
    shipped = client.get("/api/v1/corpora", params={"owner": "shipped"}).json()["data"]
    by_file = {corpus["filename"]: corpus["id"] for corpus in shipped}
    ids = []
    for name in ("king-james-bible.txt", "small-talk-chinese.jsonl"):
        body = {"corpora": [by_file[name]], "vocab_size": 600, "sample_bytes": 100_000, "name": name}
        answer = client.post("/api/v1/tokenizers", json=body)
        assert answer.status_code in (201, 202), answer.text
        ids.append(answer.json()["id"])
    for tokenizer in ids:
        path = f"/api/v1/tokenizers/{tokenizer}"
        until(lambda path=path: client.get(path).json()["state"] == "ready", 120, "the tokenizer")  # type: ignore[misc]
    return ids


def fits(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
    page.set_viewport_size({"width": 1440, "height": 900})


@pytest.mark.parametrize("locale", WORDS)
def test_tokenizers_are_compared_side_by_side_by_keyboard(open_page: Open, tokenizers: list[str], locale: str) -> None:
    words = WORDS[locale]
    with open_page(f"/tokenizers/compare?tokenizers={'&tokenizers='.join(tokenizers)}", locale=locale) as page:
        until_started(page)
        cards = page.locator(".compared .card")
        expect(cards).to_have_count(2)
        left, right = (card.bounding_box() for card in cards.all())
        assert left is not None
        assert right is not None
        assert (left["y"], left["x"] < right["x"]) == (right["y"], True)
        fits(page)
        page.get_by_role("link", name=words["chinese"]).click()
        text = page.locator("textarea[name=text]").input_value()
        counts = []
        for card in cards.all():
            options = card.get_by_role("option")
            counts.append(options.count())
            assert sum(int(n) for n in options.evaluate_all("all => all.map((one) => one.dataset.bytes)")) == len(
                text.encode()
            )
            colors = options.evaluate_all("all => all.slice(0, 6).map((one) => getComputedStyle(one).backgroundColor)")
            assert len(set(colors)) == 5
            options.first.focus()
            page.keyboard.press("ArrowRight")
            expect(options.nth(1)).to_be_focused()
            detail = card.locator("[data-detail-line]")
            expect(detail).to_contain_text(words["token"])
            expect(detail).to_contain_text(str(options.nth(1).get_attribute("data-id")))
            page.keyboard.press("End")
            expect(options.last).to_be_focused()
            expect(detail).to_contain_text(str(options.last.get_attribute("data-id")))
            options.nth(2).click()
            expect(options.nth(2)).to_have_attribute("aria-selected", "true")
        assert counts[1] < counts[0], "the tokenizer of Chinese text needs fewer tokens"


def bars(page: Page) -> Any:
    return page.locator("[data-module=length-cut] rect.cut")


@pytest.mark.parametrize("locale", WORDS)
def test_the_lengths_of_a_corpus_are_cut_by_a_slider_and_its_text_is_searched(
    running_stack: Stack, open_page: Open, tokenizers: list[str], locale: str
) -> None:
    words, name = WORDS[locale], f"numbers-{locale}.jsonl"
    lines = "".join(f'{{"text": "Number {n} {"and more words " * n}"}}\n' for n in range(1, 60))
    answer = running_stack.client.post("/api/v1/corpora", params={"filename": name}, content=lines.encode())
    path = f"/corpora/{answer.json()['id']}"
    until(lambda: running_stack.client.get(f"/api/v1{path}").json()["state"] == "ready", 60, "the corpus")
    with open_page(path, locale=locale) as page:
        until_started(page)
        card = page.locator("#statistics")
        card.locator("select[name=tokenizer]").select_option(tokenizers[0])
        card.get_by_role("button", name=words["count"]).click()
        slider = card.get_by_label(words["slider"])
        slider.wait_for(timeout=MINUTE)
        until_started(page)
        slider.focus()
        page.keyboard.press("Home")
        sentence = card.locator("[data-length]:visible")
        expect(sentence).to_have_count(1)
        first, cut = sentence.inner_text(), bars(page).count()
        page.keyboard.press("ArrowRight")
        expect(sentence).not_to_have_text(first)
        assert bars(page).count() == cut - 1
        page.keyboard.press("End")
        expect(bars(page)).to_have_count(0)
        expect(sentence).to_contain_text(re.compile(r"\b0\.0 %"))
        search = page.locator("#search")
        search.get_by_role("searchbox").fill("NUMBER 42")
        page.keyboard.press("Enter")
        expect(search.locator("mark")).to_have_text("Number 42")
        search.get_by_role("link").first.click()
        expect(page.locator("#documents article").first).to_contain_text("Number 42")
        fits(page)
