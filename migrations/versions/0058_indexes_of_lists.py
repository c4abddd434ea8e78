"""Indexes by which lists are read and searched, and those of jobs ordered, however many rows there are."""

from collections.abc import Sequence

from alembic import op

revision: str = "0058"
down_revision: str | None = "0057"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SEARCH_COLUMNS = {  # besides the tags
    "base_model": "name, notes, reference",
    "checkpoint": "name, notes",
    "corpus": "name, notes",
    "job": "name, notes, recipe",
    "tokenizer": "name, notes",
}
# Of the texts each three characters in a row, in lower case, as an index of trigrams has them, without an extension. A
# search of fewer characters is for those that begin with it, wherefore the last ones of a text are there, too.
FUNCTIONS = r"""
CREATE FUNCTION search_grams(texts text[], tags jsonb) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
DECLARE
    tag_texts text := (SELECT string_agg(tag, E'\n') FROM jsonb_array_elements_text(tags) AS tag);
    word text := lower(concat_ws(E'\n', array_to_string(texts, E'\n'), tag_texts));
BEGIN
    RETURN (
        SELECT array_to_tsvector(array_agg(concat(a, b, c)))
        FROM unnest(
            string_to_array(word, NULL), string_to_array(substr(word, 2), NULL), string_to_array(substr(word, 3), NULL)
        ) AS neighbors(a, b, c)
    );
END $$;
CREATE FUNCTION search_query(search text) RETURNS tsquery LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT string_agg(DISTINCT
        '''' || replace(replace(substr(word, place, 3), '\', '\\'), '''', '''''') || ''''
        || CASE WHEN length(word) < 3 THEN ':*' ELSE '' END, ' & '
    )::tsquery
    FROM lower(search) AS word, generate_series(1, greatest(1, length(word) - 2)) AS place
$$
"""
LISTED_LOSS = (
    "CASE jsonb_typeof(progress #> '{latest,eval_loss}') WHEN 'number'"
    " THEN (progress #>> '{latest,eval_loss}')::double precision ELSE 'Infinity' END"
)
ORDERS = {"name": "lower(name)", "listed_loss": "listed_loss", "state": "state"}  # of jobs


def upgrade() -> None:
    op.execute(FUNCTIONS)
    for table in sorted(SEARCH_COLUMNS, key=lambda table: table == "job"):  # the last one is locked for the least time
        if table == "job":
            op.execute(
                "ALTER TABLE job ADD COLUMN listed_loss double precision NOT NULL"
                f" GENERATED ALWAYS AS ({LISTED_LOSS}) STORED"
            )
        else:
            op.execute(f"CREATE INDEX ix_{table}_owner_id_id ON {table} (owner_id, id)")
            op.execute(f"DROP INDEX ix_{table}_owner_id")
        op.execute(
            f"CREATE INDEX ix_{table}_tag_combination ON {table} (owner_id, md5(tags::text))"
            " WHERE tags <> '[]' AND deleted_at IS NULL"
        )
        op.execute(f"CREATE INDEX ix_{table}_tags ON {table} USING gin (tags jsonb_path_ops)")
        grams = f"search_grams(ARRAY[{SEARCH_COLUMNS[table]}], tags)"
        op.execute(f"CREATE INDEX ix_{table}_search ON {table} USING gin ({grams}) WITH (fastupdate = off)")
    for name, value in ORDERS.items():
        op.execute(f"CREATE INDEX ix_job_owner_id_{name} ON job (owner_id, {value}, id)")


def downgrade() -> None:
    for name in ORDERS:
        op.execute(f"DROP INDEX ix_job_owner_id_{name}")
    for table in SEARCH_COLUMNS:
        for name in ("tag_combination", "tags", "search"):
            op.execute(f"DROP INDEX ix_{table}_{name}")
        if table != "job":
            op.execute(f"CREATE INDEX ix_{table}_owner_id ON {table} (owner_id)")
            op.execute(f"DROP INDEX ix_{table}_owner_id_id")
    op.execute("ALTER TABLE job DROP COLUMN listed_loss")
    op.execute("DROP FUNCTION search_grams; DROP FUNCTION search_query")
