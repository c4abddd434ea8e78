"""`athanor demo`: creates an account and trains the smallest recipe, so that the link opens a job that is running."""

import secrets
import time
from pathlib import Path

from sqlalchemy import select

from app.accounts import passwords
from app.accounts import service as accounts
from app.core import db, live, queue
from app.core.account_models import User
from app.core.i18n import _
from app.core.models import Corpus
from app.core.principal import SCOPES, Principal
from app.core.settings import settings
from app.corpora.shipped import SHIPPED
from app.jobs import service as jobs
from app.launcher.up import CannotStart, say

NAME = "demo"
PARSE_SECONDS = 60


def prepare(address: str) -> None:
    """Create the account at the first start, submit a job at every start, and print the link and the password.

    Raises CannotStart.
    """
    password_path = settings().data / "demo-password.txt"
    user = _account(password_path)
    principal = Principal(user.id, user.name, user.role, frozenset(SCOPES), by_cookie=True)
    corpus_id = SHIPPED[0].corpus_id
    _wait_until_parsed(corpus_id)
    with db.transaction() as session:
        job, _new = jobs.submit(session, principal=principal, request={"name": NAME, "corpora": [corpus_id]})
    queue.flush_outbox()
    live.notify("scheduler")
    say(_("Open {link}", link=f"{address}/jobs/{job.id}"))
    say(_("Log in as {name} with the password {password}", name=NAME, password=password_path.read_text().strip()))


def _account(password_path: Path) -> User:
    with db.transaction() as session:
        user = session.scalar(select(User).where(User.name == NAME))
        if user is not None:
            return user
        if accounts.owner_exists(session):
            raise CannotStart(_("The demo needs its own data directory. Set ATHANOR_DATA to an empty one."))
        code = accounts.create_setup_code(session)
    password = secrets.token_urlsafe(9)
    password_path.touch(mode=0o600)
    password_path.write_text(password + "\n")
    with db.transaction() as session:
        return accounts.create_owner(session, code=code, name=NAME, password_hash=passwords.hash_password(password))


def _wait_until_parsed(corpus_id: str) -> None:
    deadline = time.monotonic() + PARSE_SECONDS
    while time.monotonic() < deadline:
        with db.transaction() as session:
            if session.scalar(select(Corpus.state).where(Corpus.id == corpus_id)) == "ready":
                return
        time.sleep(0.1)
    raise CannotStart(_("The sample corpus was not read within {n} s. See worker.log.", n=PARSE_SECONDS))
