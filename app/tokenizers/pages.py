"""HTML routes of tokenizers: the list with the forms to train and import, the page of one, and the comparison."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.core import db, labels, queue, sharing
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, gettext_noop, translate
from app.core.models import Tokenizer
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.corpora import tokenizers as stored_tokenizers
from app.tokenizers import comparison, imports, problems, service, vocabulary
from app.tokenizers.bulk import LABELS, ROWS
from app.tokenizers.curve_plot import plot
from app.tokenizers.schemas import MAX_COMPARED, MAX_SAMPLE_BYTES, MIN_SAMPLE_BYTES, Tokenization, TrainRequest
from app.web import bulk, multipart
from app.web.auth import Reader, Submitter
from app.web.bulk import BulkOutcome
from app.web.errors import form_error
from app.web.forms import FormBody, errors_by_control
from app.web.list_view import OWNERS, ListView
from app.web.pages import handle_form_action, page
from app.web.paging import After
from app.web.parameters import Id, Part, ShortText
from app.web.preview_process import PREVIEWS

router = APIRouter()
PAGE_ROWS = 50
CONTROLS = {"corpora", "vocab_size", "model_kind", "special_tokens", "sample_bytes", "name", "file"}  # that show errors
FORM_BYTES = 2**20  # of a form besides its file
MEGABYTE = 2**20
ALGORITHMS = {
    "byte_level_bpe": gettext_noop("Byte-level BPE"),
    "bpe": gettext_noop("BPE"),
    "unigram": gettext_noop("Unigram"),
    "wordpiece": gettext_noop("WordPiece"),
    "wordlevel": gettext_noop("Whole words"),
    "other": gettext_noop("Other"),
}
SOURCES = {
    "job": gettext_noop("trained by a job"),
    "training": gettext_noop("trained by itself"),
    "import": gettext_noop("imported"),
}
SAMPLES = (
    "The old lighthouse keeper counted 1,204 steps every evening, and he never once complained about the climb.",
    "老灯塔的看守人每天傍晚要走一千二百零四级台阶，他从来没有抱怨过这段路。",
)


def _view(query: Mapping[str, str]) -> ListView:
    """Which tokenizers the list shows."""
    states = ("", *get_args(stored_tokenizers.TokenizerState))
    orders = get_args(stored_tokenizers.TokenizerOrder)
    return ListView.of("/tokenizers", query, orders, source=("", *SOURCES), state=states, tag=(), owner=OWNERS)


def _index(
    request: Request,
    principal: Principal,
    after: str | None = None,
    part: str = "",
    error: PanelError | None = None,
    values: dict[str, Any] | None = None,
    view: ListView | None = None,
    outcome: BulkOutcome | None = None,
) -> Response:
    view = view or _view(request.query_params)
    fields = errors_by_control(error)
    with db.transaction() as session:
        rows, cursor = stored_tokenizers.list_tokenizers(
            session,
            principal=principal,
            limit=PAGE_ROWS,
            after=after,
            search=view["q"],
            tag=view["tag"],
            source=view["source"],
            state=view["state"],
            owner=view["owner"] or None,
            order=view["order"],
        )
        ids = {corpus_id for row in rows for corpus_id in row.corpora}
        names = corpora_service.corpus_names(session, principal=principal, ids=ids)
        jobs = service.jobs_of_tokenizers(session, principal=principal)
        tags = labels.list_tags(session, principal=principal, table=Tokenizer)
        tasks = service.tasks_of(session, rows)
        corpora, _next = corpora_service.list_corpora(session, principal=principal, limit=200)
    return page(
        request,
        "tokenizers/_list.html" if part == "list" else "tokenizers/index.html",
        error.status if error else 422 if outcome and outcome.is_refused else 200,
        outcome=outcome,
        tags=view.choices("tag", tags),
        principal=principal,
        tokenizers=rows,
        view=view,
        next=cursor,
        after=after,
        names=names,
        jobs=jobs,
        tasks=tasks,
        sources={name: translate(word) for name, word in SOURCES.items()},
        corpora=[corpus for corpus in corpora if corpus.state == "ready"],
        error=error.message if error and not {*fields} & CONTROLS else "",
        fields=fields,
        values=values or {},
        endings=imports.ENDINGS,
        max_bytes=imports.MAX_BYTES,
    )


@router.get("/tokenizers")
def show_tokenizers(request: Request, principal: Reader, after: After = None, part: Part = "") -> Response:
    """The list of tokenizers with the forms to train and import one; with `part=list` only the list, to update it."""
    return _index(request, principal, after, part)


@router.post("/tokenizers")
def train(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Train a tokenizer, and go to its page."""
    values: dict[str, Any] = {name: value for name, value in form.items() if isinstance(value, str) and value.strip()}
    values["corpora"] = [value for value in form.getlist("corpora") if isinstance(value, str)]
    fields = {**values, "special_tokens": str(form.get("special_tokens") or "").split()}
    try:
        if not values["corpora"]:
            raise bad_field("corpora", "request_invalid", _("Choose a corpus."))
        if "sample_megabytes" in fields:
            fields["sample_bytes"] = _bytes_of(fields.pop("sample_megabytes"))
        with db.transaction() as session:
            body = TrainRequest.model_validate(fields)
            tokenizer_id = service.train(session, principal=principal, request=body).id
    except ValidationError as error:
        return _index(request, principal, error=form_error(error), values=values)
    except PanelError as error:
        return _index(request, principal, error=error, values=values)
    queue.flush_outbox()
    return RedirectResponse(f"/tokenizers/{tokenizer_id}", status_code=303)


