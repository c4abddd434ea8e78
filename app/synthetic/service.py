"""Records that models write from documents: starts a generation, sees and resumes it. drafts.py and progress.py write
the rest of its tables.
"""

import random

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import background_tasks, db, paging, queue
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, locale
from app.core.json_shapes import TaskOptions
from app.core.models import BackgroundTask, Corpus
from app.core.names import check_text
from app.core.principal import Principal, not_found, visible_to
from app.core.synthetic_models import ModelEndpoint, PromptedDocument, RecordGeneration
from app.core.synthetic_shapes import RecordSettings
from app.corpora import service as corpora
from app.playground import service as playground
from app.playground.deployments import calls
from app.synthetic import endpoints, prompts
from app.synthetic.schemas import RecordGenerationRequest

MEMORY_BYTES = 256 * 2**20  # of the thread that asks, and the index of near duplicates


def start(principal: Principal, request: RecordGenerationRequest) -> RecordGeneration:
    """Have a model write records, in the background. Raises PanelError at the field that does not fit."""
    with db.transaction() as session:
        (corpus,) = corpora.require_ready_corpora(session, principal=principal, ids=[request.corpus], field="corpus")
        generation = RecordGeneration(
            owner_id=principal.user_id,
            corpus_id=corpus.id,
            corpus_name=corpus.name,
            corpus_version=corpus.version,
            corpus_sha256=str(corpus.text_sha256),
            corpus_documents=corpus.num_documents or 0,
            settings=_settings(request, corpus),
        )
        _choose_model(session, principal, generation, request)
        session.add(generation)
        session.flush()
        _enqueue(session, generation)
    queue.flush_outbox()
    return generation


def _settings(request: RecordGenerationRequest, corpus: Corpus) -> RecordSettings:
    template = request.template.replace("\r\n", "\n").strip() or prompts.default_template(request.kind, locale())
    check_text("template", template)
    if prompts.PLACEHOLDER not in template:
        message = _("The prompt lacks {placeholder}, where the text of the document stands.", placeholder="{document}")
        raise bad_field("template", "template_invalid", message)
    unknown = prompts.unknown_placeholders(template)
    if unknown:
        message = _(
            "The prompt has {unknown}, which nothing is put in place of. A prompt can have {allowed}. With spaces "
            "inside the braces they stay as they are.",
            unknown=", ".join(unknown)[:200],
            allowed=", ".join(prompts.PLACEHOLDERS),
        )
        raise bad_field("template", "template_invalid", message)
    if request.kind == "text" and request.records_per_document > 1:
        message = _("A document is rewritten as one text. Choose 1.")
        raise bad_field("records_per_document", "records_many", message)
    same = request.model_dump(exclude={"corpus", "model", "endpoint", "template", "num_documents"})
    num_documents = min(request.num_documents, corpus.num_documents or 0)
    return RecordSettings(**same, template=template, language=locale(), num_documents=num_documents)


def _choose_model(
    session: Session, principal: Principal, generation: RecordGeneration, request: RecordGenerationRequest
) -> None:
    """Set who writes the records. Raises PanelError."""
    if (request.endpoint is None) == (not request.model):
        raise bad_field("model", "model_or_endpoint", _("Choose either a model or an endpoint."))
    if request.endpoint is not None:
        endpoint = _endpoint(session, principal, request.endpoint)
        use_endpoint(generation, endpoint)
        if request.max_cost is not None and endpoint.input_price is None and endpoint.output_price is None:
            message = _("This endpoint has no prices, so its cost cannot be limited. Enter them, or limit the tokens.")
            raise bad_field("max_cost", "price_missing", message)
        return
    if request.max_cost is not None:
        message = _("Models of this installation cost nothing. Limit the tokens instead.")
        raise bad_field("max_cost", "price_missing", message)
    _use_own_model(session, principal, generation, request.model)


def use_endpoint(generation: RecordGeneration, endpoint: ModelEndpoint) -> None:
    """Have an endpoint write the records: copy from it what outlives it."""
    generation.endpoint_id, generation.endpoint_url = endpoint.id, endpoint.base_url
    generation.model, generation.model_name = endpoint.model, f"{endpoint.name} · {endpoint.model}"
    generation.model_id = None
    generation.input_price, generation.output_price = endpoint.input_price, endpoint.output_price


