"""Has a model write records from documents of a corpus, several at once, within limits of tokens and cost.

It runs in threads of the worker, which only wait. What comes of a document is stored at once, so that a task that ends,
however it ends, has lost nothing, and another start of it asks about no document twice.
"""

import logging
import shutil
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from rensa import RMinHash, RMinHashDeduplicator

from app.core import db, storage
from app.core.models import BackgroundTask
from app.corpora import previews
from app.synthetic import answers, progress, prompts
from app.synthetic.progress import DocumentOutcome, NewDraft, WritingAssignment
from worker.background.lease import Lease
from worker.background.model_calls import (
    Later,
    RecordWriter,
    RequestRejected,
    Stopped,
    WrittenAnswer,
    estimated_tokens,
    model_of,
)
from worker.background.work import Report, Work
from worker.sandbox.cleaning.duplicates import shingles

log = logging.getLogger(__name__)

NUM_REQUESTS = 4  # at once
LOOK_SECONDS = 1.0  # between two renewals of the lease
MAX_TRIES = 7  # of a request to a model that cannot answer now
FIRST_PAUSE = 1.0  # seconds after the first of these, doubled each time
MAX_PAUSE = 600.0  # that an endpoint may ask for
MAX_REFUSED = 5  # documents in a row, before anything else: then the reason is not in the documents
SIMILARITY = 0.7  # of near duplicates: of the sets of their word 5-grams
NUM_PERMUTATIONS, NUM_BANDS, SEED = 128, 32, 42


class DraftIndex:
    """The drafts of a generation, by the similarity of their texts."""

    def __init__(self) -> None:
        self._index = RMinHashDeduplicator(SIMILARITY, NUM_PERMUTATIONS, True, NUM_BANDS, SEED)

    def add(self, draft_id: str, cells: list[str]) -> str | None:
        """Add a draft, unless it is almost an earlier one, whose ID is returned."""
        parts = shingles(" ".join(cells))
        if not parts:
            return None
        (signature,) = RMinHash.from_token_sets([parts], NUM_PERMUTATIONS, SEED)
        if self._index.add(draft_id, signature):
            return None
        return min(self._index.get_duplicates(signature), default=None)


