"""Jobs are chosen in the list and compared: their curves on every axis."""

from playwright.sync_api import expect

from tests.browser.conftest import SMALL, Open, finished_job
from tests.stack import Stack


def test_chosen_jobs_are_compared_on_every_axis(open_page: Open, running_stack: Stack) -> None:
    corpora = ["00kingjamesbible"]
    shorter = finished_job(running_stack, corpora=corpora, name="shorter", max_steps=10, warmup_steps=2)
    longer = finished_job(running_stack, corpora=corpora, name="longer", max_steps=20, warmup_steps=2)
    with open_page("/jobs?q=er&order=oldest") as page:
        expect(page.get_by_role("button", name="Compare")).to_be_hidden()
        for job_id in (shorter, longer):
            page.locator(f"#choose-{job_id}").check()
        with page.expect_response(lambda answer: "/jobs?q=er" in answer.url):  # the list is drawn again
            pass
        expect(page.locator(f"#choose-{shorter}")).to_be_checked()
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_role("heading", name="Compare jobs")).to_be_visible()
        readout = page.locator("[data-readout]")
        expect(readout).to_contain_text("shorter")
        plot = page.locator("[data-plot]")
        for axis, place in (("step", "step 20"), ("tokens", "tokens"), ("flops", "FLOPs"), ("seconds", "after")):
            page.get_by_label("Horizontal axis").select_option(axis)
            plot.press("End")
            expect(readout).to_contain_text(place)
        page.get_by_label("Curve", exact=True).select_option("loss")
        expect(page.locator("[data-status]")).to_be_empty()  # what is loaded replaces the plot and its cursor
        page.get_by_label("Horizontal axis").select_option("tokens")
        plot.press("End")
        tokens = 20 * SMALL["train_batch_size"] * SMALL["sequence_length"]  # type: ignore[operator]
        expect(readout).to_contain_text(f"tokens: {tokens / 1000:.3g} k")
        page.get_by_role("checkbox", name="longer").uncheck()
        expect(readout).not_to_contain_text("longer")
        differing = page.get_by_role("region", name="Settings that differ").get_by_role("row")
        expect(differing.filter(has_text="Steps")).to_contain_text("10")
