"""Looking inside a model in the browser, and the pages of Learn: figures, pickers, keys and tables."""

import math
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.stack import Stack

TEXT = "The cat sat on the mat"


@pytest.fixture(scope="session")
def checkpoint(running_stack: Stack, trained: str) -> str:
    """The ID of the last checkpoint of the short job."""
    listing = running_stack.client.get("/api/v1/checkpoints", params={"job": trained}).json()
    return str(listing["data"][0]["id"])


def asked(stack: Stack, task: str, **body: Any) -> Any:
    answer = stack.client.post(f"/api/v1/inspect/{task}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def look(page: Page, view: str) -> None:
    page.locator(".views label", has_text=view).click()
    page.locator(".compose").get_by_role("button", name="Look inside").click()


def figures(page: Page, view: str) -> dict[str, str]:
    stats = page.locator(f"[data-view={view}] [data-stat]")
    return {str(stat.get_attribute("data-stat")): stat.inner_text() for stat in stats.all()}


def test_the_score_of_a_text_is_shown_by_token(open_page: Open, running_stack: Stack, checkpoint: str) -> None:
    answer = asked(running_stack, "score", checkpoint=checkpoint, text=TEXT, top_k=8)
    with open_page(f"/playground/inspect?checkpoint={checkpoint}") as page:
        look(page, "Score")
        panel = page.locator("[data-view=score]")
        tokens = panel.get_by_role("option")
        expect(tokens).to_have_count(len(answer["tokens"]))
        assert float(figures(page, "score")["perplexity"]) == pytest.approx(answer["perplexity"], rel=1e-3)
        tokens.nth(2).click()
        expect(panel.locator("[data-detail]")).to_contain_text(f"rank {answer['tokens'][2]['rank']:,}")
        expect(panel.locator(".bars li")).to_have_count(8)
        page.keyboard.press("ArrowRight")
        expect(tokens.nth(3)).to_be_focused()
        expect(tokens.nth(3)).to_have_attribute("aria-selected", "true")
        bits = -answer["tokens"][3]["log_prob"] / math.log(2)
        expect(panel.locator("[data-detail]")).to_contain_text(f"{bits:.1f} bits")


def test_bytes_that_form_no_character_are_named(open_page: Open, checkpoint: str) -> None:
    with open_page(f"/playground/inspect?checkpoint={checkpoint}") as page:
        page.locator(".compose").get_by_label("Text", exact=True).fill("a 床")
        look(page, "Score")
        tokens = page.locator("[data-view=score]").get_by_role("option")
        expect(tokens.filter(has_text="<0x")).to_have_text(["<0xE5>", "<0xBA>", "<0x8A>"])


def test_attention_is_read_by_mouse_keys_and_table(open_page: Open, running_stack: Stack, checkpoint: str) -> None:
    answer = asked(running_stack, "attention", checkpoint=checkpoint, text=TEXT, layer=1)
    last = len(answer["tokens"]) - 1
    with open_page(f"/playground/inspect?checkpoint={checkpoint}") as page:
        look(page, "Attention")
        panel = page.locator("[data-view=attention]")
        expect(panel.get_by_role("button", name="Head 2")).to_be_visible()
        panel.locator("[data-layer]").select_option("1")
        expect(panel).to_have_attribute("aria-busy", "false")
        panel.get_by_role("button", name="Head 2").click()
        cell = panel.locator(f"rect.cell[data-at='{last} 1']")
        cell.scroll_into_view_if_needed()
        cell.hover(force=True)
        weight = answer["weights"][1][last][1]
        expect(panel.locator("[data-detail]")).to_contain_text(f"weight {weight:.4f}")
        panel.locator("[data-map]").focus()
        page.keyboard.press("ArrowRight")
        expect(panel.locator("[data-detail]")).to_contain_text(f"weight {answer['weights'][1][last][2]:.4f}")
        assert panel.locator("rect.masked").count() == last * (last + 1) / 2
        panel.locator("summary").click()
        cells = panel.locator("tbody tr").nth(last).locator("td").all_inner_texts()
        assert [float(text) for text in cells] == pytest.approx(answer["weights"][1][last], abs=1e-4)


def test_neighbors_follow_the_token_that_is_chosen(open_page: Open, running_stack: Stack, checkpoint: str) -> None:
    answer = asked(running_stack, "neighbors", checkpoint=checkpoint, text=TEXT, position=0, top_k=12)
    with open_page(f"/playground/inspect?checkpoint={checkpoint}") as page:
        look(page, "Neighbors")
        panel = page.locator("[data-view=neighbors]")
        panel.get_by_role("option").first.click()
        expect(panel.locator(".bars .value").first).to_have_text(f"{answer['neighbors'][0]['similarity']:.3f}")
        expect(panel.get_by_role("option").first).to_have_attribute("aria-selected", "true")


def test_a_model_offers_the_views_of_its_family(open_page: Open, checkpoint: str, base_model: str) -> None:
    with open_page(f"/playground/inspect?checkpoint={base_model}") as page:
        views = [text.strip() for text in page.locator(".views label:visible").all_inner_texts()]
        assert "Score" not in views
        assert "Attention" in views
        page.get_by_label("Model", exact=True).select_option(checkpoint)
        expect(page.locator(".views label", has_text="Score")).to_be_visible()


def test_a_refusal_stands_at_its_field(open_page: Open, checkpoint: str) -> None:
    with open_page(f"/playground/inspect?checkpoint={checkpoint}") as page:
        page.get_by_label("Text", exact=True).fill("word " * 300)
        look(page, "Attention")
        expect(page.locator("[data-field=text] .error")).to_contain_text("the limit here is 64")


def test_each_page_of_learn_shows_the_figures_of_the_model(
    open_page: Open, running_stack: Stack, checkpoint: str
) -> None:
    tokens = asked(running_stack, "tokenize", checkpoint=checkpoint, text=TEXT)
    score = asked(running_stack, "score", checkpoint=checkpoint, text=TEXT)
    with open_page(f"/learn/tokenize?checkpoint={checkpoint}") as page:
        finding = page.locator(".finding:visible")
        expect(finding).to_contain_text(f"in tokens: {len(tokens['tokens'])};")
        for title in ("Embed", "Attend", "Predict"):
            page.get_by_role("link", name=f"Next: {title}").click()
            expect(page.get_by_role("heading", level=1)).to_have_text(title)
            finding.wait_for()
        perplexity = float(re.findall(r"a perplexity of ([\d.]+)", finding.inner_text())[0].rstrip("."))
        assert perplexity == pytest.approx(score["perplexity"], rel=1e-3)
        assert checkpoint in page.url


def test_the_page_on_training_draws_the_curve_of_the_job(
    open_page: Open, running_stack: Stack, checkpoint: str, trained: str
) -> None:
    metrics = running_stack.client.get(f"/api/v1/jobs/{trained}/metrics", params={"series": "loss"}).json()
    first = metrics["series"]["loss"]["values"][0]
    with open_page(f"/learn/train?checkpoint={checkpoint}") as page:
        page.locator("[data-chart=loss] [data-readout] .key").first.wait_for()
        expect(page.locator("[data-when=steps]")).to_contain_text("Steps of this run: 20;")
        expect(page.locator("[data-when=uniform]")).to_contain_text(f"This one began at {float(f'{first:.4g}')}.")
        assert page.locator("[data-job-link]").get_attribute("href") == f"/jobs/{trained}"
