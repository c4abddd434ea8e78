"""The Celery task that exports or evaluates a checkpoint in a process of its own, and records what that reports."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from app.core import db, queue, storage
from app.core.models import Corpus
from app.core.queue import celery
from app.core.settings import ROOT
from app.works import facts, service
from app.works.service import Assignment
from trainer.run_dir import CorpusInput

SIGN_SECONDS = 1.0  # between two signs of life; a cancelled work ends after one at most
# What the process gets of this one's environment: above all no address of a database.
_KEPT = ("PATH", "LANG", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
_BARE = {"PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_alone = threading.Lock()  # a node does one at a time: each may take all its memory


@celery.task(name=queue.RUN_WORK)  # type: ignore[untyped-decorator]
def run_work(work_id: str) -> None:
    """Do a work that still waits, and then others that do. Safe to repeat, also at the same time."""
    if not _alone.acquire(blocking=False):
        return  # whoever has the lock takes this one up next
    try:
        with db.transaction() as session:
            assignment = service.begin(session, work_id=work_id)
        while assignment is not None:
            _do(assignment)
            with db.transaction() as session:
                assignment = service.begin_next(session)
    finally:
        _alone.release()


def _do(assignment: Assignment) -> None:
    if len(assignment.corpora) < len(assignment.options.corpora):
        closing: dict[str, Any] = {"failed": {"code": "corpus_gone", "values": {}}}
    else:
        closing = run_child(assignment)
    work_id, start = assignment.work_id, assignment.start
    with db.transaction() as session:
        if "result" in closing:
            is_kept = service.finish(session, work_id=work_id, start=start, result=closing["result"])
        else:
            service.fail(session, work_id=work_id, start=start, **closing["failed"])
            is_kept = False
    if not is_kept:
        service.remove_files(assignment.work_id)


def run_child(assignment: Assignment) -> dict[str, Any]:
    """Run the process to its end and return its closing report. One that nobody wants any more is ended."""
    directory = storage.work(assignment.work_id)
    service.remove_files(assignment.work_id)  # of an earlier start
    directory.mkdir(parents=True)
    env = {**_BARE, **{name: os.environ[name] for name in _KEPT if name in os.environ}}
    with (directory / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            command(assignment),
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            closing = _stream_reports(child, assignment)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if closing:
        return closing
    lines = (directory / "log.txt").read_text(errors="replace").strip().splitlines()
    if child.returncode == 64 and lines:
        return {"failed": {"code": "bad_input", "values": {"why": lines[-1][:500]}}}
    return {"failed": {"code": "process_died", "values": {"status": child.returncode}}}


def _stream_reports(child: subprocess.Popen[bytes], assignment: Assignment) -> dict[str, Any]:
    """Read what the process says until it ends, and sign for it meanwhile."""
    assert child.stdout is not None
    begun, held, signed_at = time.monotonic(), b"", 0.0
    progress: dict[str, Any] | None = None
    while True:
        is_readable, _w, _x = select.select([child.stdout], [], [], SIGN_SECONDS)
        data = os.read(child.stdout.fileno(), 1 << 16) if is_readable else None
        if data == b"":
            return {}
        *lines, held = (held + (data or b"")).split(b"\n")
        for line in lines:
            message = _message(line)
            if "done" in message:
                progress = {**message, "seconds": round(time.monotonic() - begun, 3)}
            elif message:
                return message
        if time.monotonic() - signed_at >= SIGN_SECONDS:
            signed_at = time.monotonic()
            with db.transaction() as session:
                mine = service.sign(session, work_id=assignment.work_id, start=assignment.start, progress=progress)
                if not mine:
                    return {"failed": {"code": "process_died", "values": {"status": 0}}}  # nobody will read it


def _message(line: bytes) -> dict[str, Any]:
    """A report of the process; what else it prints is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def command(assignment: Assignment) -> list[str]:
    """The process's arguments."""
    checkpoint, directory = str(storage.checkpoint(assignment.checkpoint_path)), storage.work(assignment.work_id)
    options = assignment.options
    trainer = [sys.executable, "-m", "trainer"]
    if assignment.kind == "evaluation":
        corpora = directory / "corpora.json"
        corpora.write_text(json.dumps([_input(corpus).model_dump() for corpus in assignment.corpora]))
        limit = [f"--limit={options.limit}"] if options.limit is not None else []
        return [*trainer, "evaluate", checkpoint, str(corpora), *limit, f"--num-fewshot={options.num_fewshot}"]
    known = directory / "facts.json"
    with db.transaction() as session:
        known.write_text(json.dumps(facts.export_facts(session, assignment.checkpoint_path, options.license)))
    wishes = [f"--format={options.format}", f"--max-shard-bytes={options.max_shard_bytes}"]
    if options.format == "gguf":
        wishes.append(f"--quantization={options.quantization}")
    if assignment.base is not None:
        wishes.append(f"--base={assignment.base}")
    return [*trainer, "export", checkpoint, str(directory / "artefact"), *wishes, f"--facts={known}"]


def _input(corpus: Corpus) -> CorpusInput:
    path = str(storage.corpus(corpus.id))
    return CorpusInput(id=corpus.id, path=path, sha256=str(corpus.text_sha256), kind=corpus.kind)
