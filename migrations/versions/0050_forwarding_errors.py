"""Why forwarding failed is a code with values; addresses are stored without user names and passwords."""

from collections.abc import Sequence

from alembic import op

revision: str = "0050"
down_revision: str | None = "0048"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

WITHOUT_USER_INFO = r"""regexp_replace({}, '//[^/?#\s"]*@', '//', 'g')"""
OBJECT = "jsonb_build_object('code', 'library', 'values', jsonb_build_object('text', error))"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE job_forwarding ALTER COLUMN error TYPE jsonb"
        f" USING CASE WHEN error IS NULL THEN '{{}}'::jsonb ELSE {OBJECT} END,"
        " ALTER COLUMN error SET DEFAULT '{}', ALTER COLUMN error SET NOT NULL"
    )
    op.execute(f"UPDATE job_forwarding SET target = {WITHOUT_USER_INFO.format('target')}")  # noqa: S608 - constants
    op.execute(f"UPDATE job_forwarding SET remote = {WITHOUT_USER_INFO.format('remote::text')}::jsonb")  # noqa: S608


def downgrade() -> None:
    op.execute("ALTER TABLE job_forwarding ALTER COLUMN error DROP DEFAULT, ALTER COLUMN error DROP NOT NULL")
    op.execute("ALTER TABLE job_forwarding ALTER COLUMN error TYPE text USING error #>> '{values,text}'")
