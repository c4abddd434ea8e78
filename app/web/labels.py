"""The form for the name, tags and notes of a row of a list, which every kind of list has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from app.core import db, labels
from app.core.errors import PanelError
from app.core.i18n import translate
from app.core.labels import LabelChanges
from app.core.principal import Principal
from app.web.auth import Submitter
from app.web.bulk import text_fields
from app.web.forms import FormBody
from app.web.pages import page
from app.web.parameters import id_named

LABEL_ERRORS = ("name_missing", "name_too_long", "character_invalid", "tag_comma", "tags_many")
ChangeLabels = Callable[[Session, Principal, str, LabelChanges], Any]


@dataclass(frozen=True)
class LabelForm:
    """The form of one kind of rows, at `path`/ID/edit. `change` is the operation behind it, which returns the row;
    `back` names the page of a row, and `help` says what its name is for.
    """

    path: str
    back: str
    change: ChangeLabels
    help: str = ""
    is_name_required: bool = True

    def add_routes(self, router: APIRouter, id_name: str) -> None:
        """Add the pages of the form to a router. `id_name` is the parameter of their paths that has the ID of a row."""
        path, row_id_in_path = f"{self.path}/{{{id_name}}}/edit", id_named(id_name)

        @router.get(path)
        def show_labels(request: Request, principal: Submitter, row_id: str = row_id_in_path) -> Response:
            """The form for the name, the tags and the notes of a row."""
            return self.show(request, principal, row_id)

        @router.post(path)
        def save_labels(
            request: Request, principal: Submitter, form_data: FormBody, row_id: str = row_id_in_path
        ) -> Response:
            """Name, tag or describe a row, and redirect to its page."""
            return self.save(request, principal, row_id, form_data)

    def show(self, request: Request, principal: Principal, row_id: str) -> Response:
        """The form. Raises PanelError for a row that the user cannot change."""
        with db.transaction() as session:
            row = self.change(session, principal, row_id, LabelChanges())
            values = {"name": row.name, "tags": ", ".join(row.tags), "notes": row.notes}
        return self._page(request, principal, row_id, values)

    def save(self, request: Request, principal: Principal, row_id: str, form_data: FormBody) -> Response:
        """Save the form and redirect to the page of the row; if something is wrong, show the form again."""
        text = text_fields(form_data)
        try:
            with db.transaction() as session:
                self.change(session, principal, row_id, labels.from_form(text))
        except PanelError as error:
            if error.status != 422:
                raise
            return self._page(request, principal, row_id, text, error)
        return RedirectResponse(f"{self.path}/{row_id}", status_code=303)

    def _page(
        self,
        request: Request,
        principal: Principal,
        row_id: str,
        values: Mapping[str, str],
        error: PanelError | None = None,
    ) -> Response:
        return page(
            request,
            "_edit_labels.html",
            error.status if error is not None else 200,
            principal=principal,
            address=f"{self.path}/{row_id}",
            back=translate(self.back),
            help=translate(self.help) if self.help else None,
            is_name_required=self.is_name_required,
            values=values,
            errors={problem.field: problem.message for problem in error.fields} if error is not None else {},
        )
