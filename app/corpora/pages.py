"""HTML routes of corpora."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import db, labels, sharing
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, translate
from app.core.models import BackgroundTask, Corpus, CorpusFile, Tokenizer
from app.core.principal import Principal
from app.core.settings import settings
from app.corpora import (
    downloads,
    hub_datasets,
    mappings,
    previews,
    problems,
    record_kinds,
    resumable_uploads,
    search,
    service,
    statistics,
    uploads,
    versions,
    written_records,
)
from app.corpora import tokenizers as stored_tokenizers
from app.corpora.bulk import LABELS, ROWS
from app.corpora.cleaning import form as cleaning_form
from app.corpora.cleaning import reasons
from app.corpora.cleaning.form import RecipeForm
from app.web import bulk, multipart
from app.web.auth import Reader, Submitter
from app.web.bulk import BulkOutcome
from app.web.forms import FormBody
from app.web.list_view import ListView
from app.web.pages import handle_form_action, page
from app.web.paging import After
from app.web.parameters import Id, Part
from trainer.formats import corpus_formats
from trainer.formats.corpus_kinds import MAPPED_FIELDS, TRAINED_KINDS

router = APIRouter()
PAGE_ROWS = 50
DOCUMENTS_SHOWN = 10
UNFINISHED_SHOWN = 20
FILES_SHOWN = 200
OWNERS = get_args(service.CorpusOwner)
# Formats to which the choice of an encoding, or of a kind of records, applies.
_ENCODED = {*corpus_formats.ENCODED_FORMATS, *corpus_formats.ARCHIVES}
_RECORDS = {*corpus_formats.RECORD_FORMATS, *corpus_formats.ARCHIVES}
DOWNLOAD_FIELDS = ("url", "filename", "name")
FORM_BYTES = 2**20  # of a form besides its files


# ---- corpora --------------------------------------------------------------------------------------------------------


def _view(query: Mapping[str, str]) -> ListView:
    """Which corpora the list shows."""
    filters = {"kind": record_kinds.KIND_WORDS, "state": get_args(service.CorpusState), "owner": OWNERS}
    return ListView.of(
        "/corpora", query, get_args(service.CorpusOrder), tag=(), **{n: ("", *c) for n, c in filters.items()}
    )


def _index(
    request: Request,
    principal: Principal,
    after: str | None,
    refused: list[str],
    part: str = "",
    view: ListView | None = None,
    outcome: BulkOutcome | None = None,
    download_form: Mapping[str, str] = {},
    download_error: PanelError | None = None,
) -> Response:
    view = view or _view(request.query_params)
    with db.transaction() as session:
        rows, cursor = service.list_corpora(
            session,
            principal=principal,
            limit=PAGE_ROWS,
            after=after,
            search=view["q"],
            tag=view["tag"],
            kind=view["kind"],
            state=view["state"],
            owner=view["owner"] or None,
            order=view["order"],
        )
        tags = labels.list_tags(session, principal=principal, table=Corpus)
        tasks = service.parse_tasks(session, rows)
        unfinished, _more = resumable_uploads.list_open(session, principal=principal, limit=UNFINISHED_SHOWN)
    return page(
        request,
        "corpora/_list.html" if part == "list" else "corpora/index.html",
        422 if refused or download_error or (outcome and outcome.is_refused) else 200,
        principal=principal,
        corpora=rows,
        outcome=outcome,
        tags=view.choices("tag", tags),
        view=view,
        tasks=tasks,
        unfinished=unfinished,
        next=cursor,
        after=after,
        refused=refused,
        formats=corpus_formats.FILE_ENDINGS,
        encodings=problems.ENCODINGS,
        kinds=_kinds(),
        max_bytes=settings().max_upload_bytes,
        download_hosts=downloads.hosts(),
        hub=downloads.hub(),
        download_form=download_form,
        download_errors=_download_errors(download_error),
    )


def _download_errors(error: PanelError | None) -> dict[str, str]:
    """The error of a download by the field of its form; by "" if it is of none."""
    if error is None:
        return {}
    by_field = {problem.field: problem.message for problem in error.fields if problem.field in DOWNLOAD_FIELDS}
    return by_field or {"": error.message}


@router.get("/corpora")
def show_corpora(request: Request, principal: Reader, after: After = None, part: Part = "") -> Response:
    """The list of corpora with the form to upload files; with `part=list` only the list, to update it."""
    return _index(request, principal, after, [], part)


@router.get("/corpora/write")
def write_records(
    request: Request, principal: Submitter, kind: Annotated[str, Query(max_length=40)] = "chat"
) -> Response:
    """A table to write records by hand, which static/js/record-table.js saves as a corpus."""
    kind = kind if kind in written_records.COLUMNS else "chat"
    return page(
        request,
        "corpora/write.html",
        principal=principal,
        kind=kind,
        kinds={name: translate(record_kinds.KIND_WORDS[name]) for name in written_records.COLUMNS},
        columns=[(name, translate(title)) for name, title in written_records.COLUMNS[kind].items()],
        checks=[(name, translate(word)) for name, word in record_kinds.CHECK_WORDS.items()],
    )


@router.post("/corpora")
async def upload(request: Request, principal: Submitter) -> Response:
    """Upload files from the form of a browser without scripts. Refused files are named; the others are stored."""
    await run_in_threadpool(uploads.check_declared, request.headers.get("content-length"))
    stored, fields, refused = await _received(request)
    for file in stored:
        try:
            label = uploads.label(file.filename, encoding=fields.get("encoding", ""), kind=fields.get("kind", ""))
            await uploads.record(principal, label, file)
        except PanelError as error:
            await run_in_threadpool(file.discard)
            refused.append(f"{file.filename}: {error.message}")
    if not stored and not refused:
        refused.append(_("Choose a file."))
    if refused:
        return await run_in_threadpool(_index, request, principal, None, refused)
    return RedirectResponse("/corpora", status_code=303)


async def _received(request: Request) -> tuple[list[uploads.StoredUpload], dict[str, str], list[str]]:
    """The files of a form on disk, its other fields, and why files were refused. A form that fails leaves no file."""
    stored: list[uploads.StoredUpload] = []
    fields: dict[str, str] = {}
    refused: list[str] = []
    try:
        async for part in multipart.parts(request, settings().max_upload_bytes + FORM_BYTES):
            if part.filename is None:
                fields[part.name] = await part.text()
            elif part.filename:
                try:
                    uploads.label(part.filename)
                    stored.append(await uploads.store(part.filename, part.pieces))
                except PanelError as error:
                    if error.status != 422:  # the limit, or a full disk: nothing more is read
                        raise
                    refused.append(f"{part.filename}: {error.message}")
    except BaseException:
        for file in stored:
            await run_in_threadpool(file.discard)
        raise
    return stored, fields, refused


@router.post("/corpora/download")
def download(
    request: Request,
    principal: Submitter,
    url: Annotated[str, Form(max_length=2000)] = "",
    filename: Annotated[str, Form(max_length=255)] = "",
    name: Annotated[str, Form(max_length=service.MAX_NAME_LENGTH)] = "",
) -> Response:
    """Download a corpus from an address, and go to its page."""
    try:
        corpus = downloads.start(principal, url, filename=filename, name=name)
    except PanelError as error:
        download = {"url": url, "filename": filename, "name": name}
        return _index(request, principal, None, [], download_form=download, download_error=error)
    return RedirectResponse(f"/corpora/{corpus.id}", status_code=303)


@router.post("/corpora/bulk")
def change_many(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Delete the corpora that were chosen in the list; what a deletion frees is to be confirmed."""
    view = _view(bulk.text_fields(form))
    outcome = bulk.change_rows(request, principal, ROWS, view, form, _("Delete the chosen corpora?"))
    if isinstance(outcome, Response):
        return outcome
    return _index(request, principal, None, [], view=view, outcome=outcome)


