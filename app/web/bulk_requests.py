"""Bodies of the operations that change several rows of a list at once, and what they answer for each."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.errors import bad_field
from app.core.i18n import _
from app.core.principal import Principal
from app.web.bulk import MAX_ROWS, BulkOutcome, BulkRows, apply, reason

RowIds = Annotated[
    list[Annotated[str, Field(max_length=32, pattern="^[0-9a-z]+$")]],
    Field(min_length=1, max_length=MAX_ROWS, description="The ids of the rows. One that is named twice counts once."),
]
Tag = Annotated[str, Field(max_length=1_000, description="The tag to add; only with the action tag.")]


class RowsRequest(BaseModel):
    """Corpora, base models or tokenizers to move to the trash or to tag."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"action": "tag", "ids": ["06bv8h2m4c7k9qz1"], "tag": "verse"}]}
    )

    action: Literal["delete", "tag"]
    ids: RowIds
    tag: Tag = ""


class JobsRequest(BaseModel):
    """Jobs to cancel, to move to the trash or to tag."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"action": "cancel", "ids": ["06bv8h2m4c7k9qz1"]}]}
    )

    action: Literal["cancel", "delete", "tag"]
    ids: RowIds
    tag: Tag = ""


class CheckpointsRequest(BaseModel):
    """Checkpoints to pin, to unpin, to move to the trash or to tag."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"action": "pin", "ids": ["06bv8h2m4c7k9qz1"]}]}
    )

    action: Literal["pin", "unpin", "delete", "tag"]
    ids: RowIds
    tag: Tag = ""


class RowAnswer(BaseModel):
    """What became of one row."""

    id: str
    is_changed: bool
    code: str | None = Field(description="Why it was not changed: the code of the error for this row alone.")
    message: str | None = Field(description="The same as a sentence.")


class RowsAnswer(BaseModel):
    """What became of several rows. Each is changed by itself: one that cannot be stops none."""

    action: str
    num_changed: int
    data: list[RowAnswer] = Field(description="In the order of the request.")


def checked_tag(action: str, tag: str) -> str:
    """The tag of a request. Raises PanelError (422) at `tag` if the action needs one."""
    if action == "tag" and not tag.strip():
        raise bad_field("tag", "tag_missing", _("Enter a tag."))
    return tag


def change_rows(
    principal: Principal, rows: BulkRows, request: RowsRequest | JobsRequest | CheckpointsRequest, tag: str = ""
) -> RowsAnswer:
    """Carry out a request on rows of a list. Raises PanelError (422) without a tag where one is needed."""
    change = rows.verb(request.action, checked_tag(request.action, tag))
    assert change is not None, f"{rows.table.__name__} has no action {request.action}"
    return answer(apply(principal, rows, request.action, list(dict.fromkeys(request.ids)), change))


def answer(outcome: BulkOutcome) -> RowsAnswer:
    """The response for what became of several rows."""
    return RowsAnswer(
        action=outcome.action,
        num_changed=outcome.num_changed,
        data=[
            RowAnswer(
                id=row.id,
                is_changed=row.error is None,
                code=row.error.code if row.error else None,
                message=reason(row.error) if row.error else None,
            )
            for row in outcome.rows
        ],
    )
