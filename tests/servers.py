"""PostgreSQL and Valkey for the tests, once per session, with a database per module copied from a migrated template."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
import psycopg

from app.core import db, live, migrations
from app.core.settings import settings
from app.launcher.embedded import Address, Postgres, Valkey
from tests.environment import HOME, PREFIX, VALKEY_SOCKETS

TEMPLATE = "athanor_template"
# Nothing is worth keeping: trade durability for speed.
UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Servers:
    """The two running servers."""

    postgres: Postgres
    valkey: Valkey


def servers_in(home: Path) -> tuple[Postgres, Valkey]:
    """The servers of a test session, by its directory."""
    postgres = Postgres(Address(home / "postgres", home / "postgres-socket"), **UNSAFE)
    return postgres, Valkey(Address(home / "valkey", home / VALKEY_SOCKETS.name))


@contextmanager
def running() -> Iterator[Servers]:
    """Both servers and the template database."""
    for left in HOME.parent.glob(f"{PREFIX}*"):
        if not psutil.pid_exists(int(left.name.split("-")[3])):  # tests that were killed
            for server in servers_in(left):
                server.stop()
            shutil.rmtree(left, ignore_errors=True)
    postgres, valkey = servers_in(HOME)
    try:
        postgres.start()
        valkey.start()
        postgres.create_database(TEMPLATE)
        point_to(postgres.url(TEMPLATE))
        migrations.upgrade()
        db.engine().dispose()
        yield Servers(postgres, valkey)
    finally:
        postgres.stop()
        valkey.stop()


_numbers = count(1)


@contextmanager
def fresh_database(servers: Servers, data: Path) -> Iterator[str]:
    """A migrated, empty database, empty Valkey and empty data directory, to which the settings point meanwhile."""
    before = os.environ["ATHANOR_DATA"]
    name = f"athanor_{next(_numbers)}"
    servers.postgres.create_database(name, template=TEMPLATE)
    live.valkey().flushall()
    os.environ["ATHANOR_DATA"] = str(data)
    url = servers.postgres.url(name)
    point_to(url)
    try:
        yield url
    finally:
        db.engine().dispose()
        os.environ["ATHANOR_DATA"] = before
        with psycopg.connect(servers.postgres.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def point_to(url: str) -> None:
    """Make this process, and the processes it starts, use another database."""
    os.environ["DATABASE_URL"] = url
    settings.cache_clear()
    db.engine.cache_clear()
