"""Looking inside a model in the browser, and the pages of Learn: figures, pickers, keys and tables."""

import json
import math
import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open, finished_job, newest_checkpoint
from tests.browser.test_accessibility import barriers
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


@pytest.mark.usefixtures("trained")  # by then there is a corpus
def test_masks_are_filled_with_what_the_model_expects(open_page: Open, running_stack: Stack) -> None:
    more = {"max_steps": 4, "warmup_steps": 1, "save_steps": 4, "eval_steps": 4, "corpora": ["00kingjamesbible"]}
    masked = newest_checkpoint(running_stack, finished_job(running_stack, recipe="tiny-bert", name="masks", **more))
    text = "The [MASK] sat on the [MASK]"
    answer = asked(running_stack, "fill-mask", checkpoint=masked, text=text, top_k=8)
    with open_page(f"/playground/inspect?checkpoint={masked}") as page:
        page.locator(".compose").get_by_label("Text", exact=True).fill(text)
        look(page, "Fill masks")
        panel = page.locator("[data-view=fill_mask]")
        expect(panel.get_by_role("heading")).to_have_text(["Mask 1", "Mask 2"])
        for place, mask in zip(panel.locator(".bars").all(), answer["masks"], strict=True):
            assert bars(place) == [(shown(one["text"]), percent(one["probability"])) for one in mask["top"]]
        assert barriers(page) == []


def test_texts_are_compared_by_their_vectors(open_page: Open, running_stack: Stack, checkpoint: str) -> None:
    answer = asked(running_stack, "embed", checkpoint=checkpoint, texts=[TEXT, "In the beginning"])
    with open_page(f"/playground/inspect?checkpoint={checkpoint}") as page:
        look(page, "Similarity")
        page.get_by_label("A second text").fill("In the beginning")
        page.locator(".compose").get_by_role("button", name="Look inside").click()
        panel = page.locator("[data-view=embed]")
        expect(panel.locator("[data-stat=similarity]")).to_have_text(f"{answer['similarity'][0][1]:.3f}")
        for line, vector in zip(panel.locator("[data-vectors] li").all(), answer["embeddings"], strict=True):
            expect(line).to_contain_text(", ".join(f"{value:.3f}" for value in vector[:6]))
        assert barriers(page) == []


def test_a_classifier_says_how_probable_each_label_is(open_page: Open, running_stack: Stack, classifier: str) -> None:
    answer = asked(running_stack, "classify", checkpoint=classifier, text=TEXT)
    with open_page(f"/playground/inspect?checkpoint={classifier}") as page:
        look(page, "Classify")
        panel = page.locator("[data-view=classify]")
        expect(panel.locator(".bars li")).to_have_count(2)
        assert bars(panel) == [(one["label"], percent(one["probability"])) for one in answer["labels"]]
        assert barriers(page) == []


@pytest.fixture(scope="session")
def classifier(running_stack: Stack) -> str:
    """The ID of a checkpoint that tells two labels apart."""
    client = running_stack.client
    lines = [json.dumps({"text": f"{mood} {n}", "label": mood}) for mood in ("glad", "sad") for n in range(40)]
    parameters = {"filename": "moods.jsonl", "kind": "classification"}
    answer = client.post("/api/v1/corpora", params=parameters, content="\n".join(lines)).raise_for_status()
    more = {"max_steps": 4, "warmup_steps": 1, "save_steps": 4, "eval_steps": 4}
    job_id = finished_job(running_stack, recipe="classifier", name="moods", corpora=[answer.json()["id"]], **more)
    return newest_checkpoint(running_stack, job_id)


def bars(place: Locator) -> list[tuple[str, Any]]:
    """The names of bars with their values in percent."""
    names, values = place.locator(".name").all_inner_texts(), place.locator(".value").all_inner_texts()
    return [(name, float(value.rstrip("%"))) for name, value in zip(names, values, strict=True)]


def shown(text: str) -> str:
    """A token as a strip shows it."""
    return text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")


def percent(share: float) -> Any:
    """A probability in percent, as exactly as bars show it."""
    digits = 0 if share >= 0.1 else 1 if share >= 0.001 else 3
    return pytest.approx(100 * share, abs=0.51 * 10**-digits)


LANGUAGES = pytest.mark.parametrize("language", ["en", "zh-CN"])


def sentence(finding: Locator) -> dict[str, str]:
    """The figures of a sentence by their names in the template that the page has for its language."""
    template, names = str(finding.get_attribute("data-sentence")), set[str]()

    def group(place: re.Match[str]) -> str:
        name = place[1]
        is_repeated = name in names
        names.add(name)
        return f"(?P={name})" if is_repeated else f"(?P<{name}>.+?)"

    pattern = re.sub(r"\\{(\w+)\\}", group, re.escape(template))
    match = re.fullmatch(pattern, str(finding.text_content()).strip())
    assert match, (pattern, finding.text_content())
    return match.groupdict()


@LANGUAGES
def test_each_page_of_learn_shows_the_figures_of_the_model(
    open_page: Open, running_stack: Stack, checkpoint: str, language: str
) -> None:
    tokens = asked(running_stack, "tokenize", checkpoint=checkpoint, text=TEXT)
    score = asked(running_stack, "score", checkpoint=checkpoint, text=TEXT)
    with open_page(f"/learn/tokenize?checkpoint={checkpoint}", locale=language) as page:
        finding = page.locator(".finding:visible")
        finding.wait_for()
        assert sentence(finding)["num_tokens"] == str(len(tokens["tokens"]))
        for lesson in ("embed", "attend", "predict"):
            page.locator(f"main a[href^='/learn/{lesson}?']").last.click()
            page.wait_for_url(f"**/learn/{lesson}?**")
            finding.wait_for()
            assert page.locator("html").get_attribute("lang") == language
        figures = sentence(finding)
        assert float(figures["perplexity"]) == pytest.approx(score["perplexity"], rel=1e-3)
        assert figures["num_scored"] == str(score["num_scored"])
        assert checkpoint in page.url


@LANGUAGES
def test_the_page_on_training_draws_the_curve_of_the_job(
    open_page: Open, running_stack: Stack, checkpoint: str, trained: str, language: str
) -> None:
    metrics = running_stack.client.get(f"/api/v1/jobs/{trained}/metrics", params={"series": "loss"}).json()
    first = metrics["series"]["loss"]["values"][0]
    with open_page(f"/learn/train?checkpoint={checkpoint}", locale=language) as page:
        page.locator("[data-chart=loss] [data-readout] .key").first.wait_for()
        expect(page.locator("[data-when=steps]")).to_contain_text("20")
        assert sentence(page.locator("[data-when=steps]"))["steps"] == "20"
        assert float(sentence(page.locator("[data-when=uniform]"))["first"]) == float(f"{first:.4g}")
        assert page.locator("[data-job-link]").get_attribute("href") == f"/jobs/{trained}"
