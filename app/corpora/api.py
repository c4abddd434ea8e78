"""JSON routes of corpora."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.core import db, queue
from app.core.labels import LabelChanges
from app.core.paging import Listing
from app.corpora import downloads, mappings, previews, record_kinds, schemas, service, uploads, versions
from app.corpora.bulk import ROWS
from app.corpora.schemas import (
    ChangesAnswer,
    CorpusAnswer,
    CorpusFileAnswer,
    DocumentAnswer,
    FromUploads,
    FromUrl,
    ParseRequest,
    VersionRequest,
)
from app.web import bulk_requests
from app.web.auth import Reader, Submitter
from app.web.bulk_requests import RowsAnswer, RowsRequest
from app.web.idempotency import ApiRoute
from app.web.labels import LABEL_ERRORS
from app.web.paging import After, LabelSearch, Limit, Tag
from app.web.parameters import Id
from app.web.problem_types import errors
from app.web.uploads import RAW_BODY_SCHEMA

router = APIRouter(route_class=ApiRoute)


@router.post(
    "/corpora",
    status_code=201,
    tags=["corpora"],
    openapi_extra=RAW_BODY_SCHEMA,
    responses=errors(
        "tasks_open",
        "filename_extension",
        "name_missing",
        "name_too_long",
        "character_invalid",
        "encoding_unknown",
        "kind_unknown",
        "file_empty",
        "file_too_large",
        "upload_broken",
        "disk_full",
    ),
)
async def upload_corpus(
    request: Request,
    principal: Submitter,
    filename: Annotated[
        str,
        Query(
            description="File name, whose ending says its format: .txt, .jsonl.gz, .zip, ...",
            examples=["kjv.txt"],
            max_length=uploads.MAX_FILENAME_LENGTH,
        ),
    ],
    name: Annotated[
        str, Query(description="Name in lists. Defaults to the file name.", max_length=service.MAX_NAME_LENGTH)
    ] = "",
    encoding: Annotated[
        str,
        Query(
            description="Encoding of the file if it is not UTF-8: gb18030, big5, cp932, windows-1251, ...",
            max_length=40,
        ),
    ] = "",
    kind: Annotated[
        str, Query(description="Kind of the records. Defaults to the kind of the first one.", max_length=40)
    ] = "",
) -> CorpusAnswer:
    """Upload a corpus: the body is the file. It is parsed in the background; poll until its state is `ready`."""
    label = uploads.label(filename, name, encoding, kind)
    await run_in_threadpool(uploads.check_declared, request.headers.get("content-length"))
    return schemas.corpus_answer(await uploads.receive(principal, label, request.stream()))


@router.post(
    "/corpora/from-uploads",
    status_code=201,
    tags=["corpora"],
    responses=errors(
        *("tasks_open", "name_too_long", "character_invalid", "encoding_unknown", "kind_unknown", "disk_full"),
        *("upload_twice", "upload_unknown", "upload_closed", "upload_incomplete", "file_twice", "files_many"),
    ),
)
def create_corpus(principal: Submitter, body: FromUploads) -> CorpusAnswer:
    """Make a corpus of files that were uploaded by the tus protocol. It is parsed in the background."""
    corpus = versions.create(principal, body.uploads, body.name, body.encoding, body.kind)
    return schemas.corpus_answer(corpus)


@router.post(
    "/corpora/from-url",
    status_code=201,
    tags=["corpora"],
    responses=errors(
        *("downloads_off", "url_invalid", "url_of_page", "url_refused", "filename_missing", "filename_extension"),
        *("tasks_open", "name_too_long", "character_invalid", "encoding_unknown", "kind_unknown", "disk_full"),
        *("hub_offline", "filename_of_dataset"),
    ),
)
def download_corpus(principal: Submitter, body: FromUrl) -> CorpusAnswer:
    """Make a corpus of a file, or of a data set of the hub, that the server downloads and then parses. Its host is one
    that the operator allows.
    """
    return schemas.corpus_answer(downloads.start(principal, **body.model_dump()))


@router.get("/corpora", tags=["corpora"], responses=errors("kind_unknown"))
def list_corpora(
    principal: Reader,
    q: LabelSearch = "",
    tag: Tag = "",
    kind: Annotated[str, Query(description="Only ready corpora of this kind.", max_length=40)] = "",
    state: Annotated[service.CorpusState | None, Query(description="Only corpora in this state.")] = None,
    owner: Annotated[
        service.CorpusOwner | None, Query(description="Only your own, what others share, or what is shipped.")
    ] = None,
    order: Annotated[service.CorpusOrder, Query(description="size: the largest first.")] = "newest",
    limit: Limit = 50,
    after: After = None,
) -> Listing[CorpusAnswer]:
    """List your corpora and those that ship with Athanor, newest first unless `order` says otherwise."""
    with db.transaction() as session:
        rows, cursor = service.list_corpora(
            session,
            principal=principal,
            limit=limit,
            after=after,
            search=q,
            tag=tag,
            kind=record_kinds.checked_kind(kind) or "",
            state=state or "",
            owner=owner,
            order=order,
        )
        tasks = service.parse_tasks(session, rows)
    return Listing(data=[schemas.corpus_answer(row, tasks.get(row.id)) for row in rows], next=cursor)


@router.get("/corpora/{corpus_id}", tags=["corpora"])
def get_corpus(principal: Reader, corpus_id: Id) -> CorpusAnswer:
    """Get a corpus with its problems."""
    with db.transaction() as session:
        corpus = service.get_corpus(session, principal=principal, corpus_id=corpus_id)
        return schemas.corpus_answer(corpus, service.parse_tasks(session, [corpus]).get(corpus.id))


@router.get("/corpora/{corpus_id}/files", tags=["corpora"])
def list_corpus_files(
    principal: Reader,
    corpus_id: Id,
    limit: Limit = 50,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="Value of `next` from the previous page.")] = 0,
) -> Listing[CorpusFileAnswer]:
    """List the files of a version of a corpus, in the order in which they are read."""
    with db.transaction() as session:
        corpus = service.get_corpus(session, principal=principal, corpus_id=corpus_id)
        files = service.list_files(session, corpus.id)
    cursor = str(after + limit) if after + limit < len(files) else None
    return Listing(data=[schemas.file_answer(file) for file in files[after : after + limit]], next=cursor)


@router.get("/corpora/{corpus_id}/versions", tags=["corpora"])
def list_corpus_versions(principal: Reader, corpus_id: Id) -> Listing[CorpusAnswer]:
    """List the versions of a corpus that are left, the newest first."""
    with db.transaction() as session:
        corpus = service.get_corpus(session, principal=principal, corpus_id=corpus_id)
        rows = versions.list_versions(session, principal=principal, corpus=corpus)
    return Listing(data=[schemas.corpus_answer(row) for row in rows], next=None)


@router.post(
    "/corpora/{corpus_id}/versions",
    status_code=201,
    tags=["corpora"],
    responses=errors(
        *("tasks_open", "corpus_shipped", "disk_full", "file_unknown", "file_gone", "file_twice", "files_many"),
        *("upload_twice", "upload_unknown", "upload_closed", "upload_incomplete", "version_empty", "version_same"),
    ),
)
def create_corpus_version(principal: Submitter, corpus_id: Id, body: VersionRequest) -> CorpusAnswer:
    """Make a new version of a corpus, with files added, replaced or removed. The version itself stays as it is."""
    return schemas.corpus_answer(versions.change(principal, corpus_id, body.uploads, body.remove))


@router.get("/corpora/{corpus_id}/changes", tags=["corpora"], responses=errors("version_first", "version_other"))
def list_corpus_changes(
    principal: Reader,
    corpus_id: Id,
    since: Annotated[
        str, Query(description="ID of another version of the corpus. Defaults to the one before.", max_length=32)
    ] = "",
) -> ChangesAnswer:
    """List what differs in a version of a corpus, compared with another one."""
    with db.transaction() as session:
        after = service.get_corpus(session, principal=principal, corpus_id=corpus_id)
        before = versions.compared(session, principal=principal, corpus=after, since=since)
        return ChangesAnswer(before=before.id, **vars(versions.changes(session, before, after)))


@router.get("/corpora/{corpus_id}/documents", tags=["corpora"])
def list_documents(
    principal: Reader,
    corpus_id: Id,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[int, Query(ge=0, le=2**53, description="Value of `next` from the previous page.")] = 0,
) -> Listing[DocumentAnswer]:
    """List the documents of a corpus in order, each with its beginning."""
    with db.transaction() as session:
        corpus = service.get_corpus(session, principal=principal, corpus_id=corpus_id)
    documents = previews.documents(corpus.id, after, limit) if corpus.state == "ready" else []
    more = after + len(documents) < (corpus.num_documents or 0) and bool(documents)
    cursor = str(after + len(documents)) if more else None
    return Listing(data=[schemas.document_answer(document) for document in documents], next=cursor)


@router.post(
    "/corpora/{corpus_id}/parse",
    status_code=202,
    tags=["corpora"],
    responses=errors(
        "tasks_open",
        "disk_full",
        "corpus_parsing",
        "corpus_cleaned",
        "corpus_in_use",
        "corpus_shipped",
        "encoding_unknown",
        "file_unknown",
        "kind_unknown",
        "mapping_invalid",
        "mapping_unknown",
        "mappings_many",
        "column_unknown",
    ),
)
def parse_corpus(principal: Submitter, corpus_id: Id, body: ParseRequest) -> CorpusAnswer:
    """Parse an upload again: in another encoding, without its bad lines or bytes, as records of another kind, or with
    its columns mapped by hand.
    """
    encoding, kind = uploads.checked_encoding(body.encoding), record_kinds.checked_kind(body.kind)
    with db.transaction() as session:
        chosen = body.mapping
        corpus = service.parse_again(
            session,
            principal=principal,
            corpus_id=corpus_id,
            encoding=encoding,
            skip_bad=body.skip_bad,
            kind=kind,
            bad_bytes=body.bad_bytes,
            filenames=[*body.filenames, *([body.filename] if body.filename else [])],
            names_field="filenames" if body.filenames else "filename",
            mapping=mappings.resolve(session, principal=principal, **chosen.model_dump()) if chosen else None,
            group_column=body.group_column,
        )
    queue.flush_outbox()
    return schemas.corpus_answer(corpus)


@router.patch("/corpora/{corpus_id}", tags=["corpora"], responses=errors("corpus_shipped", *LABEL_ERRORS))
def change_corpus(principal: Submitter, corpus_id: Id, body: LabelChanges) -> CorpusAnswer:
    """Rename, tag or describe a corpus, with all its versions; fields that are left out stay."""
    with db.transaction() as session:
        corpus = service.change_labels(session, principal=principal, corpus_id=corpus_id, changes=body)
        return schemas.corpus_answer(corpus, service.parse_tasks(session, [corpus]).get(corpus.id))


@router.delete(
    "/corpora/{corpus_id}", status_code=204, tags=["corpora"], responses=errors("corpus_in_use", "corpus_shipped")
)
def delete_corpus(principal: Submitter, corpus_id: Id) -> Response:
    """Move a corpus to the trash. Refused while an unfinished job uses it."""
    with db.transaction() as session:
        service.delete_corpus(session, principal=principal, corpus_id=corpus_id)
    return Response(status_code=204)


@router.post("/corpora/bulk", tags=["corpora"], responses=errors("tag_missing"))
def change_corpora(principal: Submitter, body: RowsRequest) -> RowsAnswer:
    """Move several corpora to the trash, or tag them. Each is changed by itself, as the answer says."""
    return bulk_requests.change_rows(principal, ROWS, body, body.tag)