class Writing:
    """A generation while this worker has it."""

    def __init__(self, task: BackgroundTask, assignment: WritingAssignment, model: RecordWriter) -> None:
        self._task = task
        self._generation = assignment.generation
        self._model = model
        self._stop = threading.Event()
        self._left = iter(assignment.left)
        self._num_left = len(assignment.left)
        self._num_done = 0
        self._used = [self._generation.num_prompt_tokens, self._generation.num_tokens]
        self._pending: dict[Future[DocumentOutcome], tuple[int, int]] = {}  # with the tokens that it may take
        self._refused_in_row = 0
        self._duplicates = DraftIndex()
        for draft in sorted(assignment.drafts, key=lambda draft: draft.id):
            self._duplicates.add(draft.id, draft.cells)
        self._next: tuple[int, str] | None = None
        self._limit: str | None = None

    def run(self, lease: Lease) -> Report:
        """Ask about all documents that are left; the closing report."""
        pool = ThreadPoolExecutor(NUM_REQUESTS, thread_name_prefix=f"records-{self._generation.id}")
        try:
            return self._run(pool, lease)
        finally:
            self._stop.set()
            self._model.stop()
            pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, pool: ThreadPoolExecutor, lease: Lease) -> Report:
        while True:
            self._ask_more(pool)
            if not self._pending:
                break
            done, _others = wait(self._pending, LOOK_SECONDS, FIRST_COMPLETED)
            for future in done:
                self._pending.pop(future)
            ends = [end for end in map(self._record, done) if end is not None]  # all others are stored first
            if ends:
                return ends[0]
            if not lease.renew({"done": self._num_done, "total": self._num_left}):
                return {}
        with db.transaction() as session:
            if self._limit is not None:
                progress.note_limit(session, self._task, self._limit)
        return {"result": {"num_documents": self._num_done, "stopped_by": self._limit}}

    def _ask_more(self, pool: ThreadPoolExecutor) -> None:
        """Ask about the next documents, as long as their answers cannot exceed a limit."""
        while len(self._pending) < NUM_REQUESTS and self._limit is None:
            number = self._next[0] if self._next is not None else next(self._left, None)
            if number is None:
                return
            document = self._next[1] if self._next is not None else self._document(number)
            self._next = (number, document)
            prompt = prompts.prompt(self._generation.settings, document)
            tokens = (estimated_tokens(prompt), self._generation.settings.max_tokens)
            limit = self._exceeded([*self._pending.values(), tokens])
            if limit is not None:
                if not self._pending:  # what those take less than they may leaves room for this one
                    self._limit = limit
                return
            self._next = None
            self._pending[pool.submit(self._outcome, number, document, prompt)] = tokens

    def _exceeded(self, requests: list[tuple[int, int]]) -> str | None:
        """The limit that requests could exceed, besides what was used."""
        settings = self._generation.settings
        num_prompt = self._used[0] + sum(tokens[0] for tokens in requests)
        num_tokens = self._used[1] + sum(tokens[1] for tokens in requests)
        if settings.max_total_tokens is not None and num_prompt + num_tokens > settings.max_total_tokens:
            return "tokens"
        cost = progress.cost(self._generation, num_prompt, num_tokens)
        return "cost" if settings.max_cost is not None and cost is not None and cost > settings.max_cost else None

    def _document(self, number: int) -> str:
        length = max(self._generation.settings.max_characters, progress.EXCERPT_CHARACTERS)
        documents = previews.documents(str(self._generation.corpus_id), number, 1, characters=length)
        return documents[0].text if documents else ""

    def _outcome(self, number: int, document: str, prompt: str) -> DocumentOutcome:
        """Ask about a document; in a thread of its own. Raises Later, RequestRejected (fatal) or Stopped."""
        try:
            answer = self._patient(prompt, self._generation.settings.seed ^ (number & 0x7FFFFFFF))
        except RequestRejected as refused:
            if refused.is_fatal:
                raise
            return DocumentOutcome(number, document, [], ["refused"], str(refused), 0, 0)
        records, problems = answers.read(self._generation.settings, answer.text, answer.is_cut)
        drafts = [NewDraft("", cells, None) for cells in records]
        tokens = (answer.num_prompt_tokens, answer.num_tokens)
        return DocumentOutcome(number, document, drafts, problems, answer.text, *tokens)

    def _patient(self, prompt: str, seed: int) -> WrittenAnswer:
        """The answer of a model that may be away or busy for a while."""
        for attempt in range(MAX_TRIES):
            if self._stop.is_set():
                raise Stopped
            try:
                return self._model.ask(prompt, seed)
            except Later as later:
                if attempt == MAX_TRIES - 1:
                    raise
                pause = FIRST_PAUSE * 2**attempt if later.seconds is None else later.seconds
                log.info("a model answers later: %s", later)
            self._stop.wait(min(pause, MAX_PAUSE))
        raise Stopped

    def _record(self, future: Future[DocumentOutcome]) -> Report | None:
        """Store what came of a document; the closing report if the task ends with it."""
        try:
            outcome = future.result()
        except Stopped:
            return {}
        except (Later, RequestRejected) as error:
            code = "endpoint_away" if isinstance(error, Later) else "endpoint_refused"
            return {"failed": {"code": code, "values": {"why": str(error)}}}
        self._refused_in_row = self._refused_in_row + 1 if outcome.problems == ["refused"] else 0
        with db.transaction() as session:
            if not progress.store(session, self._task, self._with_ids(outcome)):
                return {}
            if progress.has_lost_endpoint(session, self._task):
                return {"failed": {"code": "endpoint_gone", "values": {}}}
        self._num_done += 1
        self._used[0] += outcome.num_prompt_tokens
        self._used[1] += outcome.num_tokens
        if self._refused_in_row == self._num_done == MAX_REFUSED:
            return {"failed": {"code": "endpoint_refused", "values": {"why": outcome.answer}}}
        return None

    def _with_ids(self, outcome: DocumentOutcome) -> DocumentOutcome:
        ids = progress.new_ids(len(outcome.drafts))
        drafts = [
            NewDraft(draft_id, draft.cells, self._duplicates.add(draft_id, draft.cells))
            for draft_id, draft in zip(ids, outcome.drafts, strict=True)
        ]
        return DocumentOutcome(**{**vars(outcome), "drafts": drafts})


def directory(task: BackgroundTask) -> Path:
    """The directory of the task, which only holds its lock."""
    return storage.background_task(task.id)


def run(task: BackgroundTask, lease: Lease) -> Report:
    """Have the model write, and return the closing report."""
    with db.transaction() as session:
        assignment = progress.assign(session, task)
    if isinstance(assignment, str):
        return {"failed": {"code": assignment, "values": {}}}
    return Writing(task, assignment, model_of(assignment)).run(lease)


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Remove the directory."""
    shutil.rmtree(directory(task), ignore_errors=True)


WORK = Work(directory, run, clean_up, writes_user_data=False)
