"""The time-lapse of a job: one prompt continued by every checkpoint, and the slider that moves through the texts."""

from playwright.sync_api import expect

from tests.browser.conftest import Open, until_started
from tests.stack import Stack

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