@router.post("/corpora/uploads/{upload_id}/delete")
async def delete_upload(principal: Submitter, upload_id: Id) -> Response:
    """Delete an interrupted upload and redirect to the list."""
    await resumable_uploads.cancel(principal, upload_id)
    return RedirectResponse("/corpora", status_code=303)


def _kinds() -> dict[str, str]:
    return {kind: translate(word) for kind, word in record_kinds.KIND_WORDS.items()}


def _documents(corpus: Corpus, start: int) -> list[tuple[previews.DocumentPreview, dict[str, Any] | None]]:
    """Documents from `start` on, each with its record if that is short enough to parse."""
    if corpus.kind == "text":
        return [(document, None) for document in previews.documents(corpus.id, start, DOCUMENTS_SHOWN)]
    documents = previews.documents(corpus.id, start, DOCUMENTS_SHOWN, characters=previews.RECORD_CHARACTERS)
    return [(document, record_kinds.parse_record(document.text)) for document in documents]


def corpus_page(
    request: Request,
    principal: Principal,
    corpus_id: str,
    start: int,
    error: PanelError | None = None,
    since: str = "",
    tokenizer: str = "",
    searched: tuple[str, int] = ("", 0),
    recipe: str = "",
    recipe_form: RecipeForm | None = None,
    status: int = 200,
) -> Response:
    """The page of one corpus, with an error, or with a form of a recipe or that of the version `recipe`."""
    with db.transaction() as session:
        corpus = service.get_corpus(session, principal=principal, corpus_id=corpus_id)
        tasks = service.parse_tasks(session, [corpus])
        files = service.list_files(session, corpus_id)
        all_versions = versions.list_versions(session, principal=principal, corpus=corpus)
        before = next((other for other in all_versions if other.version < corpus.version), None)
        before = next((other for other in all_versions if other.id == since), before)
        changes = versions.changes(session, before, corpus) if before is not None else None
        offered, _cursor = mappings.list_mappings(session, principal=principal, limit=mappings.MAX_MAPPINGS)
        counted = _statistics(session, principal, corpus, tokenizer)
        tokenized = _tokenizations(session, principal, corpus)
        cleaning = cleaning_form.context(session, principal, corpus, recipe, recipe_form)
        shared = sharing.context(session, principal, corpus)
    documents = _documents(corpus, start) if corpus.state == "ready" else []
    return page(
        request,
        "corpora/show.html",
        error.status if error else status,
        principal=principal,
        corpus=corpus,
        tasks=tasks,
        problems=[(problem, problems.sentence(problem)) for problem in corpus.problems],
        remarks=[(remark.file, problems.sentence(remark)) for remark in corpus.progress.remarks],
        encodings=problems.ENCODINGS,
        encoding_reason=translate(problems.ENCODING_REASONS.get(corpus.progress.encoding_reason or "", "")),
        broken_files=problems.encoding_offers(corpus),
        undecodable=next((problem for problem in corpus.problems if problem.code in ("undecodable", "nul")), None),
        bad_bytes=translate(problems.BAD_BYTES.get(corpus.progress.bad_bytes or "", "")),
        kinds=_kinds(),
        reasons=problems.by_reason(corpus.problems, corpus.progress.bad_lines),
        columns=record_kinds.column_uses(corpus),
        group_choices=[(column.name, column.name) for column in corpus.progress.columns],
        mappings=sorted(offered, key=lambda saved: saved.name),
        looks=translate(record_kinds.LOOKS[corpus.kind]),
        uses=translate(record_kinds.USES.get(corpus.kind, "")),
        field_words={name: translate(word) for name, word in record_kinds.FIELD_WORDS.items()},
        mappable=list(dict.fromkeys(name for _kind, *parts in MAPPED_FIELDS for part in parts for name in part)),
        is_trainable=corpus.kind in TRAINED_KINDS,
        lengths=record_kinds.length_bars(corpus.progress.lengths),
        documents=documents,
        start=start,
        step=DOCUMENTS_SHOWN,
        error=error.message if error else "",
        is_own=corpus.owner_id == principal.user_id,
        **shared,
        **_files(corpus, files),
        versions=all_versions,
        before=before,
        changes=changes,
        **counted,
        tokenized=tokenized,
        query=searched[0],
        matches=search.search(corpus, searched[0], start=searched[1])
        if searched[0] and corpus.state == "ready"
        else None,
        formats=corpus_formats.FILE_ENDINGS,
        max_bytes=settings().max_upload_bytes,
        step_names={name: translate(word) for name, word in reasons.STEP_NAMES.items()},
        step_help={name: translate(word) for name, word in reasons.STEP_HELP.items()},
        personal_data={name: translate(word) for name, word in reasons.PERSONAL_DATA_NAMES.items()},
        score_names={unit: translate(word) for unit, word in reasons.SCORE_NAMES.items()},
        **cleaning,
    )


