"""The completion in a browser: models side by side, tokens and their alternatives, continuing and stopping."""

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open, newest_checkpoint
from tests.browser.test_accessibility import barriers
from tests.browser.test_chat import HOLD, MINUTE
from tests.stack import Stack

PROMPT = "In the beginning"


def texts(page: Page) -> Locator:
    """The texts of the newest row."""
    return page.locator(".row-of-texts").first.locator(".generation")


def models(page: Page) -> list[str]:
    return [select.input_value() for select in page.locator("[data-models] select").all()]


def generate(page: Page, count: int) -> None:
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_role("button", name="Generate").click()
    until_written(page, count)


def until_written(page: Page, count: int) -> None:
    expect(texts(page)).to_have_count(count)
    for text in texts(page).all():
        expect(text.locator("[data-status]")).to_contain_text("tokens/s", timeout=2 * MINUTE)


def test_a_tuned_model_and_its_base_continue_from_an_alternative_token(
    open_page: Open, running_stack: Stack, trained: str, chat_model: str
) -> None:
    with open_page(f"/playground?tab=completion&checkpoint={chat_model}") as page:
        page.set_default_timeout(240_000)
        assert models(page) == [chat_model, newest_checkpoint(running_stack, trained)]
        page.get_by_label("Tokens", exact=True).fill("8")
        page.get_by_label("Token probabilities").check()
        generate(page, 2)
        labels = texts(page).locator("[data-label]").all_inner_texts()
        assert labels[0].startswith("a talker")
        assert labels[1].startswith("a short job")

        start, alternative = choose_another_token(page)
        expect(page.locator(".row-of-texts")).to_have_count(2)
        until_written(page, 2)
        for text in texts(page).all():
            assert text.locator("[data-prompt]").text_content() == PROMPT + start + alternative
        assert barriers(page) == []

        continued = texts(page).last.locator("[data-text]").text_content()
        texts(page).last.get_by_role("button", name="Continue from here").click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value(str(continued))
        expect(page.locator(".row-of-texts")).to_have_count(2)


def choose_another_token(page: Page) -> tuple[str, str]:
    """Point at the second token of the first text and click its last alternative: what stands before it, and that."""
    output = texts(page).first.locator("[data-output]")
    output.locator(".token").nth(1).hover()
    expect(page.locator("#token-card button")).to_have_count(8)
    start = str(output.locator(".token").first.text_content())
    other = page.locator("#token-card button:not(:disabled)").last
    alternative = other.locator("span").first.inner_text().replace("␣", " ").replace("↵", "\n").replace("⇥", "\t")
    other.click()
    return start, alternative


def test_four_models_are_compared_and_one_of_them_removed(open_page: Open, chat_model: str) -> None:
    with open_page(f"/playground?tab=completion&checkpoint={chat_model}") as page:
        page.set_default_timeout(240_000)
        compare = page.get_by_role("button", name="Compare with another model")
        for count in (3, 4):
            compare.click()
            assert len(models(page)) == count
            expect(page.get_by_label(f"Model {count}", exact=True)).to_be_focused()
        expect(compare).to_be_hidden()
        page.get_by_label("Tokens", exact=True).fill("4")
        generate(page, 4)
        assert barriers(page) == []
        page.get_by_role("button", name="Remove this model").nth(1).click()
        expect(compare).to_be_focused()
        assert len(models(page)) == 3
        generate(page, 3)


def test_a_text_is_stopped_by_button_key_and_another_token(open_page: Open, chat_model: str) -> None:
    with open_page(f"/playground?tab=completion&checkpoint={chat_model}") as page:
        page.set_default_timeout(240_000)
        page.get_by_label("Token probabilities").check()
        page.get_by_label("Prompt", exact=True).fill(PROMPT)
        page.evaluate(HOLD)
        for row in (1, 2):
            page.get_by_role("button", name="Generate").click()
            expect(page.locator(".row-of-texts")).to_have_count(row)
            until_begun(page)
            if row == 1:
                page.get_by_role("button", name="Stop", exact=True).click()
            else:
                page.keyboard.press("Escape")
            until_stopped(texts(page))
        page.get_by_role("button", name="Generate").click()
        expect(page.locator(".row-of-texts")).to_have_count(3)
        until_begun(page)
        texts(page).first.locator(".token").first.hover()
        page.locator("#token-card button:not(:disabled)").last.click()
        expect(page.locator(".row-of-texts")).to_have_count(4)
        until_stopped(page.locator(".row-of-texts").nth(1).locator(".generation"))
        until_begun(page)


def until_begun(page: Page) -> None:
    for text in texts(page).all():
        expect(text.locator(".token").first).to_be_visible(timeout=2 * MINUTE)


def until_stopped(stopped: Locator) -> None:
    for text in stopped.all():
        expect(text.locator("[data-status]")).to_contain_text("stopped")
