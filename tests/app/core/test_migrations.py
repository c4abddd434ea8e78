"""Migrations and models say the same."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, inspect, select, text

from app.background_tasks import outcomes
from app.core import (  # their tables, too
    db,
    migrations,
    notice_models,  # noqa: F401
    openai_models,  # noqa: F401
    preset_models,  # noqa: F401
    synthetic_models,  # noqa: F401
)
from app.core.forwarding_models import JobForwarding
from app.core.json_shapes import FailureReason
from app.core.models import BackgroundTask, Base
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


def test_a_corpus_that_a_cleaning_was_making_has_failed_after_a_downgrade(alice_user: Person) -> None:
    cleaned, parsed = (factories.corpus(alice_user, state="parsing") for _ in range(2))
    with db.transaction() as session:
        session.execute(text("UPDATE corpus SET cleaning = '{\"version\": 1}' WHERE id = :id"), {"id": cleaned})
    migrations.downgrade("0020")
    with db.engine().connect() as connection:
        rows = connection.execute(text("SELECT id, state, problems FROM corpus WHERE state <> 'ready'")).all()
    migrations.upgrade()
    found = {row.id: (row.state, row.problems) for row in rows}
    assert (found[cleaned], found[parsed]) == (("failed", [{"code": "reading_cancelled"}]), ("parsing", []))


def test_errors_and_addresses_of_trackers_are_stored_as_now(alice_user: Person) -> None:
    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    migrations.downgrade("0048")
    insert = text(
        "INSERT INTO job_forwarding (job_id, tracker, target, error, remote)"
        " VALUES (:job, :tracker, :target, :error, :remote)"
    )
    with db.transaction() as session:
        for tracker, error in (("mlflow", "it refuses"), ("swanlab", None)):
            session.execute(
                insert,
                {
                    "job": job_id,
                    "tracker": tracker,
                    "target": "https://clerk:open@sesame@host (team)",
                    "error": error,
                    "remote": '{"run_id": "r", "url": "http://clerk:sesame@host/#/runs/r"}',
                },
            )
    migrations.upgrade()
    with db.transaction() as session:
        rows = {row.tracker: row for row in session.scalars(select(JobForwarding))}
        assert rows["mlflow"].error == FailureReason(code="library", values={"text": "it refuses"})
        assert rows["swanlab"].error is None
        for row in rows.values():
            assert row.target == "https://host (team)"
            assert row.remote == {"run_id": "r", "url": "http://host/#/runs/r"}


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


def test_work_in_progress_becomes_background_tasks(alice_user: Person) -> None:
    corpus_id = factories.corpus(alice_user, state="parsing")
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user))
    checkpoint_id = factories.saved(job_id, fence, 20)
    migrations.downgrade("0006")
    with db.transaction() as session:
        insert = "INSERT INTO checkpoint_task (id, owner_id, checkpoint_id, kind, options, state, num_starts) VALUES"
        values = f"('t', '{alice_user.id}', '{checkpoint_id}', 'export', '{{}}', 'running', 2)"
        session.execute(text(f"{insert} {values}"))
        model = "INSERT INTO base_model (id, owner_id, name, source, state) VALUES"
        session.execute(text(f"{model} ('m', '{alice_user.id}', 'model', 'upload', 'importing')"))
    migrations.upgrade()
    with db.transaction() as session:
        tasks = {task.kind: task for task in session.scalars(select(BackgroundTask))}
        assert (tasks["parse"].corpus_id, tasks["parse"].state) == (corpus_id, "queued")
        assert (tasks["import"].model_id, tasks["import"].owner_id) == ("m", alice_user.id)
        assert (tasks["export"].checkpoint_id, tasks["export"].fence) == (checkpoint_id, 2)
        assert all(task.memory_bytes > 0 for task in tasks.values())
        outcomes.expire_leases(session)  # no worker of this version runs the export
        assert tasks["export"].state == "queued"


def test_migrations_may_take_as_long_as_they_need_between_two_statements(database: str) -> None:
    limits: dict[str, str] = {}

    def note_limit(_connection: object, cursor: Any, statement: str, *_more: object) -> None:
        limit = cursor.connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()[0]
        limits[statement.split()[0]] = limit

    migrations.downgrade("0008")
    event.listen(db.engine(), "before_cursor_execute", note_limit)
    try:
        migrations.upgrade()
    finally:
        event.remove(db.engine(), "before_cursor_execute", note_limit)
    assert limits["ALTER"] == "0"


def test_every_migration_can_be_reverted_and_reapplied(database: str) -> None:
    migrations.downgrade("base")
    assert inspect(db.engine()).get_table_names() == ["alembic_version"]
    assert migrations.present() is None
    migrations.upgrade()
    migrations.upgrade()
    assert migrations.present() == migrations.newest()