def _files(corpus: Corpus, files: Sequence[CorpusFile]) -> dict[str, Any]:
    """What the page says of the files of a corpus, and how they can be read again."""
    forms = {part for file in files for part in file.format.split(".")}
    return {
        "files": files[:FILES_SHOWN],
        "skipped": hub_datasets.skipped_files(corpus),
        "bad_files": [(file.filename, file.filename) for file in files if file.num_problems],
        "has_encoding": not forms.isdisjoint(_ENCODED),
        "has_records": not forms.isdisjoint(_RECORDS),
        "kept_encoding": (corpus.encoding or "") if corpus.num_uploads == 1 else "",  # each of several has its own
    }


def _statistics(session: Session, principal: Principal, corpus: Corpus, tokenizer: str) -> dict[str, Any]:
    """What _statistics.html shows: those with a tokenizer, or the newest, and which others there are."""
    rows = statistics.list_statistics(session, principal=principal, corpus=corpus) if corpus.state == "ready" else []
    tokenizers, _next = stored_tokenizers.list_tokenizers(session, principal=principal, limit=200, state="ready")
    chosen = next((row for row in rows if tokenizer and row.task.options.tokenizer == tokenizer), None)
    chosen = chosen or next((row for row in rows if row.counted and row.counted.tokens), rows[0] if rows else None)
    counted = chosen.counted if chosen is not None else None
    bars = statistics.length_bars(counted.tokens) if counted is not None and counted.tokens is not None else []
    compared = [(row, row.counted) for row in rows if row.counted is not None and row.counted.tokens is not None]
    return {
        "statistics": chosen,
        "counted": counted,
        "length_bars": bars,
        "first_bar": statistics.first_bar(bars),
        "compared": compared,
        "tokenizers": tokenizers,
        "base_models": stored_tokenizers.models_for_kind(session, principal=principal, kind=corpus.kind),
    }


