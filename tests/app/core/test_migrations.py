"""Migrations and models say the same."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from app.core import db, migrations
from app.core.models import Base


def test_a_migrated_database_matches_the_models(database: str) -> None:
    with db.engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    assert migrations.present() == migrations.newest()


def test_every_migration_can_be_reverted_and_reapplied(database: str) -> None:
    migrations.downgrade("base")
    assert inspect(db.engine()).get_table_names() == ["alembic_version"]
    assert migrations.present() is None
    migrations.upgrade()
    migrations.upgrade()
    assert migrations.present() == migrations.newest()
