"""Downloads the files of a corpus in sandboxed children, before they are parsed."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from app.core import db, storage
from app.core.addresses import DeliveryAddress
from app.core.errors import PanelError
from app.core.hub_shapes import HubDataset
from app.core.models import Corpus, CorpusFile
from app.corpora import downloads, hub_datasets
from trainer.formats.jsonlines import Message
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background.lease import Lease
from worker.background.work import Report
from worker.sandbox import runner

MEMORY_BYTES = 512 << 20
MAX_HOSTS = 5  # that redirects lead to, one after the other


def missing(files: Sequence[CorpusFile]) -> list[CorpusFile]:
    """Those of the files of a corpus that have still to be downloaded, in their order."""
    return [file for file in files if file.url is not None and not file.sha256]


def fetch_files(corpus: Corpus, files: Sequence[CorpusFile], lease: Lease) -> Report | None:
    """Download the files of a corpus that are missing, or go on with that. Each is recorded as it has arrived.

    Returns the closing report of a failure; {} if the task has ended meanwhile.
    """
    total = corpus.dataset.num_bytes if corpus.dataset is not None else 0
    arrived = sum(file.num_bytes for file in files)
    for file in missing(files):
        with db.transaction() as session:
            most = downloads.max_bytes(session, corpus.id, corpus.owner_id)
        target = storage.corpus_file(corpus.id, file.position)
        closing = fetch(str(file.url), target, most, partial(_renewed, lease, arrived, total))
        if "fetched" not in closing:
            return _failed_file(closing, corpus, file, lease)
        with db.transaction() as session:
            downloads.record(session, corpus_id=corpus.id, position=file.position, **closing["fetched"])
        arrived += closing["fetched"]["num_bytes"]
    return None


def _renewed(lease: Lease, arrived: int, total: int, progress: Message | None) -> bool:
    """Renew a lease, and record the progress of a file as that of all."""
    if progress is not None and total:
        done = arrived + progress["done"]
        progress = {"done": done, "total": max(done, total)}
    return lease.renew(progress, phase="fetch")


def _failed_file(closing: Report, corpus: Corpus, file: CorpusFile, lease: Lease) -> Report:
    """The closing report of a file that has not arrived, with its name if it is one of a data set."""
    report = ended(closing, lease)
    return report if corpus.dataset is None else explained(report, corpus.dataset, file=file.filename)


def explained(report: Report, dataset: HubDataset, **more: str) -> Report:
    """A closing report whose problems say what an answer of the hub means for a data set."""
    if "failed" not in report:
        return report
    problems = [{**hub_datasets.explained(problem, dataset), **more} for problem in report["failed"]["problems"]]
    return {"failed": {"problems": problems}}


def ended(closing: Report, lease: Lease) -> Report:
    """The closing report of a task whose download failed; {} if the task has ended meanwhile."""
    if "failed" in closing:
        return closing
    if lease.is_disk_full:
        return failure("disk_filled_up")
    return {} if lease.is_over else failure("download_died", status=closing["died"])


def fetch(url: str, file: Path, most: int, heartbeat: Callable[[Message | None], bool]) -> Report:
    """Download a file of at most `most` bytes, or go on with that.

    Returns the report of the child: `fetched` and `link`, `failed`, or `died` with its exit status. A redirect leads to
    another host only if that is allowed as well.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    refusal = "download_address"
    for _host in range(MAX_HOSTS):
        try:
            target = downloads.resolve(url)
        except PanelError:  # another list since, or a redirect to what is not on it
            return failure(refusal, host=_host_of(url))
        except OSError as error:
            return failure("download_away", why=error.strerror or type(error).__name__)
        closing, status = runner.run_sandboxed(
            command(file, target, most),
            child_environment("download"),
            heartbeat,
            limits=ChildLimits(memory_bytes=MEMORY_BYTES, file_bytes=most + (1 << 20)),
            directory=file.parent,
        )
        if "redirected" not in closing:
            return closing or {"died": status}
        url, refusal = str(closing["redirected"]), "download_redirected"
    return failure("download_redirects")


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "?")[:100]
    except ValueError:
        return "?"


def command(file: Path, target: DeliveryAddress, most: int) -> list[str]:
    """The command line of the child."""
    address = json.dumps(asdict(target))
    return [sys.executable, "-m", "worker.sandbox.corpus_download", str(file), address, f"--max-bytes={most}"]


def failure(code: str, **values: str | int) -> Report:
    """The closing report of a task with one problem."""
    return {"failed": {"problems": [{"code": code, **values}]}}
