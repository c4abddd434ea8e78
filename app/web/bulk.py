"""Changes of several rows of a list at once; before a deletion, a page says what it frees and what depends on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from app.core import db, disk, labels, queue
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.labels import LabelChanges
from app.core.principal import Principal, visible
from app.web.list_view import ListView
from app.web.pages import page

MAX_ROWS = 100
MAX_NAMES = 5  # of the rows that depend on another one


@dataclass(frozen=True)
class RowOutcome:
    """What became of one row: `error` says why it was not changed."""

    id: str
    name: str
    error: PanelError | None = None


@dataclass
class BulkOutcome:
    """What became of each of several rows. `problem` says why nothing was tried."""

    action: str
    rows: list[RowOutcome] = field(default_factory=list)
    problem: str = ""

    @property
    def num_changed(self) -> int:
        """How many rows were changed."""
        return sum(row.error is None for row in self.rows)

    @property
    def trashed(self) -> list[str]:
        """The IDs of the rows that are in the trash now."""
        return [row.id for row in self.rows if row.error is None] if self.action == "delete" else []

    @property
    def refused(self) -> dict[str, list[str]]:
        """Why rows were not changed: each reason with the names of its rows."""
        reasons: dict[str, list[str]] = {self.problem: []} if self.problem else {}
        for row in self.rows:
            if row.error is not None:
                reasons.setdefault(reason(row.error), []).append(row.name)
        return reasons

    @property
    def is_refused(self) -> bool:
        """Whether nothing was changed."""
        return self.num_changed == 0


@dataclass(frozen=True)
class BulkRows:
    """The rows of a list: their table, the name of their boxes, and how they are named, changed and moved to the trash.

    `uses` are sentences on what depends on a row, `directory` its files, `changes` the verbs besides deletion by their
    action, `change_labels` that of app/core/labels.py, of rows that can be tagged, and `after_change` is called with
    the ID of each row that was changed, once that is committed.
    """

    table: type[Any]
    box: str
    directory: Callable[[Any], Path]
    delete: Callable[[Session, Principal, str], object]
    uses: Callable[[Session, Principal, Any], list[str]]
    name: Callable[[Session, Any], str] = lambda _session, row: str(row.name)
    changes: dict[str, Callable[[Session, Principal, str], object]] = field(default_factory=dict)
    change_labels: Callable[[Session, Principal, str, LabelChanges], object] | None = None
    after_change: Callable[[str], object] = lambda _row_id: None

    def verb(self, action: str, tag: str = "") -> Callable[[Session, Principal, str], object] | None:
        """The operation of an action on one row; None if these rows have no such action."""
        if action == "delete":
            return self.delete
        if action == "tag" and self.change_labels is not None:
            return partial(self._add_tag, self.change_labels, tag)
        return self.changes.get(action)

    def _add_tag(
        self,
        change_labels: Callable[[Session, Principal, str, LabelChanges], object],
        tag: str,
        session: Session,
        principal: Principal,
        row_id: str,
    ) -> None:
        row = visible(session, self.table, row_id, principal=principal, for_update=True)
        change_labels(session, principal, row_id, labels.with_tag(row, tag))


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
            outcome.rows.append(RowOutcome(row_id, name, error))
        else:
            outcome.rows.append(RowOutcome(row_id, name))
            then(row_id)
    return outcome


def change_rows(
    request: Request, principal: Principal, rows: BulkRows, view: ListView, form: FormData, question: str
) -> Response | BulkOutcome:
    """Carry out the action of a form. A deletion that is not confirmed answers the page that asks the question."""
    action, ids = str(form.get("action", "")), chosen(form, rows.box)
    if not ids:
        return BulkOutcome(action, problem=_("Choose at least one entry of the list."))
    if action == "delete" and "confirmed" not in form:
        return _confirm(request, principal, rows, view, ids, question)
    change = rows.verb(action, str(form.get("new_tag", "")))
    if change is None:
        return BulkOutcome(action, problem=_("Choose what to do with the entries."))
    return apply(principal, rows, action, ids, change)


def apply(
    principal: Principal,
    rows: BulkRows,
    action: str,
    ids: Sequence[str],
    change: Callable[[Session, Principal, str], object],
) -> BulkOutcome:
    """Change rows of a list, each in a transaction of its own."""

    def verb(session: Session, row_id: str) -> None:
        change(session, principal, row_id)

    def name_of(session: Session, row_id: str) -> str:
        return rows.name(session, visible(session, rows.table, row_id, principal=principal))

    outcome = change_each(action, ids, verb, name_of, rows.after_change)
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
        return reason(error)
    finally:
        attempt.rollback()
    return ""


def reason(error: PanelError) -> str:
    """Why a row was not changed, as a sentence."""
    return error.fields[0].message if error.fields else error.message


def listed(names: Sequence[str]) -> str:
    """Names in one text: the first few, and a sign that there are more."""
    return ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
