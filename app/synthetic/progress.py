"""What a worker reads and stores while a model writes records. Each write holds only while the worker has the task."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import background_tasks
from app.core.account_models import User
from app.core.model_base import new_id
from app.core.models import BackgroundTask, Corpus
from app.core.names import printable_text
from app.core.principal import Principal, background_principal
from app.core.synthetic_models import DraftRecord, ModelEndpoint, PromptedDocument, RecordGeneration
from app.core.synthetic_shapes import AnswerProblem
from app.synthetic import service

MAX_EXAMPLES = 20
EXAMPLE_CHARACTERS = 500
EXCERPT_CHARACTERS = 600


@dataclass(frozen=True)
class WritingAssignment:
    """A generation as a worker begins it: who asks, whom, and which documents are left."""

    generation: RecordGeneration
    principal: Principal
    endpoint: ModelEndpoint | None
    left: list[int]
    drafts: list[DraftRecord]  # that exist already


@dataclass(frozen=True)
class NewDraft:
    """A record to store: an ID that sorts after those of earlier ones."""

    id: str
    cells: list[str]
    duplicate_of: str | None


@dataclass(frozen=True)
class DocumentOutcome:
    """What came of asking about a document: records, problems, and the tokens that it took."""

    document: int
    excerpt: str
    drafts: Sequence[NewDraft]
    problems: Sequence[str]
    answer: str
    num_prompt_tokens: int
    num_tokens: int


def assign(session: Session, task: BackgroundTask) -> WritingAssignment | str:
    """What a worker has to do, or the code of the failure if that is impossible now."""
    generation = session.get(RecordGeneration, task.options.generation)
    if generation is None:
        return "generation_gone"
    corpus = session.get(Corpus, generation.corpus_id)
    if (
        corpus is None
        or corpus.deleted_at is not None
        or corpus.state != "ready"
        or corpus.text_sha256 != generation.corpus_sha256
    ):
        return "source_changed"
    endpoint = session.get(ModelEndpoint, generation.endpoint_id) if generation.endpoint_id is not None else None
    if endpoint is None and generation.endpoint_url is not None:
        return "endpoint_gone"
    prompted = select(PromptedDocument.number).where(PromptedDocument.generation_id == generation.id)
    done = set(session.scalars(prompted))
    if endpoint is not None and (endpoint.base_url, endpoint.model) != (generation.endpoint_url, generation.model):
        if done:  # their records would come from two models
            return "endpoint_changed"
        service.use_endpoint(generation, endpoint)
    owner = session.get_one(User, generation.owner_id)
    principal = background_principal(owner)
    left = [number for number in service.sample(generation) if number not in done]
    drafts = session.scalars(select(DraftRecord).where(DraftRecord.generation_id == generation.id))
    return WritingAssignment(generation, principal, endpoint, left, list(drafts.all()))


def new_ids(count: int) -> list[str]:
    """IDs of records of one document, in their order."""
    return sorted(new_id() for _number in range(count))


def store(session: Session, task: BackgroundTask, outcome: DocumentOutcome) -> bool:
    """Store what came of a document. Returns False, and stores nothing, if the task is no longer this worker's."""
    if not background_tasks.renew(session, task_id=task.id, fence=task.fence, progress=None):
        return False
    generation = session.get(RecordGeneration, task.options.generation, with_for_update=True)
    if generation is None:
        return False
    own = {"generation_id": generation.id}
    session.add(PromptedDocument(**own, number=outcome.document, excerpt=outcome.excerpt[:EXCERPT_CHARACTERS]))
    session.add_all(DraftRecord(**own, document=outcome.document, **vars(draft)) for draft in outcome.drafts)
    generation.num_prompt_tokens += outcome.num_prompt_tokens
    generation.num_tokens += outcome.num_tokens
    generation.malformed = dict(Counter(generation.malformed) + Counter(outcome.problems))
    generation.examples = [*generation.examples, *_examples(outcome)][:MAX_EXAMPLES]
    return True


def _examples(outcome: DocumentOutcome) -> Iterable[AnswerProblem]:
    text = printable_text(outcome.answer[:EXAMPLE_CHARACTERS])
    for code in dict.fromkeys(outcome.problems):
        yield AnswerProblem(code=code, document=outcome.document, text=text)


def has_lost_endpoint(session: Session, task: BackgroundTask) -> bool:
    """Whether the endpoint of a generation was deleted."""
    generation = session.get(RecordGeneration, task.options.generation)
    return generation is not None and generation.endpoint_url is not None and generation.endpoint_id is None


def note_limit(session: Session, task: BackgroundTask, limit: str) -> None:
    """Note which limit ends a generation."""
    generation = session.get(RecordGeneration, task.options.generation, with_for_update=True)
    if generation is not None:
        generation.stopped_by = limit


def cost(generation: RecordGeneration, num_prompt_tokens: int, num_tokens: int) -> float | None:
    """What tokens cost, in the unit of the prices; None without prices."""
    prices = (generation.input_price, generation.output_price)
    if prices == (None, None):
        return None if generation.endpoint_url is not None else 0.0
    return (num_prompt_tokens * (prices[0] or 0) + num_tokens * (prices[1] or 0)) / 1_000_000
