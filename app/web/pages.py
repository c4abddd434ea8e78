"""Renders HTML pages and runs the actions of their forms. `python -m app.web.pages` compiles all templates."""

import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from sqlalchemy.orm import Session

from app.core import db, i18n, queue, trash
from app.core.errors import PanelError
from app.core.formatting import compact, file_size, instant, number, span
from app.core.i18n import _
from app.core.labels import checkpoint_title
from app.core.principal import Principal
from app.core.settings import ROOT
from app.web import auth, navigation, sentence_spaces
from app.web.forms import by_label
from app.web.static_files import STATIC_PATH
from app.web.token_cells import named_bytes, spaced_hex, token_cells
from app.web.unread import count_unread

LANGUAGE_COOKIE = "athanor_language"
THEME_COOKIE = "athanor_theme"


# Links to forms of members, and dialogs that everybody uses: they change only a user's own account.
MEMBER_PAGES = ("/jobs/new", "/jobs/import", "/corpora/write", "/synthetic/new")
OWN_DIALOGS = ("revoke", "remove", "forget")


def may_use(principal: Principal | None, href: str | None = None, dialog: str = "") -> bool:
    """Whether a page offers a user a link or the dialog of a change: viewers only those that are not refused."""
    if principal is None or principal.is_at_least("member"):
        return True
    is_for_members = (href or "").startswith(MEMBER_PAGES) or (href or "").endswith("/edit")
    return not is_for_members and (not dialog or dialog.startswith(OWN_DIALOGS))


TEMPLATES = ROOT / "templates"


class CompiledTemplates(FileSystemBytecodeCache):
    """Templates as Python bytecode, by their source, the version of Jinja and the modules that say how it compiles.

    Compiling all takes 4 s of a slow processor, and 0.15 s for one stop all requests of the web process.
    """

    def __init__(self, directory: Path) -> None:
        with suppress(OSError):  # an installation may be read-only: what it has was written when it was made
            directory.mkdir(exist_ok=True)
        sources = b"".join(Path(file).read_bytes() for file in (__file__, sentence_spaces.__file__))
        compiler = sha256(version("jinja2").encode() + sources).hexdigest()[:12]
        super().__init__(str(directory), f"%s.{compiler}.bytecode")

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Store a template that was compiled, for all users, if the directory can be written."""
        with suppress(OSError):
            super().dump_bytecode(bucket)
            Path(self._get_cache_filename(bucket)).chmod(0o644)  # the user who installs may be another than runs it


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        bytecode_cache=CompiledTemplates(TEMPLATES / "__pycache__"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[sentence_spaces.SentenceSpaces],
    )
    environment.globals[sentence_spaces.NAME] = sentence_spaces.SentenceSpace()
    environment.globals.update(_=_, t=i18n.translate, ngettext=i18n.ngettext, plural_forms=i18n.plural_forms)
    environment.globals.update(locale=i18n.locale, static=STATIC_PATH, languages=i18n.LOCALES)
    environment.globals.update(menu=navigation.MENU, current_page=navigation.current_page)
    environment.globals.update(pages_for=navigation.pages_for)
    environment.filters.update(
        number=number, bytes=file_size, instant=instant, span=span, compact=compact, language=i18n.language_name
    )
    environment.filters.update(by_label=by_label, spaced_hex=spaced_hex, named_bytes=named_bytes)
    environment.globals.update(checkpoint_title=checkpoint_title, may_use=may_use, cells_of=token_cells)
    return environment


templates = Jinja2Templates(env=_environment())


def load_templates() -> None:
    """Load all templates, so that no request waits until one is compiled."""
    for name in templates.env.list_templates(extensions=["html"]):
        templates.env.get_template(name)


def page(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """Render a template. Every page has `principal`: the user, or None for a visitor; and `num_unread`."""
    if "principal" not in context:
        context["principal"] = auth.identify(request)
    if context["principal"] is not None:
        with db.transaction() as session:
            context["num_unread"] = count_unread(session, context["principal"].user_id)
            if "trashed" in request.query_params:
                context.setdefault("trashed", _trashed(session, request, context["principal"]))
    return render(request, template, status, **context)


def render(request: Request, template: str, status: int, **context: Any) -> HTMLResponse:
    """Render a template whose `principal` is in the context. Needs no database, so that errors can be rendered."""
    context.setdefault("num_unread", 0)
    context.setdefault("shared_by", None)  # the name of the owner, on the page of what another user shares
    moved = getattr(context.get("outcome"), "trashed", None)
    context["trashed"] = moved or context.get("trashed", [])
    context["theme"] = request.cookies.get(THEME_COOKIE, "system")
    return templates.TemplateResponse(request, template, context, status_code=status)


def _trashed(session: Session, request: Request, principal: Principal) -> list[str]:
    """The ID of what an action has just moved to the trash, which the page offers to restore, if it is there."""
    ids = [row_id for row_id in request.query_params.getlist("trashed") if re.fullmatch("[0-9a-z]{1,32}", row_id)]
    return trash.of_user(session, principal, ids[:1])


def handle_form_action(
    verb: Callable[[Session], object], then: str, refused: Callable[[PanelError], Response]
) -> Response:
    """Run `verb` in a transaction and redirect to `then`. An error is passed to `refused`, which draws the page.

    Raises PanelError for a 404.
    """
    try:
        with db.transaction() as session:
            verb(session)
    except PanelError as error:
        if error.status == 404:
            raise
        return refused(error)
    queue.flush_outbox()
    return RedirectResponse(then, status_code=303)


if __name__ == "__main__":
    load_templates()
