"""The tokens of answers in conversations, with their probabilities."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("conversation_message", sa.Column("tokens", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("conversation_message", "tokens")
