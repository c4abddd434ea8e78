"""Corpora that are downloaded from an address, by a background task, from hosts that the operator lists.

Without a list nothing is downloaded. The address is that of a file, or of the page of a data set (hub_datasets.py). The
task fetches the files in limited children (worker/background/download.py), and parses them like uploads.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.core import addresses, db, disk, queue, quotas, storage
from app.core.account_models import User
from app.core.addresses import AddressRules, DeliveryAddress
from app.core.errors import PanelError, bad_field
from app.core.hub_shapes import HubDataset
from app.core.i18n import _, gettext_noop
from app.core.json_shapes import ParseReport
from app.core.model_base import new_id
from app.core.models import Corpus, CorpusFile
from app.core.names import checked_name
from app.core.principal import Principal
from app.core.settings import settings
from app.corpora import hub_datasets, service, uploads, versions
from app.corpora.hub_datasets import DatasetRefused, Listed
from app.corpora.record_kinds import checked_kind
from app.corpora.uploads import Label
from trainer.formats import corpus_formats

# Addresses in the browser of a page that shows a file, and those of the file.
FILE_OF_PAGE = {
    re.compile(r"(https://huggingface\.co/datasets/[^/]+/[^/]+)/blob/([^?#]+)(?:[?#].*)?"): r"\1/resolve/\2",
    re.compile(r"(https://github\.com/[^/]+/[^/]+)/blob/([^?#]+)(?:[?#].*)?"): r"\1/raw/\2",
}

# The page of a whole repository, or of one of its folders, in a browser; also of what is no file of a data set.
PAGE_OF_FILES = re.compile(
    r"https://(?:huggingface\.co/datasets|github\.com)/[^/?#]+/[^/?#]+(?:/(?:tree|viewer|discussions)(?:/.*)?)?/?(?:[?#].*)?"
)

MAX_SKIPPED = 100  # files of a data set that are skipped and listed

RULES = AddressRules(
    "url",
    lambda: ",".join(sorted(_with_scheme())),
    gettext_noop("The address of a corpus is an https URL with a host name and without a password."),
    gettext_noop(
        "Corpora are not downloaded from {host} in this way. The operator can list the host in ATHANOR_DOWNLOAD_HOSTS."
    ),
    lambda: settings().download_hosts,
)


def _with_scheme() -> set[str]:
    """The hosts that are listed with a scheme: they may be reached by http and at private addresses."""
    names = addresses.names_of(settings().download_hosts)
    return {urlsplit(name).hostname or "" for name in names if "://" in name} - {""}


def hosts() -> list[str]:
    """The hosts that corpora can be downloaded from, as the operator lists them; empty if nothing is downloaded."""
    return sorted(addresses.names_of(settings().download_hosts))


def hub() -> str:
    """The address of the hub whose data sets can be downloaded; empty if its host is not listed, or it is offline."""
    endpoint = urlsplit(settings().hf_endpoint)
    names = {"*", str(endpoint.hostname), f"{endpoint.scheme}://{endpoint.hostname}"}
    return settings().hf_endpoint if names & set(hosts()) and not settings().hf_hub_offline else ""


def start(
    principal: Principal, url: str, *, filename: str = "", name: str = "", encoding: str = "", kind: str = ""
) -> Corpus:
    """Record a corpus whose files are downloaded and then parsed. Raises PanelError."""
    if not hosts():
        message = _("Corpora are not downloaded here. The operator can list hosts in ATHANOR_DOWNLOAD_HOSTS.")
        raise PanelError(403, "downloads_off", message)
    url = file_address(url.strip())
    dataset = hub_datasets.of_page(url)
    if dataset is None and PAGE_OF_FILES.fullmatch(url):
        message = _(
            "This is a page with many files. Enter the address of the page of one of them, or on Hugging Face that of "
            "all files of a data set or a folder (…/tree/main)."
        )
        raise bad_field("url", "url_of_page", message)
    addresses.check(url, RULES)
    if dataset is None:
        label = _label_of_file(url, filename.strip(), name, encoding, kind)
    else:
        label = _label_of_dataset(dataset, filename.strip(), name, encoding, kind)
    disk.require_room(0)
    with db.transaction() as session:
        shared = {
            "filename": label.filename,
            "format": corpus_formats.format_of(label.filename) or "txt",
            "num_bytes": 0,
            "sha256": "",
            "encoding": label.encoding,
        }
        progress = ParseReport(kind=label.kind) if label.kind else ParseReport()
        about = {"owner_id": principal.user_id, "name": label.name, "progress": progress, "dataset": dataset}
        corpus = Corpus(id=new_id(), **about, **shared)
        service.add_corpus(session, corpus, [CorpusFile(position=0, url=url, **shared)])
    queue.flush_outbox()
    return corpus


def _label_of_file(url: str, filename: str, name: str, encoding: str, kind: str) -> Label:
    """The name and options of a corpus of one file. Raises PanelError."""
    filename = filename or unquote(urlsplit(url).path.rpartition("/")[2])
    if not filename:
        message = _("The address does not end with the name of a file. Enter the name, with its ending.")
        raise bad_field("filename", "filename_missing", message)
    return uploads.label(filename, name, encoding, kind)


def _label_of_dataset(dataset: HubDataset, filename: str, name: str, encoding: str, kind: str) -> Label:
    """The name and options of a corpus of a data set, which stands for its files until they are listed.

    Raises PanelError.
    """
    if settings().hf_hub_offline:
        message = _("Data sets of the hub are turned off (HF_HUB_OFFLINE is set). Upload the files instead.")
        raise bad_field("url", "hub_offline", message, 409)
    if filename:
        message = _("The files of a data set keep their names. Leave the name of the file empty.")
        raise bad_field("filename", "filename_of_dataset", message)
    name = name.strip() or dataset.name.partition("/")[2]
    name = checked_name(name, max_length=service.MAX_NAME_LENGTH)
    return Label(dataset.name, name, uploads.checked_encoding(encoding), checked_kind(kind))


def file_address(url: str) -> str:
    """The address of a file itself, of that of the page which shows it on Hugging Face or GitHub."""
    for page, file in FILE_OF_PAGE.items():
        if match := page.fullmatch(url):
            return match.expand(file)
    return url


def resolve(url: str) -> DeliveryAddress:
    """Where a file is downloaded from. Raises PanelError if that is not allowed, OSError if it does not resolve."""
    return addresses.resolve(url, RULES)


def room(session: Session, corpus_id: str, owner_id: str | None) -> int:
    """How much may be downloaded for a corpus: half of the free disk, for its parsed text, or the rest of a quota.

    What has arrived of a file takes some of these already, so that it stays the same while the rest arrives.
    """
    arrived = storage.num_bytes(storage.corpus_download(corpus_id))
    limits = [(disk.room() + arrived) // 2]
    quota = None if owner_id is None else session.get_one(User, owner_id).quota_bytes
    if owner_id is not None and quota is not None:
        limits.append(quota - quotas.used_bytes(session, owner_id) + arrived)
    return max(0, min(limits))


def max_bytes(session: Session, corpus_id: str, owner_id: str | None) -> int:
    """The size that a downloaded file may have: the limit of uploads, or the room that there is."""
    return min(settings().max_upload_bytes, room(session, corpus_id, owner_id))


def record_listing(session: Session, *, corpus_id: str, dataset: HubDataset, entries: Sequence[Listed]) -> None:
    """Record the files of a data set, which are then downloaded, in place of its page.

    Raises DatasetRefused if there is no file to read, or more than there may be or than there is room for.
    """
    corpus = session.get(Corpus, corpus_id, with_for_update=True)
    if corpus is None or corpus.dataset is None or corpus.dataset.commit:  # deleted, or listed by another worker
        return
    chosen, skipped = hub_datasets.choose(dataset, entries)
    total = sum(file.size for file in chosen.values())
    _check_sizes(session, corpus, list(chosen.values()), total)
    rows = [
        CorpusFile(
            corpus_id=corpus_id,
            position=position,
            filename=filename,
            format=corpus_formats.format_of(filename) or "txt",
            num_bytes=0,
            sha256="",
            encoding=corpus.encoding,
            url=hub_datasets.file_url(dataset, file.path),
        )
        for position, (filename, file) in enumerate(chosen.items())
    ]
    session.execute(delete(CorpusFile).where(CorpusFile.corpus_id == corpus_id))
    session.add_all(rows)
    corpus.filename, corpus.format, corpus.num_uploads = rows[0].filename, rows[0].format, len(rows)
    listed = {"num_bytes": total, "skipped": skipped[:MAX_SKIPPED], "num_skipped": len(skipped)}
    corpus.dataset = dataset.model_copy(update=listed)


def _check_sizes(session: Session, corpus: Corpus, files: Sequence[Listed], total: int) -> None:
    """Raise DatasetRefused for no or too many files, one that is too large, or too large ones together."""
    if not files:
        raise DatasetRefused("dataset_unreadable")
    if len(files) > versions.MAX_FILES:
        raise DatasetRefused("dataset_files_many", count=len(files), limit=versions.MAX_FILES)
    largest = max(files, key=lambda file: file.size)
    if largest.size > settings().max_upload_bytes:
        limit = settings().max_upload_bytes
        raise DatasetRefused("dataset_file_too_large", name=largest.path, size_bytes=largest.size, limit_bytes=limit)
    left = room(session, corpus.id, corpus.owner_id)
    if total > left:
        raise DatasetRefused("dataset_too_large", size_bytes=total, limit_bytes=left)


def record(session: Session, *, corpus_id: str, position: int, num_bytes: int, sha256: str) -> None:
    """Record that a file of a corpus has been downloaded, and after the last of them the hash of all."""
    of_corpus = CorpusFile.corpus_id == corpus_id
    arrived = update(CorpusFile).where(of_corpus, CorpusFile.position == position)
    session.execute(arrived.values(num_bytes=num_bytes, sha256=sha256))
    total = select(func.sum(CorpusFile.num_bytes)).where(of_corpus).scalar_subquery()
    session.execute(update(Corpus).where(Corpus.id == corpus_id).values(num_bytes=total))
    if session.scalar(select(CorpusFile.position).where(of_corpus, CorpusFile.sha256 == "").limit(1)) is None:
        content = versions.content_sha256(service.list_files(session, corpus_id))
        session.execute(update(Corpus).where(Corpus.id == corpus_id).values(sha256=content))