def _tokenizations(session: Session, principal: Principal, corpus: Corpus) -> list[tuple[BackgroundTask, str]]:
    """The user's newest tasks that tokenize a corpus, each with the name of its tokenizer, if that is still there."""
    tasks = service.tokenizations(session, principal=principal, corpus=corpus)
    ids = [task.options.tokenizer for task in tasks]
    names = dict(session.execute(select(Tokenizer.id, Tokenizer.name).where(Tokenizer.id.in_(ids))).all())
    return [(task, names.get(task.options.tokenizer or "", "")) for task in tasks]


@router.get("/corpora/{corpus_id}")
def show_corpus(
    request: Request,
    principal: Reader,
    corpus_id: Id,
    start: Annotated[int, Query(ge=0, le=2**53)] = 0,
    since: Annotated[str, Query(max_length=32)] = "",
    tokenizer: Annotated[str, Query(max_length=64)] = "",
    q: Annotated[str, Query(max_length=search.MAX_QUERY_LENGTH)] = "",
    at: Annotated[int, Query(ge=0, le=2**53)] = 0,
    recipe: Annotated[str, Query(max_length=32)] = "",
    part: Part = "",
) -> Response:
    """The page of one corpus; with `part=state` only the state of its parsing, to update it, with
    `part=statistics` what is counted, with `part=tokens` what is tokenized.

    `since` is the version that it is compared with, by default the one before; `tokenizer` that of the statistics; `q`
    is searched from byte `at` of the text on; `recipe` is a version whose recipe the form of cleaning begins with.
    """
    if part not in ("state", "statistics", "tokens"):
        searched = (q, at)
        return corpus_page(
            request, principal, corpus_id, start, since=since, tokenizer=tokenizer, searched=searched, recipe=recipe
        )
    with db.transaction() as session:
        corpus = service.get_corpus(session, principal=principal, corpus_id=corpus_id)
        if part == "statistics":
            counted = _statistics(session, principal, corpus, tokenizer)
            return page(request, "corpora/_statistics.html", principal=principal, corpus=corpus, **counted)
        if part == "tokens":
            tokenized = _tokenizations(session, principal, corpus)
            return page(request, "corpora/_tokenizations.html", principal=principal, tokenized=tokenized)
        tasks = service.parse_tasks(session, [corpus])
    return page(request, "corpora/_state.html", principal=principal, corpus=corpus, tasks=tasks)


