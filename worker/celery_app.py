"""The Celery application of a worker: `celery -A worker.celery_app worker`. Imports every task."""

from app.queue import celery as app
from worker import corpus_tasks, generate_tasks, model_tasks, node, tasks, work_tasks

__all__ = ["app", "corpus_tasks", "generate_tasks", "model_tasks", "node", "tasks", "work_tasks"]