def _bytes_of(megabytes: str) -> int:
    """A number of MB from a form, as bytes. Raises PanelError."""
    try:
        num_bytes = int(float(megabytes) * MEGABYTE)
    except (ValueError, OverflowError):
        raise bad_field("sample_bytes", "request_invalid", _("Enter a number.")) from None
    if not MIN_SAMPLE_BYTES <= num_bytes <= MAX_SAMPLE_BYTES:
        low, high = (f"{size / MEGABYTE:.3g}" for size in (MIN_SAMPLE_BYTES, MAX_SAMPLE_BYTES))
        message = _("Enter a number from {low} to {high}.", low=low, high=high)
        raise bad_field("sample_bytes", "request_invalid", message)
    return num_bytes


@router.post("/tokenizers/import")
async def import_file(request: Request, principal: Submitter) -> Response:
    """Import an uploaded tokenizer, and go to its page. The fields of the form come before its file."""
    fields: dict[str, str] = {}
    try:
        async for part in multipart.parts(request, imports.MAX_BYTES + FORM_BYTES):
            if part.filename is None:
                fields[part.name] = await part.text()
            elif part.filename:
                name, end = fields.get("name", ""), fields.get("end_of_text", "").strip()
                declared = request.headers.get("content-length")
                tokenizer = await imports.receive(principal, part.filename, name, end, declared, part.pieces)
                return RedirectResponse(f"/tokenizers/{tokenizer.id}", status_code=303)
        raise bad_field("file", "file_empty", _("Choose a file."))
    except PanelError as error:
        refused = error
    return await run_in_threadpool(_index, request, principal, error=refused)


@router.get("/tokenizers/compare")
@PREVIEWS
def compare(
    request: Request,
    principal: Reader,
    text: Annotated[str, Query(max_length=2_000)] = "",
    tokenizers: Annotated[list[ShortText] | None, Query(max_length=8)] = None,
) -> Response:
    """What up to four tokenizers make of a text. Without a text, English and Chinese samples are compared."""
    ids = list(dict.fromkeys(tokenizer_id for tokenizer_id in tokenizers or () if tokenizer_id))[:MAX_COMPARED]
    text = text.replace("\r\n", "\n")
    shown_text = text if text.strip() else "\n".join(SAMPLES)
    compared: list[Tokenization] = []
    error: PanelError | None = None
    with db.transaction() as session:
        choices = comparison.choices(session, principal=principal)
        try:
            rows = comparison.find(session, principal=principal, ids=ids or [name for name, _label in choices[:2]])
        except PanelError as refused:
            rows, error = [], refused
    try:
        compared = comparison.compare(shown_text, rows) if rows else []
    except PanelError as refused:
        error = refused
    return page(
        request,
        "tokenizers/compare.html",
        error.status if error else 200,
        principal=principal,
        text=shown_text,
        samples=SAMPLES,
        choices=choices,
        chosen=[one.id for one in rows],
        compared=compared,
        fewest=min((one.num_tokens for one in compared if one.num_tokens), default=0),
        num_compared=MAX_COMPARED,
        error=error.message if error else "",
    )


@router.get("/tokenizers/{tokenizer_id}")
def show_tokenizer(request: Request, principal: Reader, tokenizer_id: Id, part: Part = "") -> Response:
    """The page of one tokenizer, with its curve and a sample of its vocabulary; with `part=state` only its state."""
    return _tokenizer_page(request, principal, tokenizer_id, "_state" if part == "state" else "show")


def _tokenizer_page(
    request: Request, principal: Principal, tokenizer_id: str, template: str = "show", error: PanelError | None = None
) -> Response:
    with db.transaction() as session:
        tokenizer = service.get_tokenizer(session, principal=principal, tokenizer_id=tokenizer_id)
        names = corpora_service.corpus_names(session, principal=principal, ids=tokenizer.corpora)
        jobs = service.jobs_of_tokenizers(session, principal=principal).get(tokenizer_id, [])
        tasks = service.tasks_of(session, [tokenizer])
        shared = sharing.context(session, principal, tokenizer)
    is_ready = tokenizer.state == "ready"
    return page(
        request,
        f"tokenizers/{template}.html",
        error.status if error else 200,
        principal=principal,
        **shared,
        tokenizer=tokenizer,
        names=names,
        jobs=jobs,
        tasks=tasks,
        tokens=vocabulary.sample(tokenizer_id) if is_ready else [],
        curve=plot(tokenizer.facts.curve),
        algorithm=translate(ALGORITHMS[tokenizer.facts.algorithm]),
        source=translate(SOURCES[tokenizer.source]),
        problems=[problems.sentence(problem) for problem in tokenizer.problems],
        error=error.message if error else "",
    )


@router.post("/tokenizers/bulk")
def change_many(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Delete the tokenizers that were chosen in the list; what a deletion frees is to be confirmed."""
    view = _view(bulk.text_fields(form))
    outcome = bulk.change_rows(request, principal, ROWS, view, form, _("Delete the chosen tokenizers?"))
    if isinstance(outcome, Response):
        return outcome
    return _index(request, principal, view=view, outcome=outcome)


LABELS.add_routes(router, "tokenizer_id")


@router.post("/tokenizers/{tokenizer_id}/delete")
def delete_tokenizer(request: Request, principal: Submitter, tokenizer_id: Id) -> Response:
    """Move a tokenizer to the trash and redirect to the list."""

    def verb(session: Session) -> None:
        service.delete_tokenizer(session, principal=principal, tokenizer_id=tokenizer_id)

    return _change(request, principal, tokenizer_id, verb, f"/tokenizers?trashed={tokenizer_id}")


def _change(
    request: Request, principal: Principal, tokenizer_id: str, verb: Callable[[Session], None], then: str
) -> Response:
    return handle_form_action(verb, then, lambda error: _tokenizer_page(request, principal, tokenizer_id, error=error))
