"""The page of a job in a browser: the axis of its curves, and its log."""

from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.test_accessibility import barriers


def test_the_log_is_searched_and_shows_what_stands_around_a_line(open_page: Open, trained: str) -> None:
    with open_page(f"/jobs/{trained}") as page:
        log = page.get_by_role("region", name="Log", exact=True)
        hits = log.get_by_role("list").get_by_role("button")
        log.get_by_role("searchbox").fill("STEP 10 SAVED")
        expect(hits).to_have_count(1)
        expect(hits.locator("mark")).to_have_text("step 10 saved")
        expect(log.get_by_role("status")).to_have_text("1 line. A click shows what stands around it.")
        hits.click()
        expect(log.locator("pre strong")).to_contain_text("step 10 saved")
        expect(log.locator("pre:visible")).to_contain_text("step 20 saved")
        assert barriers(page) == []
        log.get_by_role("combobox").select_option(label="Only errors")
        expect(log.get_by_role("status")).to_have_text("0 lines. A click shows what stands around one.")
        log.get_by_role("searchbox").fill("")
        log.get_by_role("combobox").select_option(label="All lines")
        expect(log.get_by_role("log")).to_be_visible()


def test_curves_are_drawn_on_every_axis(open_page: Open, trained: str) -> None:
    with open_page(f"/jobs/{trained}") as page:
        chart = page.get_by_role("region", name="Loss", exact=True)
        plot = chart.locator("[data-plot]")
        expect(chart.locator("[data-readout]")).to_contain_text("Validation loss")
        for axis, place in (("tokens", "tokens: 5.12"), ("flops", "FLOPs"), ("seconds", "after"), ("step", "step 20")):
            page.get_by_label("Horizontal axis").select_option(axis)
            expect(page.locator("#job")).to_have_attribute("data-drawn", axis)
            plot.focus()
            page.keyboard.press("End")
            expect(chart.locator("[data-readout]")).to_contain_text(place)
        chart.get_by_role("button", name="Ignore outliers").click()
        expect(chart.get_by_role("button", name="Ignore outliers")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#part-baselines")).to_contain_text("guessing each token by its frequency")
        assert barriers(page) == []
