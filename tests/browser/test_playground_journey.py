"""The way through a chat, wide by mouse and narrow by touch: two models, tokens, another answer, another question, a
link; and how the playground shows that a model is being opened.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open, until_started
from tests.browser.test_accessibility import barriers
from tests.browser.test_chat import CHAT, MINUTE, answers, ask, columns, limit_tokens, until_answered
from tests.stack import Stack

Press = Callable[[Locator], None]

# Loading that stands at 42 % until the test calls `proceed`.
LOADING = r"""() => {
  const send = window.fetch;
  window.fetch = async (url, options) => {
    if (!String(url).endsWith("/generate")) return send(url, options);
    const body = new ReadableStream({
      start(controller) {
        const events = 'event: start\ndata: {"seed": 7}\n\nevent: loading\ndata: {"percent": 42}\n\n';
        controller.enqueue(new TextEncoder().encode(events));
        window.proceed = async () => {
          const reader = (await send(url, options)).body.getReader();
          for (let part = await reader.read(); !part.done; part = await reader.read()) controller.enqueue(part.value);
          controller.close();
        };
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  };
}"""


@pytest.mark.parametrize(("width", "language"), [(1440, "en"), (390, "zh-CN")])
def test_two_models_answer_and_the_conversation_continues_from_a_token_and_another_question(
    open_page: Open, chat_model: str, width: int, language: str
) -> None:
    is_narrow = width < 1000
    press: Press = Locator.tap if is_narrow else Locator.click
    viewport = {"width": width, "height": 844}
    path = f"/playground?checkpoint={chat_model}"
    with open_page(path, locale=language, viewport=viewport, has_touch=is_narrow) as page:
        page.set_default_timeout(240_000)
        assert page.locator("html").get_attribute("lang") == language
        expect(columns(page)).to_have_count(2)
        press(page.locator("[data-toggle=settings]"))
        page.locator("[name=max_tokens]").fill("8")
        page.locator("[name=token_probabilities]").check()
        assert barriers(page) == []
        press(page.locator("[data-close-panel=settings]" if is_narrow else "[data-toggle=settings]"))

        page.locator("[name=question]").fill("What is the capital of Italy?")
        press(page.locator("button[data-send]"))
        until_both_answered(page)
        assert barriers(page) == []

        token = answers(page, 0).locator(".token").nth(1)
        if is_narrow:
            token.tap()
        else:
            token.hover()
        card = page.locator("#token-card")
        expect(card.locator("button")).to_have_count(8)
        assert barriers(page) == []
        expect(card).to_be_visible()
        press(card.locator("button:not(:disabled)").last)
        expect(answers(page, 0).locator("[data-place]")).to_have_text("3/3", timeout=2 * MINUTE)
        expect(card).to_be_hidden()

        press(columns(page).first.locator(".turn.user [data-action=edit]"))
        columns(page).first.locator(".turn.user textarea").fill("What is the capital of France?")
        press(columns(page).first.locator(".turn.user [data-save-edit]"))
        expect(columns(page).first.locator(".turn.user [data-place]")).to_have_text("2/2")
        until_both_answered(page)
        assert barriers(page) == []

        press(page.locator("[data-dialog=share-conversation]"))
        press(page.locator("button[data-share]"))
        expect(page.locator("[data-share-link]")).to_be_visible()
        assert barriers(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.goto(str(page.locator("[data-share-link]").get_attribute("href")))
        until_started(page)
        expect(page.locator(".column")).to_have_count(2)
        expect(page.get_by_text("What is the capital of France?").first).to_be_visible()
        assert barriers(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width


def until_both_answered(page: Page) -> None:
    """Also of a column that the narrow page hides: its text is there."""
    for column in (0, 1):
        expect(answers(page, column)).to_have_count(1)
        expect(answers(page, column).locator("[data-meta]")).to_contain_text("/", timeout=2 * MINUTE)
    expect(page.locator("button[data-send] [data-when=idle]")).to_be_visible()


@pytest.mark.parametrize("tab", ["chat", "completion"])
def test_the_playground_shows_how_far_a_model_is_loaded(open_page: Open, chat_model: str, tab: str) -> None:
    with open_page(f"/playground?tab={tab}&checkpoint={chat_model}") as page:
        page.set_default_timeout(240_000)
        page.get_by_role("button", name="Remove this model").last.click()
        page.evaluate(LOADING)
        if tab == "chat":
            ask(page, "Are you there?")
        else:
            page.get_by_role("button", name="Generate").click()
        bar = page.get_by_role("progressbar", name="Opening the model…")
        expect(bar).to_have_js_property("value", 42)
        expect(page.get_by_text("Opening the model… 42 %")).to_be_visible()
        assert barriers(page) == []
        page.evaluate("proceed()")
        expect(page.get_by_text("tokens/s")).to_be_visible(timeout=2 * MINUTE)
        expect(bar).to_be_hidden()


def test_an_answer_is_copied_downloaded_as_a_record_and_saved_as_a_corpus(
    open_page: Open, running_stack: Stack, chat_model: str, tmp_path: Path
) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with open_page(f"{CHAT}&checkpoint={chat_model}", permissions=permissions) as page:
        page.set_default_timeout(240_000)
        columns(page).nth(1).get_by_role("button", name="Remove this model").click()
        limit_tokens(page, 8)
        ask(page, "Which word means the opposite of hot?")
        until_answered(page, 1)
        turn = answers(page, 0)
        text = str(turn.locator("[data-content]").text_content())

        turn.get_by_role("button", name="Copy", exact=True).click()
        expect(turn.locator("[data-meta]")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == text

        messages = [
            {"role": "user", "content": "Which word means the opposite of hot?"},
            {"role": "assistant", "content": text},
        ]
        with page.expect_download() as download:
            turn.get_by_role("button", name="Download as a training record").click()
        assert download.value.suggested_filename == "Which-word-means-the-opposite-of-hot.jsonl"
        download.value.save_as(tmp_path / "record.jsonl")
        assert json.loads((tmp_path / "record.jsonl").read_text())["messages"] == messages

        turn.get_by_role("button", name="Save as a corpus to train on").click()
        notice = page.locator("[data-notice]")
        expect(notice).to_contain_text("Saved as the corpus “Which-word-means-the-opposite-of-hot”.")
        listed = running_stack.client.get("/api/v1/corpora", params={"q": "Which-word-means"}).json()["data"]
        assert [corpus["name"] for corpus in listed] == ["Which-word-means-the-opposite-of-hot"]
        assert barriers(page) == []
