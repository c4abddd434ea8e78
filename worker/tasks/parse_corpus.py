"""The Celery task that parses an upload in a sandboxed child and records the result."""

import sys
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from app.core import db, queue, storage
from app.core.models import Corpus
from app.core.queue import celery
from app.core.settings import settings
from app.corpora import service
from trainer.jsonlines import Message
from worker.environment import child_environment
from worker.sandbox import runner


@celery.task(name=queue.PARSE_CORPUS)  # type: ignore[untyped-decorator]
def parse_corpus(corpus_id: str) -> None:
    """Parse a corpus that waits for it. Safe to repeat; concurrent calls do nothing."""
    with db.transaction() as session:
        if service.parsing(session, corpus_id=corpus_id) is None:
            return
    with runner.alone(storage.corpus(corpus_id)) as is_alone:
        corpus = _started(corpus_id) if is_alone else None
        if corpus is None:
            return
        closing = run_child(corpus)

        def store(session: Session) -> None:
            if "result" in closing:
                service.finish_parse(session, corpus_id=corpus_id, result=closing["result"])
            else:
                service.fail_parse(session, corpus_id=corpus_id, **closing["failed"])

        def refuse(session: Session, why: str) -> None:
            service.fail_parse(session, corpus_id=corpus_id, problems=[{"code": "result_unstorable", "why": why}])

        db.store_result(store, refuse)


def _started(corpus_id: str) -> Corpus | None:
    with db.transaction() as session:
        return service.start_parse(session, corpus_id=corpus_id)


def run_child(corpus: Corpus) -> dict[str, Any]:
    """Run the child, record its progress and return its closing report."""
    heartbeat = partial(_record_progress, corpus.id)
    closing, status = runner.run_sandboxed(command(corpus), child_environment("parse"), heartbeat)
    return closing or {"failed": {"problems": [{"code": "parser_died", "status": status}]}}


def command(corpus: Corpus) -> list[str]:
    """The command line of the child."""
    limits = [f"--memory={settings().parse_memory_bytes}", f"--cpu={settings().parse_cpu_seconds}"]
    options = [f"--encoding={corpus.encoding}"] if corpus.encoding else []
    if corpus.progress.kind:
        options.append(f"--kind={corpus.progress.kind}")
    if corpus.progress.skip_bad:
        options.append("--skip-bad")
    if corpus.progress.bad_bytes:
        options.append(f"--bad-bytes={corpus.progress.bad_bytes}")
    directory = str(storage.corpus(corpus.id))
    return [sys.executable, "-m", "worker.sandbox.corpus.parse", directory, corpus.format, *limits, *options]


def _record_progress(corpus_id: str, progress: Message | None) -> bool:
    if progress is not None:
        with db.transaction() as session:
            service.record_parse_progress(session, corpus_id=corpus_id, **progress)
    return True