def _endpoint(session: Session, principal: Principal, endpoint_id: str) -> ModelEndpoint:
    try:
        return endpoints.get(session, principal=principal, endpoint_id=endpoint_id)
    except PanelError as error:
        raise bad_field("endpoint", "endpoint_unknown", error.message) from None


def _use_own_model(session: Session, principal: Principal, generation: RecordGeneration, name: str) -> None:
    """Have a deployment, or a checkpoint or base model that generates text, write the records. Raises PanelError."""
    deployment = calls.find(session, principal=principal, name=name)
    if deployment is not None:
        playground.refuse_use(playground.deployed_traits(session, deployment), "generate")
        generation.model, generation.model_name = deployment.id, deployment.name
        generation.model_id = deployment.model_id
        return
    try:
        playground.model_path(session, principal, name, "generate")
        group = playground.get_model(session, principal=principal, model_id=name)
    except PanelError as error:
        raise bad_field("model", "model_unfit", error.message) from None
    generation.model, generation.model_name = name, group.choices[0].label if group is not None else name
    generation.model_id = name


def _enqueue(session: Session, generation: RecordGeneration) -> None:
    task = background_tasks.enqueue(
        session,
        kind="generate",
        owner_id=generation.owner_id,
        memory_bytes=MEMORY_BYTES,
        options=TaskOptions(generation=generation.id),
        corpus_id=generation.corpus_id,
    )
    generation.task_id = task.id


def get(session: Session, *, principal: Principal, generation_id: str, for_update: bool = False) -> RecordGeneration:
    """A generation of the user. Raises 404."""
    own = (RecordGeneration.id == generation_id, visible_to(RecordGeneration.owner_id, principal))
    query = select(RecordGeneration).where(*own)
    generation = session.scalar(query.with_for_update() if for_update else query)
    if generation is None:
        raise not_found()
    return generation


def list_generations(
    session: Session, *, principal: Principal, limit: int, after: str | None = None
) -> tuple[list[RecordGeneration], str | None]:
    """The generations of the user, newest first, and the cursor of the next page."""
    query = select(RecordGeneration).where(visible_to(RecordGeneration.owner_id, principal))
    return paging.newest(session, query, RecordGeneration.id, limit, after)


def task_of(session: Session, generation: RecordGeneration) -> BackgroundTask | None:
    """Its last background task; None if that was deleted."""
    return session.get(BackgroundTask, generation.task_id) if generation.task_id is not None else None


def num_done(session: Session, generation: RecordGeneration) -> int:
    """The number of documents that were asked about."""
    own = select(func.count()).select_from(PromptedDocument).where(PromptedDocument.generation_id == generation.id)
    return session.scalar(own) or 0


def resume(
    principal: Principal, generation_id: str, max_total_tokens: int | None = None, max_cost: float | None = None
) -> RecordGeneration:
    """Ask about the documents that are left, with other limits if there are some. Raises PanelError (409)."""
    with db.transaction() as session:
        generation = get(session, principal=principal, generation_id=generation_id, for_update=True)
        task = task_of(session, generation)
        if task is not None and task.state in background_tasks.OPEN:
            raise PanelError(409, "generation_open", _("These records are being generated already."))
        if generation.corpus_id is None:
            raise PanelError(409, "source_gone", _("The corpus whose documents were used was deleted."))
        if num_done(session, generation) >= generation.settings.num_documents:
            raise PanelError(409, "generation_complete", _("No document is left. Generate from others."))
        limits = {"max_total_tokens": max_total_tokens, "max_cost": max_cost}
        changed = {name: value for name, value in limits.items() if value is not None}
        generation.settings = generation.settings.model_copy(update=changed)
        generation.stopped_by = None
        _enqueue(session, generation)
    queue.flush_outbox()
    return generation


def delete(session: Session, *, principal: Principal, generation_id: str) -> None:
    """Delete a generation with its records; corpora made of them stay. Raises 409 while it has not ended."""
    generation = get(session, principal=principal, generation_id=generation_id, for_update=True)
    task = task_of(session, generation)
    if task is not None and task.state in background_tasks.OPEN:
        raise PanelError(409, "generation_open", _("These records are being generated. Cancel that first."))
    session.delete(generation)


def sample(generation: RecordGeneration) -> list[int]:
    """The numbers of the documents that are asked about, in their order: a function of the seed."""
    settings = generation.settings
    return random.Random(settings.seed).sample(range(generation.corpus_documents), settings.num_documents)  # noqa: S311
