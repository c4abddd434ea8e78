"""The time-lapse of a job: one prompt continued by every checkpoint, and the slider that moves through the texts."""

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import SMALL, Open, newest_checkpoint, until_started
from tests.stack import Stack
from tests.waiting import until

PROMPT = "And God said"


def test_a_prompt_is_continued_by_every_checkpoint_and_scrubbed(
    open_page: Open, running_stack: Stack, trained: str
) -> None:
    rows = running_stack.client.get("/api/v1/checkpoints", params={"job": trained}).json()["data"]
    expected = {}
    for row in rows:
        body = {"checkpoint": row["id"], "prompt": PROMPT, "max_tokens": 80, "temperature": 0}
        answer = running_stack.client.post("/api/v1/generate", json=body).raise_for_status().json()
        expected[row["step"]] = PROMPT + answer["text"]
    with open_page(f"/jobs/{trained}") as page:
        page.get_by_role("link", name="Time-lapse of a prompt").click()
        page.wait_for_url("**/time-lapse/*")
        until_started(page)
        page.get_by_label("Prompt").fill(PROMPT)
        page.get_by_role("button", name="Write with every checkpoint").click()
        expect(page.get_by_text("2 of 2 written")).to_be_visible(timeout=240_000)
        slider = page.get_by_role("slider", name="Checkpoint")
        for key, step in (("Home", 10), ("End", 20)):
            slider.press(key)
            expect(page.get_by_text(f"Step {step}", exact=True)).to_be_visible()
            assert page.locator("[data-text]").text_content() == expected[step]


def test_a_checkpoint_that_cannot_write_says_why_and_the_others_do_and_a_reload_keeps_them(
    open_page: Open, running_stack: Stack, trained: str
) -> None:
    last = newest_checkpoint(running_stack, trained)
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.post_data_json["checkpoint"])
        if asked.count(last) == 1 and asked[-1] == last:
            route.abort()
        else:
            route.continue_()

    with open_page(f"/playground/time-lapse/{trained}") as page:
        page.route("**/api/v1/generate", answer)
        write = page.get_by_role("button", name="Write with every checkpoint")
        page.get_by_label("Prompt").fill(PROMPT)
        write.click()
        expect(page.get_by_text("1 of 2 written")).to_be_visible(timeout=240_000)
        assert len(asked) == 2
        expect(page.locator("[data-text].error")).to_have_text("The connection was lost. Try again.")
        slider = page.get_by_role("slider", name="Checkpoint")
        slider.press("Home")
        expect(page.locator("[data-text]:not(.error)")).to_contain_text(PROMPT)

        write.click()
        expect(page.get_by_text("2 of 2 written")).to_be_visible(timeout=240_000)
        assert asked[2:] == [last]
        slider.press("End")
        text = str(page.locator("[data-text]").text_content())
        assert text.startswith(PROMPT)

        page.reload()
        until_started(page)
        expect(page.get_by_text("2 of 2 written")).to_be_visible()
        assert page.locator("[data-text]").text_content() == text
        expect(page.get_by_label("Prompt")).to_have_value(PROMPT)
        assert len(asked) == 3


@pytest.mark.usefixtures("trained")  # by then there is a corpus
def test_checkpoints_that_a_running_job_saves_appear_and_write(open_page: Open, running_stack: Stack) -> None:
    client = running_stack.client
    more = {"corpora": ["00kingjamesbible"], "max_steps": 100_000, "save_steps": 100_000, "eval_steps": 100_000}
    job = client.post("/api/v1/jobs", json={**SMALL, **more, "name": "a long job"}).raise_for_status().json()["id"]

    def pause() -> None:
        """Pause once it trains, which saves a checkpoint."""
        step = client.get(f"/api/v1/jobs/{job}").json()["step"]
        until(lambda: client.get(f"/api/v1/jobs/{job}").json()["step"] > step, 240, "a step")
        client.post(f"/api/v1/jobs/{job}/pause").raise_for_status()
        until(lambda: client.get(f"/api/v1/jobs/{job}").json()["state"] == "paused", 240, "the pause")

    with open_page(f"/playground/time-lapse/{job}") as page:
        expect(page.get_by_text("No checkpoint yet")).to_be_visible()
        pause()
        write = page.get_by_role("button", name="Write with every checkpoint")
        expect(write).to_be_visible()
        until_started(page)
        page.get_by_label("Prompt").fill(PROMPT)
        write.click()
        expect(page.get_by_text("1 of 1 written")).to_be_visible(timeout=240_000)
        shown = page.locator("strong[data-label]").inner_text()
        client.post(f"/api/v1/jobs/{job}/resume").raise_for_status()
        pause()
        expect(page.get_by_text("2 of 2 written")).to_be_visible(timeout=240_000)
        expect(page.locator("strong[data-label]")).to_have_text(shown)
        page.get_by_role("slider", name="Checkpoint").press("End")
        expect(page.locator("strong[data-label]")).not_to_have_text(shown)
        expect(page.locator("[data-text]")).to_contain_text(PROMPT)
    client.post(f"/api/v1/jobs/{job}/cancel").raise_for_status()
