"""Services that notices are sent to are listed by their name and the scheme of their URL."""

from collections.abc import Sequence

from alembic import op

revision: str = "0034"
down_revision: str | None = "0033"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.alter_column("notice_service", "address", new_column_name="scheme")


def downgrade() -> None:
    op.alter_column("notice_service", "scheme", new_column_name="address")
