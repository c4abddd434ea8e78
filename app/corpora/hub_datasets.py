"""A whole data set of a hub as one corpus: the addresses of its API, and which of its files are downloaded.

The hub is that of HF_ENDPOINT, whose host the operator lists in ATHANOR_DOWNLOAD_HOSTS like any other. Its files are
listed by the task that downloads them (worker/background/hub_listing.py). HF_TOKEN is not sent: one user could read
with it what only others may.
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel, Field

from app.core.addresses import MAX_URL_LENGTH
from app.core.errors import PanelError
from app.core.hub_shapes import HubDataset, SkippedFile
from app.core.i18n import gettext_noop, translate
from app.core.models import Corpus
from app.core.names import printable_text
from app.core.settings import settings
from app.corpora import uploads
from trainer.formats import corpus_formats

# The page of a data set, or of one of its folders, in a browser.
_PAGE = re.compile(r"/datasets/(\w[\w.-]*/\w[\w.-]*)(?:/tree/([^/?#]+)(?:/([^?#]+?))?)?/?(?:[?#].*)?", re.ASCII)

MAX_NAME_LENGTH = 400  # of a file that is skipped
REASONS = {
    "hidden": gettext_noop("a hidden file"),
    "about": gettext_noop("about the data set"),
    "unreadable": gettext_noop("no text, and no format that is read here"),
    "beside_records": gettext_noop("text or source code beside files of records"),
    "empty": gettext_noop("an empty file"),
    "name": gettext_noop("a name that is too long, has invisible characters, or is that of another file"),
}
# Files that describe a data set, by the names that libraries and hubs give them.
_ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
_ABOUT_BEGINNINGS = ("readme", "licen", "citation.", "changelog.", "contributing.", "notice.")
_BESIDE_RECORDS = ("code", "md")


class Listed(BaseModel):
    """A file or folder of a data set, as the hub lists it."""

    type: str
    path: str
    size: int = Field(0, ge=0)  # of a folder: 0, or nothing


class Commit(BaseModel):
    """What the hub says of a revision."""

    sha: str = Field(pattern=r"^[0-9a-f]{40}$")


class DatasetRefused(Exception):
    """A data set cannot be downloaded: a code of app/corpora/problems.py with its values."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.problem = {"code": code, **values}


def skipped_files(corpus: Corpus) -> list[tuple[str, str]]:
    """The first files of the data set of a corpus that are not downloaded, each with the reason in words."""
    files = corpus.dataset.skipped if corpus.dataset is not None else []
    return [(file.name, translate(REASONS[file.reason])) for file in files]


def explained(problem: dict[str, Any], dataset: HubDataset) -> dict[str, Any]:
    """A problem of a download that says what the status of the hub's answer means for a data set."""
    code = {401: "dataset_closed", 403: "dataset_closed", 404: "dataset_unknown"}.get(problem.get("status", 0))
    return problem if code is None else {"code": code, "name": dataset.name, "status": problem["status"]}


# ---- addresses ------------------------------------------------------------------------------------------------------


def of_page(url: str) -> HubDataset | None:
    """The data set, or the folder of one, whose page has an address; None for any other address."""
    endpoint = settings().hf_endpoint.rstrip("/")
    match = _PAGE.fullmatch(url.removeprefix(endpoint)) if url.startswith(f"{endpoint}/") else None
    if match is None:
        return None
    revision, folder = unquote(match[2] or "main"), unquote(match[3] or "")
    if not is_inside(revision) or (folder and not is_inside(folder)) or not f"{revision}{folder}".isprintable():
        return None
    return HubDataset(endpoint=endpoint, name=match[1], revision=revision, folder=folder)


def is_inside(path: str) -> bool:
    """Whether a relative path stays inside of its folder on every system."""
    return "\\" not in path and not set(path.split("/")) & {"", ".", ".."}


def commit_url(dataset: HubDataset) -> str:
    """Where the hub says which commit a revision is."""
    revision = quote(dataset.revision, safe="")
    return f"{dataset.endpoint}/api/datasets/{dataset.name}/revision/{revision}?expand=sha"


def tree_url(dataset: HubDataset) -> str:
    """Where the hub begins to list the files of the commit."""
    folder = f"/{quote(dataset.folder)}" if dataset.folder else ""
    return f"{dataset.endpoint}/api/datasets/{dataset.name}/tree/{dataset.commit}{folder}?recursive=true"


def file_url(dataset: HubDataset, path: str) -> str:
    """Where a file is, as it is in the commit."""
    return f"{dataset.endpoint}/datasets/{dataset.name}/resolve/{dataset.commit}/{quote(path)}"


# ---- which files are downloaded -------------------------------------------------------------------------------------


def choose(dataset: HubDataset, entries: Sequence[Listed]) -> tuple[dict[str, Listed], list[SkippedFile]]:
    """The files to download, by their names, and those to skip. Raises DatasetRefused."""
    files = {entry.path: entry for entry in entries if entry.type == "file"}
    outside = next((path for path in files if not is_inside(path)), None)
    if outside is not None:
        raise DatasetRefused("dataset_path", name=printable_text(outside)[:200])
    reasons = {path: _reason(dataset, files[path]) for path in sorted(files)}
    readable = {path: _inner_format(path) for path, reason in reasons.items() if not reason}
    if not set(readable.values()).isdisjoint(corpus_formats.RECORD_FORMATS):
        beside = [path for path, form in readable.items() if form in _BESIDE_RECORDS]
        reasons |= dict.fromkeys(beside, "beside_records")
    chosen: dict[str, Listed] = {}
    for path, reason in reasons.items():
        if not reason and chosen.setdefault(uploads.checked_filename(path), files[path]) is not files[path]:
            reasons[path] = "name"
    skipped = [(printable_text(path)[:MAX_NAME_LENGTH], reason) for path, reason in reasons.items() if reason]
    return chosen, [SkippedFile(name=name, reason=reason) for name, reason in skipped]


def _reason(dataset: HubDataset, file: Listed) -> str:
    """Why a file is skipped, as a key of REASONS; empty if it is not."""
    name, form = file.path.rpartition("/")[2].lower(), _inner_format(file.path)
    if any(part.startswith(".") for part in file.path.split("/")):
        return "hidden"
    if name in _ABOUT or (name.startswith(_ABOUT_BEGINNINGS) and form not in corpus_formats.RECORD_FORMATS):
        return "about"
    if not form:
        return "unreadable"
    if not file.size:
        return "empty"
    try:
        uploads.checked_filename(file.path)
    except PanelError:
        return "name"
    return "" if len(file_url(dataset, file.path)) <= MAX_URL_LENGTH else "name"


def _inner_format(path: str) -> str:
    """The format of a file without its compression; empty if none reads it."""
    form = corpus_formats.format_of(path)
    return corpus_formats.parts_of(form)[0] if form else ""
