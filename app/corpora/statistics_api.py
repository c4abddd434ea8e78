"""JSON routes of what a corpus contains: its statistics, and the search in its text."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.core import db, queue
from app.core.paging import Listing
from app.corpora import search, service, statistics
from app.corpora.schemas import CorpusProgress
from app.corpora.statistics import CorpusStatistics, Statistics
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["corpora"])


class StatisticsRequest(BaseModel):
    """What is counted."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tokenizer": "06bv8h2m4c7k9qz1"}]})

    tokenizer: str | None = Field(
        None, max_length=64, description="ID of a tokenizer, to count tokens; null: duplicates and lengths only."
    )


class StatisticsAnswer(BaseModel):
    """The statistics of a corpus with one tokenizer, or the task that counts them."""

    tokenizer: str | None = Field(description="ID of the tokenizer; null: without one.")
    task_id: str = Field(description="The background task that counts, or has counted.")
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: CorpusProgress | None = Field(description="Bytes of text, while it runs.")
    result: CorpusStatistics | None = Field(description="What was counted, once it has succeeded.")
    created_at: datetime


class MatchAnswer(BaseModel):
    """A place where the text was found."""

    index: int = Field(description="Number of the document, from 0.")
    before: str = Field(description="Up to 80 characters before it.")
    text: str = Field(description="The text as it is written there.")
    after: str = Field(description="Up to 80 characters after it.")


class SearchAnswer(BaseModel):
    """The places that one request has found. Without `next`, the corpus ends there."""

    data: list[MatchAnswer]
    next: str | None = Field(description="Value of `after` to go on with; null at the end.")
    num_searched_bytes: int = Field(description="How much of the text was searched, from its beginning.")
    num_text_bytes: int


def answer(row: Statistics) -> StatisticsAnswer:
    """The response for a task."""
    task = row.task
    now = task.progress if task.state == "running" else None
    return StatisticsAnswer(
        tokenizer=task.options.tokenizer,
        task_id=task.id,
        state=task.state,
        progress=CorpusProgress(done=now.done, total=now.total) if now and now.total else None,
        result=row.counted,
        created_at=task.created_at,
    )


@router.post(
    "/corpora/{corpus_id}/statistics",
    status_code=202,
    responses=errors(
        *("tasks_open", "disk_full", "corpus_unknown", "corpus_parsing", "corpus_failed", "corpus_empty"),
        "tokenizer_unknown",
    ),
)
def count_corpus(principal: Submitter, corpus_id: Id, body: StatisticsRequest) -> StatisticsAnswer:
    """Count duplicates, lengths and, with a tokenizer, tokens of a corpus in the background.

    What was counted already is answered at once.
    """
    with db.transaction() as session:
        row = statistics.start(session, principal=principal, corpus_id=corpus_id, tokenizer_id=body.tokenizer)
        answered = answer(row)
    queue.flush_outbox()
    return answered


@router.get("/corpora/{corpus_id}/statistics")
def list_corpus_statistics(principal: Reader, corpus_id: Id) -> Listing[StatisticsAnswer]:
    """List what was counted of a corpus, or is being counted: the newest of each tokenizer."""
    with db.transaction() as session:
        corpus = service.get_corpus(session, principal=principal, corpus_id=corpus_id)
        rows = statistics.list_statistics(session, principal=principal, corpus=corpus)
        return Listing(data=[answer(row) for row in rows], next=None)


@router.get("/corpora/{corpus_id}/search")
def search_corpus(
    principal: Reader,
    corpus_id: Id,
    q: Annotated[
        str, Query(min_length=1, max_length=search.MAX_QUERY_LENGTH, description="The text, in upper or lower case.")
    ],
    limit: Annotated[int, Query(ge=1, le=200, description="Maximum number of matches.")] = 20,
    after: Annotated[int, Query(ge=0, le=2**53, description="Value of `next` from the previous request.")] = 0,
) -> SearchAnswer:
    """Search the text of a corpus. A request reads for at most a second; go on with `next`, also without matches."""
    with db.transaction() as session:
        corpus = service.get_corpus(session, principal=principal, corpus_id=corpus_id)
    matches = search.search(corpus, q, start=after, limit=limit)
    return SearchAnswer(
        data=[MatchAnswer(**vars(match)) for match in matches.matches],
        next=None if matches.next is None else str(matches.next),
        num_searched_bytes=matches.num_searched_bytes,
        num_text_bytes=matches.num_text_bytes,
    )
