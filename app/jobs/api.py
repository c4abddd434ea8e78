"""JSON routes of jobs, recipes and nodes, and the stream of a job's live view."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from sse_starlette import EventSourceResponse

from app.background_tasks.schemas import TaskAnswer, task_answer
from app.core import db, fault_injection, i18n, idempotency, queue
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.models import STATES, Job
from app.core.paging import Listing
from app.core.principal import OwnerFilter, Principal, is_visible
from app.jobs import deletion, schemas, service, stream, tokenization
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.cluster import nodes
from app.jobs.lifecycle import notifications
from app.jobs.lifecycle.notifications import notify_job_changed
from app.jobs.lists import comparison
from app.jobs.planning import answers, data_checks
from app.jobs.previews import batch, chat_template, samples
from app.jobs.previews.chat_template import PreviewAnswer, PreviewRequest
from app.jobs.previews.samples import SamplesAnswer
from app.jobs.searches import importance
from app.jobs.searches import service as hyperparameter_search
from app.jobs.searches.service import HyperparameterSearchAnswer, HyperparameterSearchRequest
from app.jobs.views import baselines, loss_forecast
from app.jobs.views.baselines import Baselines
from app.jobs.views.loss_forecast import LossForecast
from app.web.auth import Reader, Submitter
from app.web.event_source import event_source
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id, ShortText
from app.web.preview_process import PREVIEWS
from app.web.problem_types import errors
from app.web.revocation import end_unless
from trainer.batch_shapes import BatchView
from trainer.spec import MAX_STEPS

router = APIRouter(route_class=ApiRoute)
PROPOSAL_ERRORS = errors("no_node", "too_little", "corpus_unknown", "corpus_parsing", "corpus_failed", "corpus_twice")

SPEC_CODES = (
    "spec_invalid",
    "base_differs",
    "base_unknown",
    "character_invalid",
    "chat_template_unusable",
    "checkpoint_missing",
    "checkpoint_unknown",
    "checkpoint_unresumable",
    "context_short",
    "corpus_failed",
    "corpus_parsing",
    "corpus_twice",
    "corpus_unknown",
    "data_short",
    "groups_missing",
    "split_empty",
    "split_unnamed",
    "epochs_uncounted",
    "judge_missing",
    "kind_unfit",
    "label_unknown",
    "labels_one",
    "memory_short",
    "model_unready",
    "name_missing",
    "name_too_long",
    "objective_unfit",
    "origin_differs",
    "records_few",
    "steps_done",
    "steps_many",
    "tokenizer_unknown",
    "tokenizer_unready",
    "tokens_missing",
)

PartialSpec = Annotated[
    dict[str, Any],
    Body(
        description="A partial TrainSpec; its recipe fills in the fields that are missing.",
        openapi_examples=schemas.SUBMIT_EXAMPLES,
    ),
]


@router.post(
    "/jobs",
    status_code=201,
    tags=["jobs"],
    responses={
        200: {"description": "The key's job, again."},
        **errors(*SPEC_CODES, "key_invalid", "idempotency_conflict", "quota", "disk_full"),
    },
)
def submit_job(
    principal: Submitter,
    partial_spec: PartialSpec,
    response: Response,
    idempotency_key: Annotated[
        str | None, Header(description="Makes repeating the request safe.", max_length=idempotency.MAX_KEY_LENGTH)
    ] = None,
) -> schemas.JobAnswer:
    """Submit a job."""
    with db.transaction() as session:
        job, is_new = service.submit(
            session, principal=principal, request=partial_spec, idempotency_key=idempotency_key
        )
        answer = schemas.job_answer(session, job)
    fault_injection.reach("submitted")
    notify_job_changed(job.id)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return answer


@router.post("/jobs/plan", tags=["jobs"], responses=errors(*SPEC_CODES))
def plan_job(principal: Reader, partial_spec: PartialSpec) -> answers.PlanAnswer:
    """Validate a spec and estimate what the job would cost, without submitting it."""
    with db.transaction() as session:
        resolved = service.resolve_request(session, principal=principal, request=partial_spec)
        data = data_checks.check(session, principal, resolved.spec, resolved.corpora)
    return answers.plan_answer(resolved.spec, resolved.vocab_size, resolved.plan, resolved.auto_fields, data)


@router.post(
    "/jobs/preview-template",
    tags=["jobs"],
    responses=errors("chat_template_slow", "chat_template_unusable", "base_unknown", "preview_busy"),
)
@PREVIEWS
def preview_template(principal: Submitter, request: PreviewRequest) -> PreviewAnswer:
    """Show what a chat template makes of a conversation, and which parts of it a model would learn."""
    with db.transaction() as session:
        base = chat_template.base_directory(session, principal, request.base_model)
    return chat_template.preview(request, base)


@router.post(
    "/jobs/samples",
    tags=["jobs"],
    responses=errors(*SPEC_CODES, "sample_unknown", "batch_slow", "preview_unfit", "preview_busy"),
)
@PREVIEWS
def preview_samples(
    principal: Submitter,
    partial_spec: PartialSpec,
    step: Annotated[int, Query(ge=1, le=MAX_STEPS)] = 1,
    first: Annotated[int, Query(ge=0, le=2**31, description="The first sample of the batch, from 0.")] = 0,
    count: Annotated[int, Query(ge=1, le=batch.MAX_SAMPLES, description="How many samples.")] = 8,
) -> SamplesAnswer:
    """Show what a job with this spec would read at a step, token by token, without submitting it."""
    with db.transaction() as session:
        resolved = service.resolve_request(session, principal=principal, request=partial_spec)
        inputs = samples.inputs_of(session, resolved.spec, resolved.corpora, resolved.parent)
    return samples.preview(resolved.spec, inputs, step=step, first=first, count=count)


@router.post(
    "/jobs/tokenize",
    status_code=201,
    tags=["jobs"],
    responses=errors(*SPEC_CODES, "tokenizer_missing", "tasks_open", "disk_full"),
)
def tokenize_corpora(principal: Submitter, partial_spec: PartialSpec) -> TaskAnswer:
    """Tokenize the corpora of a job in the background, without submitting it: jobs with the same corpora, tokenizer
    and fields of the data then begin to train at once.
    """
    with db.transaction() as session:
        answer = task_answer(tokenization.start(session, principal=principal, request=partial_spec))
    queue.flush_outbox()
    return answer


@router.post(
    "/jobs/propose",
    tags=["jobs"],
    responses=PROPOSAL_ERRORS,
)
def propose_job(principal: Reader, request: answers.ProposeRequest) -> answers.ProposeAnswer:
    """Propose a model for corpora and a training time: fields of a spec, each with its reason."""
    with db.transaction() as session:
        proposal = service.propose(session, principal=principal, corpora=request.corpora, seconds=request.seconds)
    return answers.propose_answer(request.corpora, proposal)


@router.post(
    "/jobs/propose-curve",
    tags=["jobs"],
    responses=PROPOSAL_ERRORS,
)
def propose_curve(principal: Reader, request: answers.ProposalCurveRequest) -> answers.ProposalCurveAnswer:
    """Compare training times: the expected loss of what `propose` proposes for each of them."""
    with db.transaction() as session:
        proposals = service.propose_each(session, principal=principal, corpora=request.corpora, budgets=request.seconds)
    return answers.proposal_curve_answer(request.seconds, proposals)


@router.get("/jobs", tags=["jobs"], responses=errors("state_unknown"))
def list_jobs(
    principal: Reader,
    state: Annotated[
        list[ShortText] | None,
        Query(description="Only jobs in one of these states.", max_length=100),
    ] = None,
    q: Annotated[str, Query(description="A part of the name, tags, notes or recipe.", max_length=200)] = "",
    tag: Annotated[str | None, Query(description="Only jobs with this tag.", max_length=100)] = None,
    owner: Annotated[
        OwnerFilter | None, Query(description="Only your own, or only what others share with you.")
    ] = None,
    order: Annotated[service.JobOrder, Query(description="eval_loss: the lowest validation loss first.")] = "newest",
    limit: Limit = 50,
    after: After = None,
) -> Listing[schemas.JobAnswer]:
    """List jobs, newest first unless `order` says otherwise."""
    unknown = next((name for name in state or () if name not in STATES), None)
    if unknown is not None:
        message = _("Unknown state “{state}”. Use one of: {expected}.", state=unknown, expected=", ".join(STATES))
        raise bad_field("state", "state_unknown", message)
    with db.transaction() as session:
        jobs, cursor = service.list_jobs(
            session,
            principal=principal,
            limit=limit,
            after=after,
            states=state,
            search=q.replace("\0", ""),
            tag=tag and tag.replace("\0", ""),
            owner=owner,
            order=order,
        )
        return Listing(data=schemas.job_answers(session, jobs), next=cursor)


@router.get("/jobs/compare", tags=["jobs"], responses=errors("not_found", "jobs_many"))
def compare_jobs(
    principal: Reader,
    job: Annotated[list[Id], Query(description="The ids of the jobs, at most 50.", min_length=1, max_length=100)],
) -> comparison.JobComparison:
    """Compare jobs: the fields in which their specs differ, their best values and their newest samples."""
    with db.transaction() as session:
        return comparison.compare(session, principal=principal, job_ids=job)


@router.get("/jobs/{job_id}", tags=["jobs"])
def get_job(principal: Reader, job_id: Id) -> schemas.JobAnswer:
    """Get a job."""
    with db.transaction() as session:
        return schemas.job_answer(session, service.get(session, principal=principal, job_id=job_id))


@router.patch(
    "/jobs/{job_id}",
    tags=["jobs"],
    responses=errors("name_missing", "name_too_long", "character_invalid", "tag_comma", "tags_many"),
)
def change_job(principal: Submitter, job_id: Id, changes: service.JobChanges) -> schemas.JobAnswer:
    """Rename, tag or describe a job, whatever its state. Its spec stays as it was submitted."""
    with db.transaction() as session:
        job = service.change(session, principal=principal, job_id=job_id, changes=changes)
        answer = schemas.job_answer(session, job)
    notify_job_changed(job_id)
    return answer


@router.get(
    "/jobs/{job_id}/batches/{step}",
    tags=["jobs"],
    responses=errors(
        *("step_unknown", "sample_unknown", "batch_unprepared", "batch_deleted", "batch_slow", "preview_busy")
    ),
)
@PREVIEWS
def get_batch(
    principal: Reader,
    job_id: Id,
    step: Annotated[int, Path(ge=1, le=MAX_STEPS)],
    first: Annotated[int, Query(ge=0, le=2**31, description="The first sample of the batch, from 0.")] = 0,
    count: Annotated[int, Query(ge=1, le=batch.MAX_SAMPLES, description="How many samples.")] = 8,
) -> BatchView:
    """The samples that the trainer reads at a step, token by token, and the documents that each of them is from."""
    with db.transaction() as session:
        job = service.get(session, principal=principal, job_id=job_id)
        batch.require_text(session, principal, job)
        spec = effective_spec(job)
    return batch.view_batch(job_id, spec, step, first, count)


@router.post("/jobs/{job_id}/cancel", status_code=202, tags=["jobs"], responses=errors("job_ended"))
def cancel_job(principal: Submitter, job_id: Id) -> schemas.JobAnswer:
    """Cancel a job. A running one saves a last checkpoint; its checkpoints are kept."""
    return _request_change(service.cancel, principal, job_id)


@router.post("/jobs/{job_id}/pause", status_code=202, tags=["jobs"], responses=errors("job_ended", "job_cancelling"))
def pause_job(principal: Submitter, job_id: Id) -> schemas.JobAnswer:
    """Pause a job. It saves a checkpoint and frees its node."""
    return _request_change(service.pause, principal, job_id)


@router.post(
    "/jobs/{job_id}/resume",
    status_code=202,
    tags=["jobs"],
    responses=errors("job_ended", "job_cancelling", "disk_full"),
)
def resume_job(principal: Submitter, job_id: Id) -> schemas.JobAnswer:
    """Resume a paused job from its newest checkpoint, as if it had never stopped."""
    return _request_change(service.resume, principal, job_id)


@router.delete("/jobs/{job_id}", status_code=204, tags=["jobs"], responses=errors("job_open", "checkpoint_in_use"))
def delete_job(principal: Submitter, job_id: Id) -> Response:
    """Move a job that has ended to the trash, with its metrics, log, checkpoints and what was made of those."""
    with db.transaction() as session:
        deletion.delete(session, principal=principal, job_id=job_id)
    notify_job_changed(job_id)
    return Response(status_code=204)


def _request_change(verb: Callable[..., Job], principal: Principal, job_id: str) -> schemas.JobAnswer:
    with db.transaction() as session:
        answer = schemas.job_answer(session, verb(session, principal=principal, job_id=job_id))
    notify_job_changed(job_id)
    return answer


@router.get("/jobs/{job_id}/history", tags=["jobs"])
def get_history(principal: Reader, job_id: Id) -> Listing[schemas.HistoryEntry]:
    """What happened to a job, oldest first."""
    with db.transaction() as session:
        service.get(session, principal=principal, job_id=job_id)
        entries = [schemas.history_entry(event) for event in service.history(session, job_id=job_id)]
    return Listing(data=entries, next=None)


@router.get("/jobs/{job_id}/attempts", tags=["jobs"])
def list_attempts(principal: Reader, job_id: Id) -> Listing[schemas.AttemptAnswer]:
    """The attempts at a job, oldest first: where each resumed, how it ended, what its repeated steps prove."""
    with db.transaction() as session:
        job = service.get(session, principal=principal, job_id=job_id)
        attempts = service.list_attempts(session, job_id=job_id)
        return Listing(data=schemas.attempt_answers(session, job, attempts), next=None)


@router.get("/jobs/{job_id}/samples", tags=["jobs"])
def get_samples(principal: Reader, job_id: Id) -> Listing[schemas.SampleAnswer]:
    """What the model wrote at each evaluation, oldest first."""
    with db.transaction() as session:
        service.get(session, principal=principal, job_id=job_id)
        return Listing(
            data=[schemas.sample_answer(sample) for sample in stream.samples(session, job_id=job_id)], next=None
        )


@router.get("/jobs/{job_id}/baselines", tags=["jobs"])
def get_baselines(principal: Reader, job_id: Id) -> Baselines:
    """What the loss of a job is compared with: guessing blindly or by frequency, and your best earlier job."""
    with db.transaction() as session:
        return baselines.of_job(session, principal, service.get(session, principal=principal, job_id=job_id))


@router.get("/jobs/{job_id}/forecast", tags=["jobs"])
def get_forecast(principal: Reader, job_id: Id) -> LossForecast:
    """Where the training loss of a job that has not ended will probably go: a power law fitted since warm-up."""
    with db.transaction() as session:
        return loss_forecast.forecast(session, service.get(session, principal=principal, job_id=job_id))


@router.get(
    "/jobs/{job_id}/events",
    tags=["jobs"],
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
def stream_job(
    request: Request,
    principal: Reader,
    job_id: Id,
    last_event_id: Annotated[str | None, Header(description="The id of the last event seen.", max_length=200)] = None,
    after: Annotated[str | None, Query(description="Instead of the header.", max_length=200)] = None,
) -> EventSourceResponse:
    """Follow a job: server-sent events job, attempts, curve, points, sample, history, checkpoints and log."""
    with db.transaction() as session:
        service.get(session, principal=principal, job_id=job_id)
    end_unless(request, is_visible, Job, job_id, principal)
    language = i18n.locale()
    read = stream.json_reader(job_id, language)
    return event_source(request, notifications.topic(job_id, language), read, last_event_id or after or "")


SEARCH_CODES = ("range_invalid", "search_empty", "search_field_twice", "search_large", "search_unlimited")


@router.post(
    "/hyperparameter-searches",
    status_code=201,
    tags=["jobs"],
    responses=errors(*SEARCH_CODES, *SPEC_CODES, "quota", "disk_full"),
)
def create_search(
    principal: Submitter, request: HyperparameterSearchRequest, response: Response
) -> HyperparameterSearchAnswer:
    """Submit jobs over a grid or random values of some fields, all or none, and end the worse ones early if wished."""
    with db.transaction() as session:
        search = hyperparameter_search.create(session, principal=principal, request=request)
        (answer,) = hyperparameter_search.answers(session, [search])
    for job_id in answer.jobs:
        notify_job_changed(job_id)
    response.headers["Location"] = f"/api/v1/hyperparameter-searches/{answer.id}"
    return answer


@router.get("/hyperparameter-searches", tags=["jobs"])
def list_searches(principal: Reader, limit: Limit = 50, after: After = None) -> Listing[HyperparameterSearchAnswer]:
    """List hyperparameter searches, newest first."""
    with db.transaction() as session:
        rows, cursor = hyperparameter_search.list_searches(session, principal=principal, limit=limit, after=after)
        return Listing(data=hyperparameter_search.answers(session, rows), next=cursor)


@router.get("/hyperparameter-searches/{search_id}", tags=["jobs"])
def get_search(principal: Reader, search_id: Id) -> HyperparameterSearchAnswer:
    """Get a hyperparameter search. GET /jobs/compare shows its jobs side by side."""
    with db.transaction() as session:
        search = hyperparameter_search.get(session, principal=principal, search_id=search_id)
        return hyperparameter_search.answers(session, [search])[0]


@router.get(
    "/hyperparameter-searches/{search_id}/importance",
    tags=["jobs"],
    responses=errors("importance_slow", "preview_busy"),
)
@PREVIEWS
def get_search_importance(principal: Reader, search_id: Id) -> importance.SearchImportance:
    """How much each field of a hyperparameter search decides about the validation loss, by PED-ANOVA."""
    with db.transaction() as session:
        search = hyperparameter_search.get(session, principal=principal, search_id=search_id)
        search_results = importance.results(session, search)
    return importance.compute(search_results)


@router.post("/hyperparameter-searches/{search_id}/cancel", status_code=202, tags=["jobs"])
def cancel_search(principal: Submitter, search_id: Id) -> HyperparameterSearchAnswer:
    """Cancel all jobs of a hyperparameter search that have not ended."""
    with db.transaction() as session:
        search = hyperparameter_search.cancel(session, principal=principal, search_id=search_id)
        (answer,) = hyperparameter_search.answers(session, [search])
    for job_id in answer.jobs:
        notify_job_changed(job_id)
    return answer


@router.get("/recipes", tags=["jobs"])
def list_recipes(principal: Reader) -> Listing[schemas.RecipeAnswer]:
    """List the ready-made specs, smallest first."""
    return Listing(data=schemas.recipe_answers(), next=None)


@router.get("/nodes", tags=["nodes"])
def list_nodes(principal: Reader) -> Listing[schemas.NodeAnswer]:
    """List the machines that run jobs, by name."""
    with db.transaction() as session:
        running = nodes.running_on(session, owner_id=principal.user_id)
        machines = [
            schemas.node_answer(node, live=nodes.is_live(node, db.now()), running=running.get(node.name, []))
            for node in nodes.list_nodes(session)
        ]
    return Listing(data=machines, next=None)
