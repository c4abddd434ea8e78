"""JSON routes of tokenizers."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.core import db, queue
from app.core.labels import LabelChanges
from app.core.paging import Listing
from app.core.principal import OwnerFilter
from app.corpora import tokenizers as stored_tokenizers
from app.tokenizers import comparison, imports, schemas, service
from app.tokenizers.bulk import ROWS
from app.tokenizers.schemas import CompareRequest, TokenizationsAnswer, TokenizerAnswer, TrainRequest
from app.web import bulk_requests
from app.web.auth import Reader, Submitter
from app.web.bulk_requests import RowsAnswer, RowsRequest
from app.web.idempotency import ApiRoute
from app.web.labels import LABEL_ERRORS
from app.web.paging import After, LabelSearch, Limit, Tag
from app.web.parameters import Id
from app.web.preview_process import PREVIEWS
from app.web.problem_types import errors
from app.web.uploads import RAW_BODY_SCHEMA

router = APIRouter(route_class=ApiRoute, tags=["tokenizers"])


@router.post(
    "/tokenizers",
    status_code=201,
    responses=errors(
        "corpus_unknown",
        "corpus_parsing",
        "corpus_failed",
        "corpus_twice",
        "token_reserved",
        "token_twice",
        "name_missing",
        "name_too_long",
        "character_invalid",
        "tasks_open",
        "disk_full",
    ),
)
def train_tokenizer(principal: Submitter, body: TrainRequest) -> TokenizerAnswer:
    """Train a byte-level BPE tokenizer on corpora, in the background. Poll it until it is `ready` or `failed`."""
    with db.transaction() as session:
        tokenizer = service.train(session, principal=principal, request=body)
        task = service.tasks_of(session, [tokenizer]).get(tokenizer.id)
        answer = schemas.tokenizer_answer(tokenizer, task)
    queue.flush_outbox()
    return answer


@router.post(
    "/tokenizers/import",
    status_code=201,
    openapi_extra=RAW_BODY_SCHEMA,
    responses=errors(
        "file_unknown",
        "file_empty",
        "file_too_large",
        "upload_broken",
        "name_missing",
        "name_too_long",
        "character_invalid",
        "tasks_open",
        "disk_full",
    ),
)
async def import_tokenizer(
    request: Request,
    principal: Submitter,
    filename: Annotated[
        str,
        Query(
            max_length=1000, description="tokenizer.json, a SentencePiece model (.model), or a .zip or .tar archive."
        ),
    ],
    name: Annotated[str, Query(max_length=200, description="Name in lists. Defaults to the file name.")] = "",
    end_of_text: Annotated[
        str, Query(max_length=200, description="The end-of-text token. Defaults to the one that the file names.")
    ] = "",
) -> TokenizerAnswer:
    """Import a tokenizer. It is checked and converted in the background; poll it until it is `ready` or `failed`."""
    declared = request.headers.get("content-length")
    tokenizer = await imports.receive(principal, filename, name, end_of_text, declared, request.stream())
    return schemas.tokenizer_answer(tokenizer)


@router.post(
    "/tokenizers/compare",
    responses=errors("tokenizer_unknown", "tokenizer_unready", "model_unready", "text_slow", "preview_busy"),
)
@PREVIEWS
def compare_tokenizers(principal: Reader, body: CompareRequest) -> TokenizationsAnswer:
    """Compare what up to four tokenizers make of a text."""
    with db.transaction() as session:
        rows = comparison.find(session, principal=principal, ids=body.tokenizers)
    return TokenizationsAnswer(data=comparison.compare(body.text, rows))


@router.get("/tokenizers")
def list_tokenizers(
    principal: Reader,
    q: LabelSearch = "",
    tag: Tag = "",
    source: Annotated[
        stored_tokenizers.TokenizerSource | None,
        Query(description="Only those that jobs trained, that were trained by themselves, or that were imported."),
    ] = None,
    state: Annotated[
        stored_tokenizers.TokenizerState | None, Query(description="Only tokenizers in this state.")
    ] = None,
    owner: Annotated[
        OwnerFilter | None, Query(description="Only your own, or only what others share with you.")
    ] = None,
    order: Annotated[
        stored_tokenizers.TokenizerOrder, Query(description="size: the largest vocabulary first.")
    ] = "newest",
    limit: Limit = 50,
    after: After = None,
) -> Listing[TokenizerAnswer]:
    """List your tokenizers, newest first unless `order` says otherwise."""
    with db.transaction() as session:
        rows, cursor = stored_tokenizers.list_tokenizers(
            session,
            principal=principal,
            limit=limit,
            after=after,
            search=q,
            tag=tag,
            source=source or "",
            state=state,
            owner=owner,
            order=order,
        )
        tasks = service.tasks_of(session, rows)
    return Listing(data=[schemas.tokenizer_answer(row, tasks.get(row.id)) for row in rows], next=cursor)


@router.get("/tokenizers/{tokenizer_id}")
def get_tokenizer(principal: Reader, tokenizer_id: Id) -> TokenizerAnswer:
    """Get a tokenizer."""
    with db.transaction() as session:
        tokenizer = service.get_tokenizer(session, principal=principal, tokenizer_id=tokenizer_id)
        return schemas.tokenizer_answer(tokenizer, service.tasks_of(session, [tokenizer]).get(tokenizer.id))


@router.patch("/tokenizers/{tokenizer_id}", responses=errors(*LABEL_ERRORS))
def change_tokenizer(principal: Submitter, tokenizer_id: Id, body: LabelChanges) -> TokenizerAnswer:
    """Rename, tag or describe a tokenizer; fields that are left out stay."""
    with db.transaction() as session:
        tokenizer = service.change_labels(session, principal=principal, tokenizer_id=tokenizer_id, changes=body)
        return schemas.tokenizer_answer(tokenizer, service.tasks_of(session, [tokenizer]).get(tokenizer.id))


@router.delete("/tokenizers/{tokenizer_id}", status_code=204, responses=errors("tokenizer_in_use"))
def delete_tokenizer(principal: Submitter, tokenizer_id: Id) -> Response:
    """Delete a tokenizer. Refused while an unfinished job uses it; checkpoints hold their own copies."""
    with db.transaction() as session:
        service.delete_tokenizer(session, principal=principal, tokenizer_id=tokenizer_id)
    return Response(status_code=204)


@router.post("/tokenizers/bulk", responses=errors("tag_missing"))
def change_tokenizers(principal: Submitter, body: RowsRequest) -> RowsAnswer:
    """Move several tokenizers to the trash, or tag them. Each is changed by itself, as the answer says."""
    return bulk_requests.change_rows(principal, ROWS, body, body.tag)
