"""Users: Alice owns the installation, Bob is another user, a visitor is not logged in."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from starlette.testclient import TestClient

from app.accounts import passwords, service
from app.core import db
from app.core.account_models import User
from app.core.principal import SCOPES, Principal
from app.web import auth

PASSWORD = "a furnace that feeds itself"
ORIGIN = "http://localhost"


@dataclass(frozen=True)
class Person:
    """A user in the database."""

    id: str
    name: str
    role: str

    @property
    def principal(self) -> Principal:
        """What services take: this user, with all scopes."""
        return Principal(self.id, self.name, self.role, frozenset(SCOPES), by_cookie=True)

    def cookie(self) -> str:
        """The secret of a new login session."""
        with db.transaction() as session:
            return service.open_session(session, user_id=self.id)

    def token(self, *scopes: str) -> str:
        """The secret of a new API token with these scopes, by default all."""
        with db.transaction() as session:
            _row, secret = service.create_token(session, principal=self.principal, name="test", scopes=scopes or SCOPES)
            return secret


def enter(name: str, role: str) -> Person:
    """Add a user whose password is PASSWORD."""
    with db.transaction() as session:
        user = User(name=name, password_hash=_password_hash(), role=role)
        session.add(user)
        session.flush()
        return Person(user.id, name, role)


@cache
def _password_hash() -> str:
    return passwords.hash_password(PASSWORD)


def client(web: TestClient, *, cookie: str | None = None, token: str | None = None) -> TestClient:
    """Another client of a running application: a visitor, a browser that is logged in, or a program with a token."""
    headers: dict[str, Any] = {"Accept-Language": "en"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    made = TestClient(web.app, base_url=ORIGIN, headers=headers, follow_redirects=False)
    made.portal = web.portal  # the same event loop, so that the hub of live views is shared
    if cookie is not None:
        made.cookies.set(auth.COOKIE, cookie)
    return made
