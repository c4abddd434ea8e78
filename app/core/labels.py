"""Name, tags and notes of what users keep in lists: jobs, checkpoints, corpora, base models and tokenizers."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from app.core import audit_log
from app.core.audit_log import Action
from app.core.errors import PanelError, bad_field
from app.core.formatting import number
from app.core.i18n import _
from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.names import check_text, checked_name, comparison_key
from app.core.principal import Principal, visible_parts

MAX_TAGS = 20
MAX_TAG_LENGTH = 40
MAX_LISTED_TAGS = 200
MAX_COMBINATIONS = 1_000  # of tags that the rows of an owner have together; of more, the newest rows are counted
MAX_COUNTED_ROWS = 10_000
MAX_NOTES_LENGTH = 10_000
MAX_NAME_LENGTHS: dict[type[Any], int] = {
    Job: 80,
    Checkpoint: 80,
    Corpus: 120,
    ImportedModel: 120,
    Tokenizer: 120,
}
RENAMED: dict[type[Any], Action] = {
    Job: "job_renamed",
    Checkpoint: "checkpoint_renamed",
    Corpus: "corpus_renamed",
    ImportedModel: "model_renamed",
    Tokenizer: "tokenizer_renamed",
}


class LabelChanges(BaseModel):
    """What can be changed of anything in a list; fields that are left out stay."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Genesis", "tags": ["verse"]}]})

    name: str | None = Field(None, max_length=1_000, description="How it is listed from now on.")
    tags: list[str] | None = Field(None, max_length=100, description=f"At most {MAX_TAGS}, without commas.")
    notes: str | None = Field(None, max_length=MAX_NOTES_LENGTH)


def change(session: Session, principal: Principal, row: Any, changes: LabelChanges) -> None:
    """Rename, tag or describe a row of the user's, which is locked. Raises PanelError (422) at the wrong field."""
    if changes.name is not None:
        is_unnamed = isinstance(row, Checkpoint) and not changes.name.strip()
        name = "" if is_unnamed else checked_name(changes.name, max_length=MAX_NAME_LENGTHS[type(row)])
        if name != row.name:
            audit_log.record(session, RENAMED[type(row)], principal, subject=name, subject_id=row.id, detail=row.name)
        row.name = name
    if changes.tags is not None:
        row.tags = checked_tags(changes.tags)
    if changes.notes is not None:
        check_text("notes", changes.notes)
        row.notes = changes.notes.strip()


def checkpoint_title(job_name: str, step: int, name: str = "") -> str:
    """A checkpoint as lists and choices name it: by its own name, if it has one, its job and its step."""
    place = f"{job_name} · {_('step {n}', n=number(step))}"
    return f"{name} · {place}" if name else place


def checked_tags(tags: Sequence[str]) -> list[str]:
    """The tags in their order, each once. Raises PanelError (422) at `tags`."""
    checked = [checked_name(tag, max_length=MAX_TAG_LENGTH, field="tags") for tag in tags if tag.strip()]
    by_key = {comparison_key(tag): tag for tag in reversed(checked)}
    unique = list(by_key.values())[::-1]
    if any("," in tag for tag in unique):
        raise bad_field("tags", "tag_comma", _("A tag cannot contain a comma."))
    if len(unique) > MAX_TAGS:
        raise bad_field("tags", "tags_many", _("There can be at most {max} tags.", max=MAX_TAGS))
    return unique


def with_tag(row: Any, tag: str) -> LabelChanges:
    """The change that adds a tag to a row. Raises PanelError (422) without one."""
    if not tag.strip():
        raise PanelError(422, "tag_missing", _("Enter a tag."))
    return LabelChanges(tags=[*row.tags, tag[:1_000]])


def from_form(text: dict[str, str]) -> LabelChanges:
    """The changes of a form with the fields `name`, `tags` (with commas between them) and `notes`; longer texts are cut
    where they would be refused without a sentence.
    """
    return LabelChanges(
        name=text.get("name", "")[:1_000],
        tags=text.get("tags", "")[:1_000].replace("，", ",").split(",")[:100],
        notes=text.get("notes", "")[:MAX_NOTES_LENGTH],
    )


def matches(table: type[Any], search: str) -> ColumnElement[bool]:
    """Whether a text is a part of a row's name, notes, one of its tags or another text that lists search, whatever its
    case.
    """
    tags = func.jsonb_array_elements_text(table.tags).table_valued("value").render_derived()
    in_tags = exists().where(tags.c.value.icontains(search, autoescape=True))
    in_texts = (getattr(table, name).icontains(search, autoescape=True) for name in table.search_columns)
    return and_(_has_grams(table, search), or_(in_tags, *in_texts))


def is_named(table: type[Any], search: str) -> ColumnElement[bool]:
    """Whether a text is a part of a row's name, whatever its case."""
    return and_(_has_grams(table, search), table.name.icontains(search, autoescape=True))


def _has_grams(table: type[Any], search: str) -> ColumnElement[bool]:
    """Whether each three characters in a row of a text are somewhere in a row, as an index says (`list_indexes` in
    app/core/model_base.py).
    """
    texts = array([getattr(table, name) for name in table.search_columns])
    return func.search_grams(texts, table.tags).bool_op("@@")(func.search_query(search))


def has_tag(table: type[Any], tag: str) -> ColumnElement[bool]:
    """Whether a row has exactly this tag."""
    condition: ColumnElement[bool] = table.tags.contains([tag])
    return condition


def list_tags(session: Session, *, principal: Principal, table: type[Any]) -> list[str]:
    """The tags of the rows of a table that the user sees, in alphabetical order; of very many those that are used most,
    and of equal ones the first by the alphabet.
    """
    parts = visible_parts(table, principal)
    combinations = session.scalars(_combinations(table, parts["own"])).all()
    rows = select(table.tags).where(table.tags != text("'[]'"))
    if len(combinations) > MAX_COMBINATIONS:
        newest = rows.where(parts["own"]).order_by(table.id.desc()).limit(MAX_COUNTED_ROWS)
        combinations = session.scalars(newest).all()
    others = [rows.where(part) for name, part in parts.items() if name != "own"]
    of_others = union_all(*others).subquery()
    tag = func.jsonb_array_elements_text(of_others.c.tags).label("tag")
    counted = select(tag, func.count()).group_by(tag).order_by(func.count().desc(), tag).limit(MAX_LISTED_TAGS)
    counts = Counter(tag for tags in combinations for tag in tags)
    for name, count in session.execute(counted):
        counts[name] += count
    return sorted(sorted(counts, key=lambda name: (-counts[name], name))[:MAX_LISTED_TAGS])


def _combinations(table: type[Any], condition: ColumnElement[bool]) -> Select[Any]:
    """The tags of the rows of an owner, each combination of tags once, at most one more than MAX_COMBINATIONS: from one
    to the next by an index, however many rows have the same.
    """
    key = func.md5(cast(table.tags, Text))
    rows = select(key.label("key"), table.tags).where(condition, table.tags != text("'[]'")).order_by(key).limit(1)
    first = rows.cte("combination", recursive=True)
    larger = rows.where(key > first.c.key).lateral()
    every = first.union_all(select(larger).select_from(first.join(larger, true())))
    return select(every.c.tags).limit(MAX_COMBINATIONS + 1)
