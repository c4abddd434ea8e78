"""A real web process, with PostgreSQL and Valkey of its own, for benchmarks that fill the database themselves.

Import it before anything of ours reads the environment.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import psycopg
from sqlalchemy import make_url

from tests import environment, servers, web_server  # noqa: F401 - environment first: it is read when ours is imported
from tests.users import Person
from tests.waiting import until

# isort: split
from app.core import db
from app.core.settings import settings

START_SECONDS = 180  # where other work leaves it little


@contextmanager
def empty_database() -> Iterator[None]:
    """Both servers and an empty, migrated database, to which the settings of this process point meanwhile."""
    with (
        servers.running() as both,
        tempfile.TemporaryDirectory(prefix="athanor-bench-") as data,
        servers.fresh_database(both, Path(data)),
    ):
        yield


@contextmanager
def copied_database() -> Iterator[None]:
    """A copy of an `empty_database` that nobody uses, to which the settings of this process point meanwhile."""
    before = make_url(settings().database_url)
    copy = before.set(database=f"{before.database}_copy")
    db.engine().dispose()
    with psycopg.connect(before.set(database="postgres").render_as_string(False), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{copy.database}" TEMPLATE "{before.database}"'.encode())
    servers.point_to(copy.render_as_string(False))
    try:
        yield
    finally:
        db.engine().dispose()
        servers.point_to(before.render_as_string(False))


@contextmanager
def running(user: Person) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """A web process of this database that answers: a client with an API token of the user's, and the process."""
    with closing(web_server.WebProcess()) as web:
        process = psutil.Process(web.start())
        headers = {"Authorization": f"Bearer {user.token()}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{web.port}", headers=headers, timeout=START_SECONDS) as client:
            until(lambda: client.get("/readyz").is_success, START_SECONDS, "the web process")
            yield client, process