@router.post("/corpora/{corpus_id}/parse")
def parse_corpus(
    request: Request,
    principal: Submitter,
    corpus_id: Id,
    encoding: Annotated[str, Form()] = "",
    skip_bad: Annotated[bool, Form()] = False,
    kind: Annotated[str, Form()] = "",
    bad_bytes: Annotated[Literal["", "omit", "replace", "skip_document"], Form()] = "",
    filename: Annotated[list[str], Form()] = [],  # noqa: B006
    column: Annotated[list[str], Form()] = [],  # noqa: B006
    used_as: Annotated[list[str], Form()] = [],  # noqa: B006
    mapping_name: Annotated[str, Form()] = "",
    group_column: Annotated[str, Form()] = "",
) -> Response:
    """Parse an upload again. Each `column` is mapped to the field of the same place in `used_as`, or to none."""

    def verb(session: Any) -> None:
        fields = [(field, name) for name, field in zip(column, used_as, strict=False) if field]
        if len(dict(fields)) < len(fields):
            raise bad_field("mapping", "mapping_invalid", _("Choose one column for each use."))
        mapping = record_kinds.checked_mapping(dict(fields), mapping_name) if column else None
        if mapping_name and not column:
            mapping = mappings.resolve(session, principal=principal, name=mapping_name, columns={})
        wanted = {"encoding": uploads.checked_encoding(encoding), "kind": record_kinds.checked_kind(kind)}
        service.parse_again(
            session,
            principal=principal,
            corpus_id=corpus_id,
            skip_bad=skip_bad,
            bad_bytes=bad_bytes or None,
            filenames=filename,
            names_field="filename",
            mapping=mapping,
            group_column=group_column or None,
            **wanted,
        )

    return _change(request, principal, corpus_id, verb, f"/corpora/{corpus_id}")


@router.post("/corpora/{corpus_id}/mappings/{mapping_id}/delete")
def delete_mapping(principal: Submitter, corpus_id: Id, mapping_id: Id) -> Response:
    """Delete a saved mapping of columns and go back to the corpus that it was offered for."""
    with db.transaction() as session:
        service.own_corpus(session, principal, corpus_id)
        mappings.delete(session, principal=principal, mapping_id=mapping_id)
    return RedirectResponse(f"/corpora/{corpus_id}", status_code=303)


@router.post("/corpora/{corpus_id}/statistics")
def count_corpus(
    request: Request, principal: Submitter, corpus_id: Id, tokenizer: Annotated[str, Form()] = ""
) -> Response:
    """Count the statistics of a corpus, and redirect to them."""

    def verb(session: Session) -> None:
        statistics.start(session, principal=principal, corpus_id=corpus_id, tokenizer_id=tokenizer)

    then = f"/corpora/{corpus_id}?{urlencode({'tokenizer': tokenizer})}#statistics"
    return _change(request, principal, corpus_id, verb, then)


@router.post("/corpora/{corpus_id}/versions")
def remove_files(
    request: Request,
    principal: Submitter,
    corpus_id: Id,
    remove: Annotated[list[str] | None, Form()] = None,
) -> Response:
    """Make a new version of a corpus without some files, and redirect to it."""
    try:
        version = versions.change(principal, corpus_id, [], remove or [])
    except PanelError as error:
        if error.status == 404:
            raise
        return corpus_page(request, principal, corpus_id, 0, error)
    return RedirectResponse(f"/corpora/{version.id}", status_code=303)


LABELS.add_routes(router, "corpus_id")


@router.post("/corpora/{corpus_id}/delete")
def delete_corpus(request: Request, principal: Submitter, corpus_id: Id) -> Response:
    """Move a corpus to the trash and redirect to the list."""

    def verb(session: Any) -> None:
        service.delete_corpus(session, principal=principal, corpus_id=corpus_id)

    return _change(request, principal, corpus_id, verb, f"/corpora?trashed={corpus_id}")


def _change(request: Request, principal: Principal, corpus_id: str, verb: Any, then: str) -> Response:
    return handle_form_action(verb, then, lambda error: corpus_page(request, principal, corpus_id, 0, error))
