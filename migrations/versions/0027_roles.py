"""Two more roles: viewer and admin."""

from collections.abc import Sequence

from alembic import op

revision: str = "0027"
down_revision: str | None = "0026"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    _allow("'viewer', 'member', 'admin', 'owner'")


def downgrade() -> None:
    # Earlier versions would let viewers start jobs: they must not be able to log in.
    op.execute("UPDATE \"user\" SET disabled_at = coalesce(disabled_at, now()) WHERE role = 'viewer'")
    op.execute("UPDATE \"user\" SET role = 'member' WHERE role IN ('viewer', 'admin')")
    _allow("'owner', 'member'")


def _allow(roles: str) -> None:
    op.drop_constraint(op.f("ck_user_role"), "user", type_="check")
    op.create_check_constraint(op.f("ck_user_role"), "user", f"role IN ({roles})")
