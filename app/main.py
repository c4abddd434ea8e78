"""The web application, put together from its features. `uvicorn app.main:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from anyio import to_thread
from fastapi import FastAPI

from app.accounts import api as accounts_api
from app.accounts import audit_api, audit_pages, people_api, people_pages
from app.accounts import pages as accounts_pages
from app.accounts.oidc import api as oidc_api
from app.accounts.oidc import pages as oidc_pages
from app.background_tasks import api as background_tasks_api
from app.background_tasks import pages as background_tasks_pages
from app.base_models import api as models_api
from app.base_models import pages as models_pages
from app.checkpoints import api as checkpoints_api
from app.checkpoints import pages as checkpoints_pages
from app.conversations import api as conversations_api
from app.conversations import pages as conversations_pages
from app.core import db, migrations
from app.core.i18n import load_locales
from app.core.live import Hub
from app.core.version import VERSION
from app.corpora import api as corpora_api
from app.corpora import mappings_api, statistics_api, tus
from app.corpora import pages as corpora_pages
from app.corpora.cleaning import api as cleaning_api
from app.corpora.cleaning import pages as cleaning_pages
from app.evaluations import api as evaluations_api
from app.evaluations import pages as evaluations_pages
from app.jobs import api as jobs_api
from app.jobs import form_pages, log_api, metrics_api, preset_api, preset_pages, tokenization_pages
from app.jobs import pages as jobs_pages
from app.jobs.archives import api as archives_api
from app.jobs.archives import pages as archives_pages
from app.jobs.cluster import api as cluster_api
from app.jobs.forwarding import api as forwarding_api
from app.jobs.forwarding import pages as forwarding_pages
from app.jobs.lists import api as job_list_api
from app.jobs.lists import everyones, everyones_pages, job_queue, job_queue_pages
from app.jobs.lists import pages as job_list_pages
from app.lineage import api as lineage_api
from app.lineage import pages as lineage_pages
from app.notices import api as notices_api
from app.notices import pages as notices_pages
from app.openai import chat as openai_chat
from app.openai import completions as openai_completions
from app.openai import embeddings as openai_embeddings
from app.openai import estimates as openai_estimates
from app.openai import files as openai_files
from app.openai import jobs as openai_jobs
from app.openai import models as openai_models
from app.openai import permissions as openai_permissions
from app.openai import responses as openai_responses
from app.openai import webhooks as openai_webhooks
from app.overview import api_reference, health, health_api, home, learn, usage, usage_pages
from app.overview import nodes as nodes_pages
from app.playground import api as playground_api
from app.playground import generation_queue, time_lapse
from app.playground import pages as playground_pages
from app.playground.deployments import api as deployments_api
from app.playground.deployments import pages as deployments_pages
from app.playground.inspection import api as inspection_api
from app.playground.inspection import pages as inspection_pages
from app.sharing import api as sharing_api
from app.sharing import pages as sharing_pages
from app.synthetic import api as synthetic_api
from app.synthetic import endpoint_api
from app.synthetic import pages as synthetic_pages
from app.tokenizers import api as tokenizers_api
from app.tokenizers import pages as tokenizers_pages
from app.trash import api as trash_api
from app.trash import pages as trash_pages
from app.web import errors, middleware, openapi, probes
from app.web.admission import Admission, AdmissionMiddleware
from app.web.head_requests import HeadMiddleware
from app.web.pages import load_templates
from app.web.revocation import OpenRequests, RevocationMiddleware
from app.web.routing import filter_routers
from app.web.static_files import DIRECTORY, STATIC_PATH, ImmutableFiles

FEATURES = (
    accounts_api,
    people_api,
    oidc_api,
    audit_api,
    corpora_api,
    mappings_api,
    statistics_api,
    cleaning_api,
    tus,
    tokenizers_api,
    models_api,
    checkpoints_api,
    conversations_api,
    background_tasks_api,
    evaluations_api,
    lineage_api,
    jobs_api,
    preset_api,
    log_api,
    metrics_api,
    job_list_api,
    archives_api,
    forwarding_api,
    cluster_api,
    health_api,
    usage,
    everyones,
    job_queue,
    notices_api,
    playground_api,
    deployments_api,
    inspection_api,
    endpoint_api,
    synthetic_api,
    trash_api,
    sharing_api,
)
OPENAI = (
    openai_models,
    openai_files,
    openai_jobs,
    openai_estimates,
    openai_permissions,
    openai_webhooks,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_responses,
)
PAGES = (
    accounts_pages,
    people_pages,
    oidc_pages,
    audit_pages,
    corpora_pages,
    cleaning_pages,
    tokenizers_pages,
    models_pages,
    checkpoints_pages,
    background_tasks_pages,
    evaluations_pages,
    lineage_pages,
    job_list_pages,
    archives_pages,
    everyones_pages,
    job_queue_pages,
    forwarding_pages,
    tokenization_pages,
    preset_pages,
    form_pages,
    jobs_pages,
    notices_pages,
    playground_pages,
    time_lapse,
    deployments_pages,
    conversations_pages,
    inspection_pages,
    synthetic_pages,
    trash_pages,
    sharing_pages,
    home,
    nodes_pages,
    usage_pages,
    health,
    api_reference,
    learn,
)

NUM_THREADS = db.MAX_CONNECTIONS - 6  # the others are for the pools of app/web/pools.py


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The hub of live views and the watch over open requests run as long as the application.

    Routes have fewer threads than there are connections, so that these do not run out.
    """
    filter_routers(app.routes)
    for load in (load_templates, load_locales, migrations.newest):  # else the first request that needs them waits
        load()
    to_thread.current_default_thread_limiter().total_tokens = NUM_THREADS
    await to_thread.run_sync(db.limit_waits)
    app.state.admission = Admission()
    app.state.openapi_json = None  # the task that encodes it, from the first request on
    async with (
        generation_queue.kept_connections(),
        Hub().running() as app.state.hub,
        OpenRequests().rechecked() as app.state.open_requests,
    ):
        yield


def create_app() -> FastAPI:
    """Every route: JSON under /api/v1 and as OpenAI has it under /v1, health checks next to them, pages at the root."""
    app = FastAPI(
        title="Athanor",
        version=VERSION,
        summary="Train, watch, try and serve language models of your own.",
        openapi_url=None,  # app.web.openapi serves the document
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        generate_unique_id_function=openapi.operation_id,
    )
    for feature in FEATURES:
        app.include_router(feature.router, prefix="/api/v1")
    for part in OPENAI:
        app.include_router(part.router, prefix="/v1", include_in_schema=False)
    app.include_router(probes.router)
    app.add_api_route(openapi.PATH, openapi.get_document, include_in_schema=False)
    for pages in PAGES:
        app.include_router(pages.router, include_in_schema=False)
    app.mount(STATIC_PATH, ImmutableFiles(directory=DIRECTORY), name="static")
    app.add_middleware(RevocationMiddleware)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(middleware.SecurityMiddleware)
    app.add_middleware(AdmissionMiddleware)
    errors.install_errors(app)
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]
    return app


app = create_app()
