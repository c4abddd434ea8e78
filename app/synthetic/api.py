"""JSON routes of records that models write."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.core import db
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.paging import Listing
from app.corpora import schemas as corpora_schemas
from app.corpora import service as corpora
from app.corpora.schemas import CorpusAnswer
from app.synthetic import drafts, result, service, views
from app.synthetic.schemas import (
    DraftAnswer,
    DraftChange,
    DraftCounts,
    DraftState,
    RecordCorpusRequest,
    RecordGenerationAnswer,
    RecordGenerationRequest,
    ResumeRequest,
    ReviewRequest,
    SynthesisAnswer,
)
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["synthetic data"])


@router.get("/record-generations")
def list_record_generations(
    principal: Reader, limit: Limit = 50, after: After = None
) -> Listing[RecordGenerationAnswer]:
    """List your generations of records, newest first."""
    with db.transaction() as session:
        rows, cursor = service.list_generations(session, principal=principal, limit=limit, after=after)
        return Listing(data=[views.generation_answer(session, row) for row in rows], next=cursor)


@router.post(
    "/record-generations",
    status_code=201,
    responses=errors(
        *("corpus_unknown", "corpus_parsing", "corpus_failed", "model_or_endpoint", "model_unfit", "endpoint_unknown"),
        *("template_invalid", "character_invalid", "records_many", "price_missing", "tasks_open", "disk_full"),
    ),
)
def create_record_generation(principal: Submitter, body: RecordGenerationRequest) -> RecordGenerationAnswer:
    """Have a model write records from documents of a corpus, in the background. Nothing is a corpus before people have
    accepted records and `corpus` was called.
    """
    generation = service.start(principal, body)
    with db.transaction() as session:
        return views.generation_answer(session, generation)


@router.get("/record-generations/{generation_id}")
def get_record_generation(principal: Reader, generation_id: Id) -> RecordGenerationAnswer:
    """Get a generation: how far it is, what it took, and how many of its records were reviewed."""
    with db.transaction() as session:
        generation = service.get(session, principal=principal, generation_id=generation_id)
        return views.generation_answer(session, generation)


@router.post(
    "/record-generations/{generation_id}/resume",
    status_code=202,
    responses=errors("generation_open", "generation_complete", "source_gone", "tasks_open", "disk_full"),
)
def resume_record_generation(principal: Submitter, generation_id: Id, body: ResumeRequest) -> RecordGenerationAnswer:
    """Ask about the documents that are left, after a failure, a limit or a cancellation."""
    generation = service.resume(principal, generation_id, body.max_total_tokens, body.max_cost)
    with db.transaction() as session:
        return views.generation_answer(session, generation)


@router.delete("/record-generations/{generation_id}", status_code=204, responses=errors("generation_open"))
def delete_record_generation(principal: Submitter, generation_id: Id) -> Response:
    """Delete a generation with its records. Corpora that were made of them stay."""
    with db.transaction() as session:
        service.delete(session, principal=principal, generation_id=generation_id)
    return Response(status_code=204)


@router.get("/record-generations/{generation_id}/records")
def list_generated_records(
    principal: Reader,
    generation_id: Id,
    state: Annotated[DraftState | None, Query(description="Only those in this state.")] = None,
    duplicates: Annotated[bool, Query(description="Only those that are almost an earlier one.")] = False,
    limit: Limit = 50,
    after: After = None,
) -> Listing[DraftAnswer]:
    """List the records that a model wrote, in the order of their writing."""
    with db.transaction() as session:
        generation = service.get(session, principal=principal, generation_id=generation_id)
        rows, cursor = drafts.list_drafts(
            session, generation, state=state, only_duplicates=duplicates, limit=limit, after=after
        )
        return Listing(data=views.draft_answers(session, generation, rows), next=cursor)


@router.put(
    "/record-generations/{generation_id}/records/{record_id}", responses=errors("cells_invalid", "character_invalid")
)
def change_generated_record(principal: Submitter, generation_id: Id, record_id: Id, body: DraftChange) -> DraftAnswer:
    """Edit, accept or reject a record."""
    with db.transaction() as session:
        row = drafts.change(
            session, principal=principal, generation_id=generation_id, draft_id=record_id, **body.model_dump()
        )
        generation = service.get(session, principal=principal, generation_id=generation_id)
        return views.draft_answers(session, generation, [row])[0]


@router.post("/record-generations/{generation_id}/review")
def review_generated_records(principal: Submitter, generation_id: Id, body: ReviewRequest) -> DraftCounts:
    """Accept or reject many records: those with these IDs, or all that nobody has decided about, without near
    duplicates unless these are wanted too. The answer counts all records.
    """
    with db.transaction() as session:
        drafts.review(session, principal=principal, generation_id=generation_id, **body.model_dump())
        return drafts.counts(session, generation_id)


@router.post(
    "/record-generations/{generation_id}/corpus",
    status_code=201,
    responses=errors(
        *("records_none", "corpus_unknown", "corpus_parsing", "corpus_failed", "kind_unfit", "name_too_long"),
        *("name_missing", "character_invalid", "file_gone", "tasks_open", "disk_full"),
    ),
)
def make_corpus_of_records(principal: Submitter, generation_id: Id, body: RecordCorpusRequest) -> CorpusAnswer:
    """Make a corpus of the accepted records, or a new version of a corpus that has them too. It is parsed in the
    background; poll it until its state is `ready`.
    """
    return corpora_schemas.corpus_answer(result.make_corpus(principal, generation_id, body))


@router.get("/corpora/{corpus_id}/synthesis", responses=errors("not_generated"))
def get_synthesis(principal: Reader, corpus_id: Id) -> SynthesisAnswer:
    """Get how a version of a corpus was made of records that a model wrote."""
    with db.transaction() as session:
        corpus = corpora.get_corpus(session, principal=principal, corpus_id=corpus_id)
    if corpus.synthesis is None:
        raise PanelError(404, "not_generated", _("No model wrote records of this version."))
    return views.synthesis_answer(corpus.synthesis)
