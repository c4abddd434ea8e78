"""Logging in at a provider in a browser: the provider is another site than the panel, as it usually is."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import oidc_provider, web_server
from tests.browser.test_accessibility import barriers
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, TestProvider
from tests.users import PASSWORD, Person


@pytest.fixture
def provider(database: str) -> Iterator[TestProvider]:
    """A provider at localhost; the panel is at 127.0.0.1."""
    with oidc_provider.running() as running, oidc_provider.configurable() as configure:
        running.issuer = running.issuer.replace("127.0.0.1", "localhost")
        running.claims = {"sub": "1", "email": "alice@example.com"}
        configure(
            oidc_issuer=running.issuer,
            oidc_client_id=CLIENT_ID,
            oidc_client_secret=CLIENT_SECRET,
            oidc_name="Keycloak",
        )
        yield running


@pytest.fixture
def page(chromium: Browser, provider: TestProvider, alice_user: Person) -> Iterator[Page]:
    """A page of the panel, in a browser that is not logged in."""
    with web_server.running() as url:
        context = chromium.new_context(locale="en", base_url=url)
        yield context.new_page()
        context.close()


def test_an_identity_is_connected_and_logs_in(page: Page, provider: TestProvider) -> None:
    violations: list[str] = []
    page.on("console", lambda message: violations.append(message.text) if "Content Security" in message.text else None)
    page.goto("/login")
    page.get_by_label("Name").fill("Alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in", exact=True).click()
    page.wait_for_url("**/")
    page.goto("/account")
    page.get_by_role("button", name="Connect Keycloak").click()
    page.wait_for_url("**/account?done=connected")
    expect(page.get_by_role("status").filter(has_text="You can log in with Keycloak now.")).to_be_visible()
    assert barriers(page) == []
    page.context.clear_cookies()
    page.goto("/login?next=/account")
    assert barriers(page) == []
    page.get_by_role("link", name="Log in with Keycloak").click()
    page.wait_for_url("**/account")
    expect(page.get_by_role("heading", level=1)).to_have_text("Alice")
    assert violations == []


def test_a_denied_login_says_so_on_the_login_page(page: Page, provider: TestProvider) -> None:
    provider.error = "access_denied"
    page.goto("/login")
    page.get_by_role("link", name="Log in with Keycloak").click()
    expect(page.get_by_role("alert")).to_have_text("The login at Keycloak was denied or cancelled.")
    expect(page.get_by_label("Password")).to_be_visible()
