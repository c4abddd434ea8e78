"""Corpora that are downloaded from an address, by a background task, from hosts that the operator lists.

Without a list nothing is downloaded. The task fetches the file in a limited child (worker/background/download.py), and
parses it like an upload.
"""

import re
from urllib.parse import unquote, urlsplit

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.core import addresses, db, disk, queue, quotas, storage
from app.core.account_models import User
from app.core.addresses import AddressRules, DeliveryAddress
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, gettext_noop
from app.core.json_shapes import ParseReport
from app.core.model_base import new_id
from app.core.models import Corpus, CorpusFile
from app.core.principal import Principal
from app.core.settings import settings
from app.corpora import service, uploads
from trainer.formats import corpus_formats

# Addresses in the browser of a page that shows a file, and those of the file.
FILE_OF_PAGE = {
    re.compile(r"(https://huggingface\.co/datasets/[^/]+/[^/]+)/blob/([^?#]+)(?:[?#].*)?"): r"\1/resolve/\2",
    re.compile(r"(https://github\.com/[^/]+/[^/]+)/blob/([^?#]+)(?:[?#].*)?"): r"\1/raw/\2",
}

# The page of a whole data set or repository, or of one of its folders, in a browser.
PAGE_OF_FILES = re.compile(
    r"https://(?:huggingface\.co/datasets|github\.com)/[^/?#]+/[^/?#]+(?:/(?:tree|viewer|discussions)(?:/.*)?)?/?(?:[?#].*)?"
)

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


def start(
    principal: Principal, url: str, *, filename: str = "", name: str = "", encoding: str = "", kind: str = ""
) -> Corpus:
    """Record a corpus whose file is downloaded and then parsed. Raises PanelError."""
    if not hosts():
        message = _("Corpora are not downloaded here. The operator can list hosts in ATHANOR_DOWNLOAD_HOSTS.")
        raise PanelError(403, "downloads_off", message)
    url = file_address(url.strip())
    if PAGE_OF_FILES.fullmatch(url):
        message = _("This is a page with many files. Open the page of one of them, and enter its address.")
        raise bad_field("url", "url_of_page", message)
    addresses.check(url, RULES)
    filename = filename.strip() or unquote(urlsplit(url).path.rpartition("/")[2])
    if not filename:
        message = _("The address does not end with the name of a file. Enter the name, with its ending.")
        raise bad_field("filename", "filename_missing", message)
    label = uploads.label(filename, name, encoding, kind)
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
        corpus = Corpus(id=new_id(), owner_id=principal.user_id, name=label.name, progress=progress, **shared)
        service.add_corpus(session, corpus, [CorpusFile(position=0, url=url, **shared)])
    queue.flush_outbox()
    return corpus


def file_address(url: str) -> str:
    """The address of a file itself, of that of the page which shows it on Hugging Face or GitHub."""
    for page, file in FILE_OF_PAGE.items():
        if match := page.fullmatch(url):
            return match.expand(file)
    return url


def resolve(url: str) -> DeliveryAddress:
    """Where a file is downloaded from. Raises PanelError if that is not allowed, OSError if it does not resolve."""
    return addresses.resolve(url, RULES)


def max_bytes(session: Session, corpus_id: str, owner_id: str | None) -> int:
    """The size that a downloaded file may have: the limit of uploads, the free disk, or the rest of a quota.

    What has arrived of it takes some of these already, so that the limit stays the same while the rest arrives.
    """
    arrived = storage.num_bytes(storage.corpus_download(corpus_id))
    limits = [settings().max_upload_bytes, (disk.room() + arrived) // 2]  # it, and its parsed text
    quota = None if owner_id is None else session.get_one(User, owner_id).quota_bytes
    if owner_id is not None and quota is not None:
        limits.append(quota - quotas.used_bytes(session, owner_id) + arrived)
    return max(0, min(limits))


def record(session: Session, *, corpus_id: str, num_bytes: int, sha256: str) -> None:
    """Record that the file of a corpus has been downloaded."""
    values = {"num_bytes": num_bytes, "sha256": sha256}
    session.execute(update(CorpusFile).where(CorpusFile.corpus_id == corpus_id).values(**values))
    session.execute(update(Corpus).where(Corpus.id == corpus_id).values(**values))
