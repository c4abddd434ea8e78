"""Migrations and models say the same."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from app.core import db, migrations
from app.core.models import Base
from tests.app.jobs import factories
from tests.users import Person


def test_a_migrated_database_matches_the_models(database: str) -> None:
    with db.engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    assert migrations.present() == migrations.newest()


def test_jobs_of_epochs_have_steps_after_a_downgrade(alice_user: Person) -> None:
    job_id, _fence = factories.started(alice_user, factories.corpus(alice_user), num_train_epochs=2)
    with db.transaction() as session:
        session.execute(text("UPDATE job SET max_steps = 60"))
    migrations.downgrade("0005")
    query = text("SELECT max_steps, spec FROM job WHERE id = :id")
    with db.engine().connect() as connection:
        max_steps, spec = connection.execute(query, {"id": job_id}).one()
    migrations.upgrade()
    assert (max_steps, spec["max_steps"], spec["warmup_steps"]) == (60, 60, 3)
    assert "num_train_epochs" not in spec


def test_users_that_earlier_versions_told_apart_keep_their_accounts(database: str) -> None:
    migrations.downgrade("0008")
    insert = text("""INSERT INTO "user" (id, name, password_hash, role) VALUES (:id, :name, 'x', 'member')""")
    with db.transaction() as session:
        for user_id, name in (("a", "Zo\u00eb"), ("b", "Zoe\u0308"), ("c", "Yves")):
            session.execute(insert, {"id": user_id, "name": name})
    migrations.upgrade()
    with db.transaction() as session:
        keys = {row.id: row.name_key for row in session.execute(text('SELECT id, name_key FROM "user"'))}
    assert (keys["a"], keys["c"]) == ("zo\u00eb", "yves")
    assert keys["b"] == "zo\u00eb\nb"


def test_every_migration_can_be_reverted_and_reapplied(database: str) -> None:
    migrations.downgrade("base")
    assert inspect(db.engine()).get_table_names() == ["alembic_version"]
    assert migrations.present() is None
    migrations.upgrade()
    migrations.upgrade()
    assert migrations.present() == migrations.newest()
