"""The Celery task that has an upload parsed by a limited child, and records what the child reports."""

import json
import subprocess
import sys
from typing import Any

from app import db, queue, storage
from app.corpora import service
from app.models import Corpus
from app.queue import celery
from app.settings import ROOT, settings


@celery.task(name=queue.PARSE_CORPUS)  # type: ignore[untyped-decorator]
def parse_corpus(corpus_id: str) -> None:
    """Parse a corpus that still waits for it. Safe to repeat, also at the same time."""
    with db.transaction() as session:
        corpus = service.parsing(session, corpus_id=corpus_id)
    if corpus is None:
        return
    closing = run_child(corpus)
    with db.transaction() as session:
        if "result" in closing:
            service.finish_parse(session, corpus_id=corpus_id, result=closing["result"])
        else:
            service.fail_parse(session, corpus_id=corpus_id, **closing["failed"])


def run_child(corpus: Corpus) -> dict[str, Any]:
    """Run the child to its end, recording progress as it comes; return its closing report."""
    # It gets no environment but this: above all no address of a database.
    child = subprocess.Popen(
        command(corpus),
        cwd=ROOT,
        env={"PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None
    closing: dict[str, Any] = {}
    with child, child.stdout:
        try:
            for line in child.stdout:
                message = json.loads(line)
                if "done" in message:
                    _record_progress(corpus.id, message)
                else:
                    closing = message
        except BaseException:
            child.kill()
            raise
    return closing or {"failed": {"problems": [{"code": "parser_died", "status": child.returncode}]}}


def command(corpus: Corpus) -> list[str]:
    """The child's arguments."""
    limits = [f"--memory={settings().parse_memory_bytes}", f"--cpu={settings().parse_cpu_seconds}"]
    wishes = [f"--encoding={corpus.encoding}"] if corpus.encoding else []
    if corpus.progress.get("kind"):
        wishes.append(f"--kind={corpus.progress['kind']}")
    if corpus.progress.get("skip_bad"):
        wishes.append("--skip-bad")
    directory = str(storage.corpus(corpus.id))
    return [sys.executable, "-m", "worker.parse", directory, corpus.format, *limits, *wishes]


def _record_progress(corpus_id: str, message: dict[str, Any]) -> None:
    with db.transaction() as session:
        service.record_parse_progress(session, corpus_id=corpus_id, done=message["done"], total=message["total"])
