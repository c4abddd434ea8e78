"""Migrations of the database schema: the newest revision, the present one, upgrade and downgrade."""

from functools import cache

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.core import db
from app.core.settings import ROOT

REVISION_QUERY = "SELECT version_num FROM alembic_version"


def configuration() -> Config:
    """Alembic's configuration, in place of an alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def newest() -> str:
    """The revision that this version of Athanor requires."""
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    assert head, "there are no migrations"
    return head


def present() -> str | None:
    """The revision of the database; None if it is empty."""
    with db.engine().connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(revision: str = "head") -> None:
    """Upgrade the database to a revision, in one transaction. Concurrent processes wait for each other."""
    command.upgrade(configuration(), revision)


def downgrade(revision: str) -> None:
    """Downgrade the database to an older revision."""
    command.downgrade(configuration(), revision)
