"""The API reference in a browser: Swagger UI under the page's content security policy, in both themes."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_endpoint_can_be_tried_from_the_reference(open_page: Open, theme: str) -> None:
    with open_page("/api/docs", color_scheme=theme) as page:
        page.set_default_timeout(240_000)
        endpoint = page.locator("#operations-accounts-get_me")
        endpoint.locator(".opblock-summary-control").click()
        endpoint.get_by_role("button", name="Try it out").click()
        endpoint.get_by_role("button", name="Execute").click()
        expect(endpoint.locator(".live-responses-table")).to_contain_text("Alice")
        is_dark = page.evaluate("document.documentElement.classList.contains('dark-mode')")
        assert is_dark == (theme == "dark")
