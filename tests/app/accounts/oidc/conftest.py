"""Fixtures of logins at a provider."""

from collections.abc import Iterator

import pytest
from sqlalchemy import delete

from app.core import db
from app.core.account_models import ExternalIdentity, OidcLogin, User
from tests import oidc_provider
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, Configure, TestProvider


@pytest.fixture(scope="session")
def running_provider() -> Iterator[TestProvider]:
    """A provider for all tests."""
    with oidc_provider.running() as provider:
        yield provider


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Changes settings for the rest of a test."""
    with oidc_provider.configurable() as change:
        yield change


@pytest.fixture
def provider(database: str, running_provider: TestProvider, configure: Configure) -> TestProvider:
    """The provider of the settings, which create accounts of the role viewer. Its person is Paula."""
    with db.transaction() as session:
        for table in (ExternalIdentity, OidcLogin):
            session.execute(delete(table))
        session.execute(delete(User).where(User.password_hash.is_(None)))
    running_provider.reset()
    running_provider.claims = {"sub": "p-1", "preferred_username": "Paula", "email": "paula@example.com"}
    configure(
        oidc_issuer=running_provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_name="Keycloak",
        oidc_create_users="true",
    )
    return running_provider
