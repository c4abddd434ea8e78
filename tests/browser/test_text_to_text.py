"""The tab of encoder-decoders in a browser: source and texts side by side, on a phone below each other."""

import math
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open, finished_job, newest_checkpoint
from tests.browser.test_accessibility import barriers
from tests.stack import Stack

MINUTE = 60_000
SOURCE = "In the beginning God created the heaven and the earth."


@pytest.fixture(scope="session")
def turner(running_stack: Stack, trained: str) -> str:
    """The ID of the last of two checkpoints of a T5."""
    more = {"max_steps": 4, "warmup_steps": 1, "save_steps": 2, "eval_steps": 4}
    corpora = ["00kingjamesbible"]
    job_id = finished_job(running_stack, recipe="tiny-t5", name="a translator", corpora=corpora, **more)
    return newest_checkpoint(running_stack, job_id)


def texts(page: Page) -> Locator:
    return page.locator(".beside-source .row-of-texts .generation")


def run(page: Page, count: int) -> None:
    page.locator("[name=prompt]").fill(SOURCE)
    page.locator("[data-run]").click()
    expect(texts(page)).to_have_count(count)
    for text in texts(page).all():
        expect(text.locator("[data-status]")).to_contain_text("/", timeout=2 * MINUTE)  # tokens per second


def test_texts_stand_beside_their_source(open_page: Open, turner: str) -> None:
    with open_page(f"/playground?checkpoint={turner}") as page:
        page.set_default_timeout(240_000)
        expect(page.locator(".tabs [aria-current]")).to_have_text("Text to text")
        page.locator("[data-run]").click()
        expect(page.locator("[data-field=prompt] .error")).to_have_text("Enter a text.")

        page.get_by_label("Tokens", exact=True).fill("12")
        page.get_by_label("Token probabilities").check()
        page.get_by_label("Task prefix").fill("summarize:")
        expect(page.locator("[data-body]")).to_contain_text('"prompt": "summarize:')
        page.get_by_role("button", name="Compare with another model").click()
        run(page, 2)

        source = page.locator(".beside-source [data-source]")
        expect(source.locator("[data-text]")).to_have_text(SOURCE)
        expect(source.locator("[data-prefix]")).to_have_text("summarize:")
        left, right = source.bounding_box(), texts(page).first.bounding_box()
        assert left
        assert right
        assert left["x"] + left["width"] <= right["x"]
        assert barriers(page) == []

        output = texts(page).first.locator("[data-output]").inner_text()
        texts(page).first.get_by_role("button", name="Use as the source").click()
        expect(page.locator("[name=prompt]")).to_have_value(output)


@pytest.mark.parametrize(("language", "theme"), [("en", "dark"), ("zh-CN", "light")])
def test_on_a_phone_a_text_stands_below_its_source(open_page: Open, turner: str, language: str, theme: str) -> None:
    phone = {"width": 390, "height": 844}
    path = f"/playground?checkpoint={turner}"
    with open_page(path, locale=language, color_scheme=theme, viewport=phone) as page:
        page.set_default_timeout(240_000)
        run(page, 1)
        upper, lower = page.locator("[data-source]").bounding_box(), texts(page).first.bounding_box()
        assert upper
        assert lower
        assert upper["y"] + upper["height"] <= lower["y"]
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert barriers(page) == []


def test_an_answer_without_text_says_so(open_page: Open, turner: str) -> None:
    with open_page(f"/playground?checkpoint={turner}") as page:
        page.set_default_timeout(240_000)
        page.locator("[name=token_probabilities]").check()
        page.locator("[name=max_tokens]").fill("1")
        page.locator("[name=logit_bias]").fill("0: 100")  # the token that ends a text
        run(page, 1)
        expect(texts(page).locator("[data-status]")).to_contain_text("no text")


