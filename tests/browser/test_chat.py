"""The chat of the playground in a browser: models side by side, versions, stopping, sharing and searching."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open, until_started
from tests.browser.test_accessibility import barriers
from tests.stack import Stack

MINUTE = 60_000
CHAT = "/playground?tab=chat"
# An answer that stays unfinished: what comes after its first text is held back.
HOLD = """() => {
  const send = window.fetch;
  window.fetch = async (url, options) => {
    const answer = await send(url, options);
    if (!String(url).endsWith("/generate")) return answer;
    const reader = answer.body.getReader();
    const body = new ReadableStream({
      async start(controller) {
        options.signal.addEventListener("abort", () => controller.error(options.signal.reason));
        for (let text = ""; !text.includes("event: piece"); ) {
          const { value } = await reader.read();
          text += new TextDecoder().decode(value);
          controller.enqueue(value);
        }
      },
    });
    return new Response(body, { headers: answer.headers });
  };
}"""


def columns(page: Page) -> Locator:
    return page.locator("[data-column]")


def answers(page: Page, column: int) -> Locator:
    return columns(page).nth(column).locator(".turn.assistant")


def limit_tokens(page: Page, number: int) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Tokens", exact=True).fill(str(number))
    page.get_by_role("button", name="Settings").click()


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Enter")


def until_answered(page: Page, count: int, column: int = 0) -> None:
    expect(answers(page, column)).to_have_count(count, timeout=2 * MINUTE)
    expect(answers(page, column).last.locator("[data-meta]")).to_contain_text("tokens/s", timeout=2 * MINUTE)
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible(timeout=2 * MINUTE)


def test_a_tuned_model_and_its_base_answer_side_by_side(open_page: Open, chat_model: str) -> None:
    with open_page(f"/playground?checkpoint={chat_model}") as page:
        page.set_default_timeout(240_000)
        expect(columns(page)).to_have_count(2)
        expect(columns(page).nth(1).get_by_text("This model has no chat template.")).to_be_visible()
        limit_tokens(page, 12)
        ask(page, "What is the capital of Italy?")
        until_answered(page, 1, 0)
        until_answered(page, 1, 1)
        assert barriers(page) == []
        answer_again_and_switch_between_versions(page)
        edit_the_question_from_the_keyboard(page)
        share_and_search(page)


def answer_again_and_switch_between_versions(page: Page) -> None:
    first = answers(page, 0).locator("[data-content]").inner_text()
    answers(page, 0).get_by_role("button", name="Answer again").click()
    versions = answers(page, 0).locator("[data-place]")
    expect(versions).to_have_text("3/3", timeout=2 * MINUTE)  # the other model's answer is a version, too
    answers(page, 0).get_by_role("button", name="Previous version").click()
    expect(versions).to_have_text("2/3")
    answers(page, 0).get_by_role("button", name="Previous version").click()
    expect(versions).to_have_text("1/3")
    texts = {first, answers(page, 1).locator("[data-content]").inner_text()}
    assert answers(page, 0).locator("[data-content]").inner_text() in texts


def edit_the_question_from_the_keyboard(page: Page) -> None:
    page.get_by_label("Your message").focus()
    page.keyboard.press("ArrowUp")
    editor = columns(page).first.locator(".turn.user").get_by_label("Text of the message")
    expect(editor).to_be_focused()
    expect(editor).to_have_value("What is the capital of Italy?")
    editor.press("End")
    editor.type(" And of France?")
    editor.press("Enter")
    for column in (0, 1):  # one question for both models
        question = columns(page).nth(column).locator(".turn.user")
        expect(question.locator("[data-content]")).to_have_text("What is the capital of Italy? And of France?")
        expect(question.locator("[data-place]")).to_have_text("2/2")
        until_answered(page, 1, column)
    columns(page).first.locator(".turn.user").get_by_role("button", name="Previous version").click()
    expect(columns(page).first.locator(".turn.user [data-content]")).to_have_text("What is the capital of Italy?")
    page.reload()
    until_started(page)
    expect(columns(page).first.locator(".turn.user [data-content]")).to_have_text("What is the capital of Italy?")
    expect(columns(page).nth(1).locator(".turn.user [data-content]")).to_contain_text("And of France?")


def share_and_search(page: Page) -> None:
    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name="Make a link").click()
    link = page.locator("[data-share-link]")
    expect(link).to_be_visible()
    assert barriers(page) == []
    address = str(link.get_attribute("href"))
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_label("Search conversations").fill("of FRANCE")
    entry = page.locator("[data-history] a")
    expect(entry).to_have_count(1)
    expect(entry).to_contain_text("And of France?")
    page.get_by_label("Search conversations").fill("nobody said this")
    expect(page.get_by_text("No conversation contains this text.")).to_be_visible()
    page.goto(address)
    expect(page.get_by_role("heading", level=1)).to_have_text("What is the capital of Italy?")
    expect(page.locator(".column")).to_have_count(2)
    assert barriers(page) == []


def test_escape_stops_an_answer_and_keeps_what_was_written(open_page: Open, chat_model: str) -> None:
    with open_page(f"{CHAT}&checkpoint={chat_model}") as page:
        page.set_default_timeout(240_000)
        columns(page).nth(1).get_by_role("button", name="Remove this model").click()
        page.evaluate(HOLD)
        ask(page, "Count to a million.")
        expect(answers(page, 0).locator("[data-content]")).not_to_be_empty(timeout=2 * MINUTE)
        page.keyboard.press("Escape")
        expect(answers(page, 0).locator("[data-meta]")).to_contain_text("stopped")
        expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
        text = answers(page, 0).locator("[data-content]").inner_text()
        expect(page.locator("[data-history] [aria-current]")).to_have_count(1)  # the list is loaded after the answer
        page.reload()
        expect(answers(page, 0).locator("[data-content]")).to_have_text(text.strip())


def test_the_colors_of_tokens_are_kept_and_shared(open_page: Open, chat_model: str) -> None:
    with open_page(f"{CHAT}&checkpoint={chat_model}") as page:
        page.set_default_timeout(240_000)
        columns(page).nth(1).get_by_role("button", name="Remove this model").click()
        limit_tokens(page, 8)
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("Token probabilities").check()
        ask(page, "What is the capital of Italy?")
        until_answered(page, 1)
        expect(page.locator("[data-history] [aria-current]")).to_have_count(1)
        colors = surprises(answers(page, 0))
        assert len(colors) >= 4

        page.reload()
        until_started(page)
        expect(answers(page, 0).locator(".token")).to_have_count(len(colors))
        assert surprises(answers(page, 0)) == colors
        answers(page, 0).locator(".token").nth(1).hover()
        expect(page.locator("#token-card button")).to_have_count(8)
        assert barriers(page) == []
        page.locator("#token-card button:not(:disabled)").last.click()
        expect(answers(page, 0).locator("[data-place]")).to_have_text("2/2", timeout=2 * MINUTE)

        page.get_by_role("button", name="Share").click()
        page.get_by_role("button", name="Make a link").click()
        expect(page.locator("[data-share-link]")).to_be_visible()
        page.goto(str(page.locator("[data-share-link]").get_attribute("href")))
        until_started(page)
        assert surprises(page.locator(".turn.assistant"))
        page.locator(".turn.assistant .token").first.hover()
        expect(page.locator("#token-card button:disabled")).to_have_count(8)
        assert barriers(page) == []


def surprises(turn: Locator) -> list[str | None]:
    """The color of each token."""
    return [token.get_attribute("data-surprise") for token in turn.locator(".token").all()]


def test_a_conversation_is_renamed_and_deleted(open_page: Open, chat_model: str, running_stack: Stack) -> None:
    row = running_stack.client.post("/api/v1/conversations", json={"title": "Old name"}).json()
    with open_page(f"{CHAT}&conversation={row['id']}") as page:
        page.set_default_timeout(240_000)
        page.get_by_role("button", name="Rename", exact=True).click()
        page.get_by_label("Title", exact=True).fill("New name")
        page.get_by_label("Title", exact=True).press("Enter")
        expect(page.get_by_role("heading", name="New name")).to_be_visible()
        expect(page.locator("[data-history] [aria-current]")).to_contain_text("New name")
        page.get_by_role("button", name="Delete the conversation").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
        page.wait_for_url("**/playground?tab=chat")
        expect(page.locator("[data-history]")).not_to_contain_text("New name")


def test_settings_are_kept_and_saved_as_a_preset(open_page: Open, chat_model: str) -> None:
    with open_page(CHAT) as page:
        page.set_default_timeout(240_000)
        page.get_by_role("button", name="Settings").click()
        preset = page.get_by_label("Preset", exact=True)
        expect(preset).to_have_value("balanced")
        preset.select_option("precise")
        expect(page.get_by_label("Temperature", exact=True)).to_have_value("0.2")
        page.get_by_label("Temperature", exact=True).fill("0.3")
        expect(preset).to_have_value("")
        page.get_by_role("button", name="Save…").click()
        page.get_by_label("Name", exact=True).fill("Mild")
        page.get_by_label("Name", exact=True).press("Enter")
        expect(preset.locator("option:checked")).to_have_text("Mild")
        page.reload()
        until_started(page)
        page.get_by_role("button", name="Settings").click()
        expect(page.get_by_label("Preset", exact=True).locator("option:checked")).to_have_text("Mild")
        assert barriers(page) == []


@pytest.mark.parametrize(("language", "theme"), [("en", "dark"), ("zh-CN", "light")])
def test_a_phone_shows_one_model_at_a_time(open_page: Open, chat_model: str, language: str, theme: str) -> None:
    phone = {"width": 390, "height": 844}
    with open_page(f"{CHAT}&checkpoint={chat_model}", locale=language, color_scheme=theme, viewport=phone) as page:
        page.set_default_timeout(240_000)
        expect(columns(page).first).to_be_visible()
        expect(columns(page).nth(1)).to_be_hidden()
        page.locator("[data-switch] button").nth(1).click()
        expect(columns(page).nth(1)).to_be_visible()
        expect(columns(page).first).to_be_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert barriers(page) == []
        for panel in ("history", "settings"):
            page.locator(f"[data-toggle={panel}]").click()
            expect(page.locator(f"[data-panel={panel}]")).to_be_visible()
            assert barriers(page) == []
            page.keyboard.press("Escape")
            expect(page.locator(f"[data-panel={panel}]")).to_be_hidden()


def test_a_chat_says_when_the_connection_is_lost(open_page: Open, chat_model: str) -> None:
    with open_page(f"{CHAT}&checkpoint={chat_model}") as page:
        page.set_default_timeout(240_000)
        page.context.set_offline(True)
        expect(page.get_by_text("You are offline.")).to_be_visible()
        ask(page, "Are you there?")
        expect(page.get_by_text("The connection was lost.")).to_be_visible()
        expect(page.get_by_label("Your message")).to_have_value("Are you there?")
        page.context.set_offline(False)
        expect(page.get_by_text("You are offline.")).to_be_hidden()
