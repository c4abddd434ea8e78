"""Lists the files of a data set of a hub, through the guarded child that downloads them, too (download.py)."""

from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2
from pydantic import TypeAdapter

from app.core import db, storage
from app.core.hub_shapes import HubDataset
from app.core.models import Corpus
from app.corpora import downloads, hub_datasets
from app.corpora.hub_datasets import Commit, DatasetRefused, Listed
from worker.background import download
from worker.background.lease import Lease
from worker.background.work import Report
from worker.sandbox.corpus_download import NOTE, PART

MAX_PAGES = 100  # of 1,000 files and folders, as the hub has them
MAX_PAGE_BYTES = 16 << 20
PAGE = "listing.json"  # in the directory of the corpus, while it is read
_ENTRIES = TypeAdapter(list[Listed])


class ListingEnded(Exception):
    """A page did not arrive. `report` is the closing report of the task; {} if that has ended meanwhile."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report


def list_files(corpus: Corpus, dataset: HubDataset, lease: Lease) -> Report | None:
    """Find the commit of a data set and its files, and record these in place of its page.

    Returns the closing report of a failure; {} if the task has ended meanwhile.
    """
    directory = storage.corpus(corpus.id)
    try:
        content, _next = _page(directory, hub_datasets.commit_url(dataset), lease)
        dataset = dataset.model_copy(update={"commit": Commit.model_validate_json(content).sha})
        entries = _entries(directory, dataset, lease)
        with db.transaction() as session:
            downloads.record_listing(session, corpus_id=corpus.id, dataset=dataset, entries=entries)
    except ListingEnded as ended:
        return download.explained(ended.report, dataset)
    except ValueError:  # no JSON, or of another shape
        return download.failure("dataset_listing", name=dataset.name)
    except DatasetRefused as refused:
        return {"failed": {"problems": [refused.problem]}}
    finally:
        (directory / PAGE).unlink(missing_ok=True)
    return None


def _entries(directory: Path, dataset: HubDataset, lease: Lease) -> list[Listed]:
    """All files and folders that the hub lists. Raises ListingEnded, ValueError and DatasetRefused."""
    entries: list[Listed] = []
    url: str | None = hub_datasets.tree_url(dataset)
    for _number in range(MAX_PAGES):
        assert url is not None
        content, url = _page(directory, url, lease)
        entries += _ENTRIES.validate_json(content)
        if url is None:
            return entries
    raise DatasetRefused("dataset_pages", limit=len(entries))


def _page(directory: Path, url: str, lease: Lease) -> tuple[bytes, str | None]:
    """The content of an address of the hub's API, and the address of the next page if there is one.

    Raises ListingEnded, ValueError for an invalid address, and DatasetRefused for a next page at another host.
    """
    for name in (PART, NOTE):  # of another page
        (directory / name).unlink(missing_ok=True)
    closing = download.fetch(url, directory / PAGE, MAX_PAGE_BYTES, partial(lease.renew, phase="fetch"))
    if "fetched" not in closing:
        raise ListingEnded(download.ended(closing, lease))
    following = httpx2.Response(200, headers={"Link": closing["link"]}).links.get("next", {}).get("url")
    return (directory / PAGE).read_bytes(), following and _at_same_host(url, following)


def _at_same_host(url: str, address: str) -> str:
    """The address of the next page. Raises ValueError, and DatasetRefused if it is at another host."""
    following = urljoin(url, address)
    if urlsplit(following)[:2] != urlsplit(url)[:2]:
        raise DatasetRefused("download_redirected", host=(urlsplit(following).netloc or "?")[:100])
    return following
