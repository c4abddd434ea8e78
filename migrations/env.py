"""Alembic's entry: runs migrations over the application's engine, in one transaction, one process at a time."""

from alembic import context
from sqlalchemy import text

from app.core import (  # their tables, too
    audit_models,  # noqa: F401
    db,
    forwarding_models,  # noqa: F401
    installation_models,  # noqa: F401
    notice_models,  # noqa: F401
    openai_models,  # noqa: F401
    preset_models,  # noqa: F401
    share_models,  # noqa: F401
    synthetic_models,  # noqa: F401
)
from app.core.models import Base

LOCK = 0x417468616E6F72  # "Athanor", as the number of an advisory lock


with db.engine().connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        # A migration may compute for longer than a lease between two statements; all other connections may not.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        context.run_migrations()