@pytest.mark.parametrize(
    ("language", "theme", "name"), [("en", "light", "Probability of this token"), ("zh-CN", "dark", "此词元的概率")]
)
def test_a_token_shows_its_alternatives_by_pointer_and_by_keys(
    open_page: Open, running_stack: Stack, turner: str, language: str, theme: str, name: str
) -> None:
    body = {"checkpoint": turner, "prompt": SOURCE, "max_tokens": 4, "temperature": 2, "top_p": 1, "top_k": 0}

    def tokens_of(seed: int) -> list[dict[str, Any]]:
        """The tokens of a text, or none where some are no text of their own."""
        answer = running_stack.client.post("/api/v1/generate", json={**body, "seed": seed, "top_logprobs": 8}).json()
        is_plain = answer["text"] == "".join(token["text"] for token in answer["tokens"])
        return list(answer["tokens"]) if is_plain and "\ufffd" not in answer["text"] else []

    seed, first = next((seed, tokens[0]) for seed in range(50) if len(tokens := tokens_of(seed)) == 4)
    with open_page(f"/playground?checkpoint={turner}", locale=language, color_scheme=theme) as page:
        page.set_default_timeout(240_000)
        page.locator("[name=token_probabilities]").check()
        page.locator("[name=random_seed]").uncheck()
        for name_of_field, value in (("max_tokens", 4), ("temperature", 2), ("seed", seed)):
            page.locator(f"[name={name_of_field}]").fill(str(value))
        run(page, 1)

        tokens, card = texts(page).locator(".token"), page.get_by_role("group", name=name)
        tokens.first.hover()
        assert shown(card) == [(visible(token["text"]), percent(token)) for token in first["top"]]
        assert float(card.locator("[data-percent]").inner_text().rstrip("%")) == percent(first)
        expect(card.locator("button:disabled")).to_have_count(8)  # the text does not continue its source
        assert barriers(page) == []
        page.mouse.move(0, 0)
        expect(card).to_be_hidden()

        texts(page).locator("[data-output]").focus()
        for key, number in (("ArrowRight", 0), ("ArrowRight", 1), ("ArrowLeft", 0)):
            page.keyboard.press(key)
            expect(card).to_be_visible()
            expect(texts(page).locator(".token.current")).to_have_attribute("data-index", str(number))
        assert len(shown(card)) == 8
        page.keyboard.press("Escape")
        expect(card).to_be_hidden()
        expect(texts(page).locator("[data-output]")).to_be_focused()


def test_tokens_that_are_no_text_are_seen(open_page: Open, running_stack: Stack, turner: str) -> None:
    body = {"checkpoint": turner, "prompt": SOURCE, "max_tokens": 1, "seed": 1, "top_logprobs": 20}
    answer = running_stack.client.post("/api/v1/generate", json=body).raise_for_status().json()
    sentinel = next(token["id"] for token in answer["tokens"][0]["top"] if token["text"].startswith("<extra_id_"))
    with open_page(f"/playground?checkpoint={turner}") as page:
        page.set_default_timeout(240_000)
        page.locator("[name=token_probabilities]").check()
        page.locator("[name=max_tokens]").fill("1")
        page.locator("[name=logit_bias]").fill(f"{sentinel}: 100")
        run(page, 1)
        expect(texts(page).locator("[data-status]")).to_contain_text("no text")
        texts(page).locator(".token").hover()
        expect(page.locator("#token-card")).to_be_visible()


def shown(card: Locator) -> list[tuple[str, Any]]:
    """The tokens of the card with their probabilities in percent."""
    expect(card).to_be_visible()
    rows = [button.locator("span").all_inner_texts() for button in card.locator("button").all()]
    return [(text, float(share.rstrip("%"))) for text, share in rows]


def visible(text: str) -> str:
    """A token as the card shows it."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "∅"


def percent(token: dict[str, Any]) -> Any:
    """The probability of a token in percent, as exactly as the card shows it."""
    share = 100 * math.exp(token["logprob"])
    digits = 0 if share >= 10 else 1 if share >= 0.1 else 3
    return pytest.approx(share, abs=0.51 * 10**-digits)


def test_a_text_is_scored_as_the_answer_to_its_source(open_page: Open, running_stack: Stack, turner: str) -> None:
    body = {"checkpoint": turner, "source": SOURCE, "text": "The cat sat on the mat", "top_k": 8}
    answer = running_stack.client.post("/api/v1/inspect/score", json=body).raise_for_status().json()
    with open_page(f"/learn/predict?checkpoint={turner}") as page:
        panel = page.locator("[data-view=score]")
        expect(panel.get_by_role("option")).to_have_count(len(answer["tokens"]), timeout=2 * MINUTE)
        panel.get_by_label("Source text").fill(SOURCE)
        page.get_by_role("button", name="Compute").click()
        bits = -answer["tokens"][0]["log_prob"] / math.log(2)
        expect(panel.locator("[data-detail]")).to_contain_text(
            f"{bits:.1f} bits · rank {answer['tokens'][0]['rank']:,}"
        )
        expect(page.locator(".finding:visible")).to_contain_text(f"Tokens that were scored: {len(answer['tokens'])};")
        assert barriers(page) == []
        decoder = page.locator("option[data-tasks~=score]:not([data-turns-text])").first.get_attribute("value")
        page.get_by_label("Model", exact=True).select_option(decoder)
        expect(panel.get_by_label("Source text")).to_be_hidden()
