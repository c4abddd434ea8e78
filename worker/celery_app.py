"""The Celery application of a worker: `celery -A worker.celery_app worker`. Imports every task."""

from app.core.queue import celery as app
from worker import runtime
from worker.tasks import export_and_evaluate, generate, import_model, parse_corpus, start_job

__all__ = ["app", "export_and_evaluate", "generate", "import_model", "parse_corpus", "runtime", "start_job"]
