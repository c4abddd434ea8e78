"""What all tables have in common: their base class, the types of their columns, and ids."""

import secrets
import time
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, Index, MetaData, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core.hub_shapes import HubDataset
from app.core.json_columns import JsonColumn
from app.core.json_shapes import (
    Adjustments,
    AnswerSettings,
    Cleaning,
    ConversationColumn,
    FailureReason,
    Gpu,
    JobFacts,
    JobProgress,
    Manifest,
    MessageValues,
    ModelFacts,
    Notice,
    ParseReport,
    Problem,
    Replay,
    StoredFile,
    TaskOptions,
    TaskProgress,
    TaskResult,
    Telemetry,
    TokenizerFacts,
)
from app.core.synthetic_shapes import Synthesis
from trainer.spec import TrainSpec

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_last_number = 0  # of the newest id of this process


def new_id() -> str:
    """A 16-character identifier that sorts by creation time: 48 bits of milliseconds, then 32 random bits.

    Those of one process sort in the order they were drawn in, even within a millisecond or after its clock was set
    back: each is at least the one before plus a random step.
    """
    global _last_number
    drawn = (int(time.time() * 1000) & (2**48 - 1)) << 32 | secrets.randbits(32)
    _last_number = number = max(drawn, _last_number + 1 + secrets.randbits(24))
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5))


def one_of(column: str, words: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


_SHAPES = (
    *(Adjustments, JobFacts, JobProgress, Manifest, ModelFacts, ParseReport, TaskOptions, TaskProgress, Telemetry),
    *(
        AnswerSettings,
        MessageValues,
        dict[str, int],
        dict[str, float],
        list[ConversationColumn],
        list[Gpu],
        list[Problem],
        list[StoredFile],
        TokenizerFacts,
    ),
)
_SHAPES_OR_NONE = (Cleaning, FailureReason, HubDataset, Notice, Replay, Synthesis, TaskResult)
_COLUMN_TYPES: dict[Any, Any] = {
    datetime: DateTime(timezone=True),
    str: Text,
    list[str]: JSONB,
    TrainSpec: JsonColumn(TrainSpec, is_complete=True),
    **{shape: JsonColumn(shape) for shape in _SHAPES},
    **{shape: JsonColumn(shape, empty_is_none=True) for shape in _SHAPES_OR_NONE},
}


class Base(DeclarativeBase):
    """Common to all tables: instants carry a zone, dictionaries are JSONB, constraints have predictable names."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = _COLUMN_TYPES


class Labeled:
    """What its owner finds again in a list by words and a note of their own (app/core/labels.py)."""

    search_columns: ClassVar[tuple[str, ...]] = ("name", "notes")  # besides the tags
    tags: Mapped[list[str]] = mapped_column(server_default="[]")
    notes: Mapped[str] = mapped_column(server_default="")


# The validation loss by which lists of jobs are ordered: infinite if there is none or it is no number. An index of this
# expression would be written, with all others, at each change of the progress.
EVAL_LOSS = (
    "CASE jsonb_typeof(progress #> '{latest,eval_loss}'::text[]) WHEN 'number'::text"
    " THEN (progress #>> '{latest,eval_loss}'::text[])::double precision ELSE 'Infinity'::double precision END"
)


def list_indexes(
    table: str, search_columns: tuple[str, ...] = Labeled.search_columns, **orders: str
) -> tuple[Index, ...]:
    """What a long list of labeled rows reads by: the rows of an owner in the order of their ids, or of a value; each
    combination of tags that they have; the rows with a tag; and those with some characters in a row.
    """
    grams = text(f"search_grams(ARRAY[{', '.join(search_columns)}], tags)")
    has_tags = text("tags <> '[]' AND deleted_at IS NULL")
    return (
        Index(f"ix_{table}_owner_id_id", "owner_id", "id"),
        *(Index(f"ix_{table}_owner_id_{name}", "owner_id", text(value), "id") for name, value in orders.items()),
        Index(f"ix_{table}_tag_combination", "owner_id", text("md5(tags::text)"), postgresql_where=has_tags),
        Index(f"ix_{table}_tags", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
        # Not updated later in one go: a search would read all that waits for it.
        Index(f"ix_{table}_search", grams, postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
    )


class Artifact:
    """What users make, delete into the trash (app/core/trash.py) and share with others (app/core/sharing.py).

    From `deleted_at` on nobody sees or uses a row.
    """

    deleted_at: Mapped[datetime | None] = mapped_column(index=True)

    @property
    def shared_by(self) -> str | None:
        """The name of the owner, of a row that was read for another user (`name_owners` in app/core/principal.py)."""
        name: str | None = self.__dict__.get("_shared_by")
        return name

    @shared_by.setter
    def shared_by(self, name: str | None) -> None:
        self.__dict__["_shared_by"] = name
