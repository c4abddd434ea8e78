"""Changes of several rows of a list at once; before a deletion, a page says what it frees and what depends on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from app.core import db, disk, queue
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.principal import Principal, visible
from app.web.list_view import ListView
from app.web.pages import page

MAX_ROWS = 100
MAX_NAMES = 5  # of the rows that depend on another one


@dataclass
class BulkOutcome:
    """How many rows were changed, which of them are in the trash now, and why others were not: each reason with the
    names of its rows.
    """

    action: str
    num_changed: int = 0
    trashed: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_refused(self) -> bool:
        """Whether nothing was changed."""
        return self.num_changed == 0


@dataclass(frozen=True)
class BulkRows:
    """The rows of a list: their table, the name of their boxes, and how they are named, changed and moved to the trash.

    `uses` are sentences on what depends on a row, `directory` its files, `changes` the verbs besides deletion by their
    action.
    """

    table: type[Any]
    box: str
    directory: Callable[[Any], Path]
    delete: Callable[[Session, Principal, str], object]
    uses: Callable[[Session, Principal, Any], list[str]]
    name: Callable[[Session, Any], str] = lambda _session, row: str(row.name)
    changes: dict[str, Callable[[Session, Principal, str], object]] = field(default_factory=dict)


@dataclass(frozen=True)
class Deletion:
    """A row that someone wants to delete: what depends on it, and why it cannot be deleted, if so."""

    id: str
    name: str
    num_bytes: int
    uses: list[str]
    refusal: str


def chosen(form: FormData, box: str) -> list[str]:
    """The IDs whose boxes were checked, each once and not too many."""
    return list(dict.fromkeys(str(value) for value in form.getlist(box)))[:MAX_ROWS]


def text_fields(form: FormData) -> dict[str, str]:
    """The fields of a form that are texts."""
    return {name: value for name, value in form.items() if isinstance(value, str)}


def change_each(
    action: str,
    ids: Sequence[str],
    verb: Callable[[Session, str], object],
    name_of: Callable[[Session, str], str],
    then: Callable[[str], object] = lambda _row_id: None,
) -> BulkOutcome:
    """Change rows, each in a transaction of its own, so that one that cannot be changed stops none."""
    outcome = BulkOutcome(action)
    for row_id in ids:
        name = row_id
        try:
            with db.transaction() as session:
                name = name_of(session, row_id)
                verb(session, row_id)
        except PanelError as error:
            outcome.refused.setdefault(_reason(error), []).append(name)
        else:
            outcome.num_changed += 1
            if action == "delete":
                outcome.trashed.append(row_id)
            then(row_id)
    return outcome


def change_rows(
    request: Request, principal: Principal, rows: BulkRows, view: ListView, form: FormData, question: str
) -> Response | BulkOutcome:
    """Carry out the action of a form. A deletion that is not confirmed answers the page that asks the question."""
    action, ids = str(form.get("action", "")), chosen(form, rows.box)
    if not ids:
        return BulkOutcome(action, refused={_("Choose at least one entry of the list."): []})
    if action == "delete" and "confirmed" not in form:
        return _confirm(request, principal, rows, view, ids, question)
    if action != "delete" and action not in rows.changes:
        return BulkOutcome(action, refused={_("Choose what to do with the entries."): []})
    change = rows.delete if action == "delete" else rows.changes[action]

    def verb(session: Session, row_id: str) -> None:
        change(session, principal, row_id)

    def name_of(session: Session, row_id: str) -> str:
        return rows.name(session, visible(session, rows.table, row_id, principal=principal))

    outcome = change_each(action, ids, verb, name_of)
    queue.flush_outbox()
    return outcome


def _confirm(
    request: Request, principal: Principal, rows: BulkRows, view: ListView, ids: Sequence[str], question: str
) -> Response:
    deletions: list[Deletion] = []
    directories: list[Path] = []
    for row_id in ids:
        with db.transaction() as session:
            try:
                row = visible(session, rows.table, row_id, principal=principal)
            except PanelError as error:
                deletions.append(Deletion(row_id, row_id, 0, [], error.message))
                continue
            name, directory, uses = rows.name(session, row), rows.directory(row), rows.uses(session, principal, row)
            refusal = _refusal(session, partial(rows.delete, session, principal, row_id))
        deletions.append(Deletion(row_id, name, disk.freed_by_deleting([directory]), uses, refusal))
        if not refusal:
            directories.append(directory)
    return page(
        request,
        "_confirm_deletion.html",
        principal=principal,
        question=question,
        deletions=deletions,
        num_bytes=disk.freed_by_deleting(directories),
        num_deletable=len(directories),
        box=rows.box,
        view=view,
    )


def _refusal(session: Session, verb: Callable[[], object]) -> str:
    """Why a change would be refused, or an empty text. It is tried, and rolled back."""
    attempt = session.begin_nested()
    try:
        verb()
        session.flush()
    except PanelError as error:
        return _reason(error)
    finally:
        attempt.rollback()
    return ""


def _reason(error: PanelError) -> str:
    return error.fields[0].message if error.fields else error.message


def listed(names: Sequence[str]) -> str:
    """Names in one text: the first few, and a sign that there are more."""
    return ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
