"""Downloads the file of a corpus in a sandboxed child, before it is parsed."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from app.core import db
from app.core.addresses import DeliveryAddress
from app.core.errors import PanelError
from app.core.models import Corpus, CorpusFile
from app.corpora import downloads
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background.lease import Lease
from worker.background.work import Report
from worker.sandbox import runner

MEMORY_BYTES = 512 << 20
MAX_HOSTS = 5  # that redirects lead to, one after the other


def is_needed(files: list[CorpusFile]) -> bool:
    """Whether the file of a corpus has still to be downloaded."""
    return len(files) == 1 and files[0].url is not None and not files[0].sha256


def fetch(corpus: Corpus, file: CorpusFile, directory: Path, lease: Lease) -> Report | None:
    """Download a file into the directory of its corpus, or go on with that. Returns the closing report of a failure;
    {} if the task has ended meanwhile.

    A redirect leads to another host only if that is allowed as well.
    """
    with db.transaction() as session:
        most = downloads.max_bytes(session, corpus.id, corpus.owner_id)
    directory.mkdir(parents=True, exist_ok=True)
    url, refusal = str(file.url), "download_address"
    for _host in range(MAX_HOSTS):
        try:
            target = downloads.resolve(url)
        except PanelError:  # another list since, or a redirect to what is not on it
            return _failed(code=refusal, host=_host_of(url))
        except OSError as error:
            return _failed(code="download_away", why=error.strerror or type(error).__name__)
        closing, status = runner.run_sandboxed(
            command(directory, target, most),
            child_environment("download"),
            partial(lease.renew, phase="fetch"),
            limits=ChildLimits(memory_bytes=MEMORY_BYTES, file_bytes=most + (1 << 20)),
            directory=directory,
        )
        if "redirected" not in closing:
            return _end(corpus, lease, closing, status)
        url, refusal = str(closing["redirected"]), "download_redirected"
    return _failed(code="download_redirects")


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "?")[:100]
    except ValueError:
        return "?"


def _end(corpus: Corpus, lease: Lease, closing: Report, status: int) -> Report | None:
    """Record a file that has arrived, or say why it has not."""
    if "fetched" in closing:
        with db.transaction() as session:
            downloads.record(session, corpus_id=corpus.id, **closing["fetched"])
        return None
    if not closing and lease.is_disk_full:
        return _failed(code="disk_filled_up")
    if not closing and lease.is_over:
        return {}
    return closing or _failed(code="download_died", status=status)


def command(directory: Path, target: DeliveryAddress, most: int) -> list[str]:
    """The command line of the child."""
    address = json.dumps(asdict(target))
    return [sys.executable, "-m", "worker.sandbox.corpus_download", str(directory), address, f"--max-bytes={most}"]


def _failed(**problem: str | int) -> Report:
    return {"failed": {"problems": [problem]}}
