"""The form of a new job in a browser: every option shows a plan, or the errors that its submission would show."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, until_started

FORM = "/jobs/new?corpus=00kingjamesbible"
SUBMIT = """async () => {
  const form = document.getElementById("job-form");
  const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return [...page.querySelectorAll("#job-form .error")].map((line) => line.textContent.trim());
}"""
OPTIONS = """() => [...document.querySelectorAll("#job-form select[name]")]
  .filter((select) => select.name !== "proposal_seconds")
  .map((select) => [select.name, [...select.options].map((option) => option.value)])"""


def choose(page: Page, name: str, value: str) -> None:
    """Choose an option, also in a closed group, and wait for the form that the server returns."""
    with page.expect_response("**/jobs/plan") as answer:
        page.locator(f"#job-form select[name={name}]").select_option(value, force=True)
    answer.value.finished()
    expect(page.locator(f"#job-form select[name={name}]")).to_have_value(value)
    page.evaluate("() => new Promise(requestAnimationFrame)")


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_every_option_gives_the_same_verdict_in_plan_and_submission(open_page: Open, trained: str, locale: str) -> None:
    with open_page(FORM, locale=locale) as page:
        selects: list[tuple[str, list[str]]] = page.evaluate(OPTIONS)
        assert {"zero_stage", "precision", "gradient_checkpointing", "tuning"} <= {name for name, _values in selects}
        for name, values in selects:
            for value in [*values[1:], values[0]]:  # empty in the end, which is what the form begins with
                choose(page, name, value)
                check(page, name, value)


def check(page: Page, name: str, value: str) -> None:
    """Check that the page shows a current plan, or errors that the submission would show as well."""
    errors = [text.strip() for text in page.locator("#job-form .error").all_text_contents()]
    if errors:
        assert value not in ("", "auto"), (name, value, errors)
        assert errors == page.evaluate(SUBMIT)
        expect(page.locator("[data-note]")).not_to_be_empty()
    else:
        expect(page.locator("[data-figures]:not(.stale)")).to_have_count(1)
        expect(page.locator("[data-note]")).to_be_empty()


def test_the_focus_stays_while_the_plan_updates(open_page: Open, trained: str) -> None:
    with open_page(FORM) as page:
        page.locator("summary").filter(has_text="Training").click()
        steps = page.get_by_label("Steps", exact=True)
        steps.press_sequentially("12", delay=500)
        expect(page.locator("[data-figures]")).to_be_visible()
        expect(steps).to_be_focused()
        steps.press_sequentially("x")
        expect(page.locator("#field-max_steps-error")).to_have_text("Steps must be a whole number")
        expect(steps).to_have_value("12x")
        expect(steps).to_be_focused()
        expect(page.locator("[data-figures]")).to_have_class("stack tight stale")
        page.locator("summary").filter(has_text=re.compile(r"^\s*Data\s")).click()
        steps.fill("12")
        expect(page.locator("#field-max_steps-error")).to_have_count(0)
        expect(page.get_by_label("Sequence length", exact=True)).to_be_visible()  # stays as open as it was


def test_a_recipe_changes_the_options_and_the_defaults_of_empty_fields(open_page: Open, trained: str) -> None:
    with open_page(FORM) as page:
        bible = page.get_by_role("checkbox", name="King James").first
        page.locator("[name=recipe][value=chat]").check()
        page.locator("summary").filter(has_text="Corpora of other kinds").click()
        expect(bible).to_be_disabled()
        expect(bible).not_to_be_checked()
        expect(page.locator("[data-note]")).to_have_text("Choose a corpus to see what the job will cost.")
        expect(page.get_by_label("Name", exact=True)).to_have_attribute("placeholder", "chat")


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_a_proposal_prefills_the_form(open_page: Open, trained: str, locale: str) -> None:
    with open_page(FORM, locale=locale) as page:
        page.locator("[data-propose]").click()
        expect(page.locator(".proposal .estimates > div")).to_have_count(6)
        expect(page.locator("#field-hidden_size")).not_to_have_value("")
        expect(page.locator("#field-tie_word_embeddings")).to_have_value("")
        expect(page.locator("[data-figures]:not(.stale)")).to_have_count(1)
        expect(page.locator("#job-form .error")).to_have_count(0)


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_a_point_of_the_curve_is_chosen_by_mouse_or_keys(open_page: Open, trained: str, locale: str) -> None:
    with open_page(FORM, locale=locale) as page:
        plot = page.locator("[data-plot]")
        expect(plot.locator("canvas")).to_have_count(1)
        expect(page.locator(".curve tbody tr")).to_have_count(14)
        select, readout = page.locator("[name=proposal_seconds]"), page.locator("[data-readout]")
        expect(plot).to_have_attribute("aria-valuenow", "6")  # of 14, an hour
        hour = plot.get_attribute("aria-valuetext") or ""
        assert hour.startswith("60 分钟" if locale == "zh-CN" else "60 minutes")
        plot.focus()
        with page.expect_response("**/jobs/propose"):
            page.keyboard.press("Home")
        expect(select).to_have_value("60")
        expect(plot).to_have_attribute("aria-valuenow", "0")
        expect(plot).to_be_focused()
        expect(readout).not_to_have_text(hour)
        expect(page.locator("#field-hidden_size")).not_to_have_value("")
        box = plot.bounding_box()
        assert box is not None
        with page.expect_response("**/jobs/propose"):
            page.mouse.click(box["x"] + box["width"] - 30, box["y"] + box["height"] / 2)
        expect(select).to_have_value("604800")
        expect(plot.locator("canvas")).to_have_count(1)  # it stays through the answers
        with page.expect_response("**/jobs/propose"):
            select.select_option("600")
        expect(plot).to_have_attribute("aria-valuenow", "3")
        page.locator("[name=corpora]:checked").first.uncheck()
        expect(plot).to_be_hidden()
        expect(page.locator("[data-note-of-curve]")).not_to_be_empty()


def test_what_was_entered_stays_through_reload_theme_and_language_until_one_starts_over(
    open_page: Open, trained: str
) -> None:
    def expect_draft(page: Page) -> None:
        expect(page.locator("#field-name")).to_have_value("Kept")
        expect(page.locator("[name=recipe][value=completion]")).to_be_checked()

    with open_page(FORM) as page:
        page.get_by_label("Name", exact=True).fill("Kept")
        with page.expect_response("**/jobs/plan"):
            page.locator("[name=recipe][value=completion]").check()
        page.reload()
        expect_draft(page)
        page.get_by_role("button", name="Dark").first.click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        expect_draft(page)
        page.get_by_role("button", name="中文").first.click()
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        expect_draft(page)
        page.goto(page.url.replace("?", "?recipe=tiny&"))
        expect(page.locator("#field-name")).to_have_value("")  # a draft belongs to its address
        page.go_back()
        expect_draft(page)
        page.locator("[data-start-over]").click()
        expect(page.locator("[name=recipe][value=tiny]")).to_be_checked()
        expect(page.locator("#field-name")).to_have_value("")
        page.reload()
        until_started(page)
        expect(page.locator("#field-name")).to_have_value("")
        page.locator("#field-name").fill("Sent")
        page.locator("#fold-training summary").click()
        page.locator("[name=max_steps]").fill("x")
        page.locator("#field-name").press("Enter")
        expect(page.get_by_text("未提交任何任务。")).to_be_visible()
        assert not any("Sent" in draft for draft in page.evaluate("() => Object.values(sessionStorage)"))


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_a_preset_is_saved_from_the_form_and_fills_in_another_one(open_page: Open, trained: str, locale: str) -> None:
    name = f"Short {locale}"
    with open_page(FORM, locale=locale) as page:
        page.locator("#fold-training summary").click()
        page.locator("[name=max_steps]").fill("37")
        page.locator("#fold-save-preset summary").click()
        page.locator("[name=preset_name]").fill(name)
        page.locator("[name=save_preset]").click()
        expect(page.locator("#fold-save-preset [role=status]")).to_contain_text(name)
        expect(page.locator("[name=preset_name]")).to_have_value("")
    with open_page(FORM, locale=locale) as page:
        page.locator("#field-name").fill("kept")
        page.locator("#fold-presets summary").click()
        page.get_by_role("button", name=name).click()
        expect(page.locator("[name=max_steps]")).to_have_value("37")
        expect(page.locator("#field-name")).to_have_value("kept")
        expect(page.locator("[data-figures]:not(.stale)")).to_have_count(1)
    with open_page("/jobs/presets", locale=locale) as page:
        page.get_by_role("row", name=name).get_by_role("button").click()
        page.locator("dialog[open] .danger").click()
        expect(page.get_by_role("link", name=name)).to_have_count(0)


def test_enter_submits_the_form_and_presses_no_preset(open_page: Open, trained: str) -> None:
    with open_page(FORM) as page:
        page.locator("#fold-save-preset summary").click()
        page.locator("[name=preset_name]").fill("First")
        page.locator("[name=save_preset]").click()
        expect(page.locator("#fold-presets")).to_have_count(1)
        page.locator("#fold-training summary").click()
        page.locator("[name=max_steps]").fill("x")
        page.locator("#field-name").press("Enter")
        expect(page.get_by_text("Nothing was submitted.")).to_be_visible()


def test_a_corpus_is_uploaded_in_the_form_and_selected_once_it_is_read(open_page: Open, trained: str) -> None:
    def choose_files(page: Page, name: str, text: str) -> None:
        page.get_by_role("link", name="Upload another corpus").click()
        file = {"name": name, "mimeType": "text/plain", "buffer": text.encode()}
        page.locator("#upload input[type=file][name=file]").set_input_files([file])
        expect(page.locator("#upload")).to_be_hidden()

    with open_page("/jobs/new") as page:
        page.get_by_label("Name", exact=True).fill("stays")
        choose_files(page, "fables.txt", "A fox saw a crow. " * 2_000)
        expect(page.get_by_role("checkbox", name="fables").first).to_be_checked()
        expect(page.locator("[data-upload-status]")).to_be_empty()
        expect(page.locator("[data-figures]:not(.stale)")).to_have_count(1)
        expect(page.get_by_label("Name", exact=True)).to_have_value("stays")
        choose_files(page, "talk.jsonl", '{"prompt": "a", "completion": "b"}\n' * 3)
        expect(page.locator("[data-upload-status]")).to_contain_text("this goal does not learn from its kind")
        choose_files(page, "broken.jsonl", "{")
        expect(page.locator("[data-upload-status] a")).to_have_text("broken")
        expect(page.get_by_role("checkbox", name="fables").first).to_be_checked()
