"""Pages name static files by a path of their content, and scripts import each other under the same path."""

import gzip
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
from starlette.testclient import TestClient

from app import main
from app.web import pages
from app.web.static_files import DIRECTORY, STATIC_PATH, digest
from tests import users

PAGES = ["/", "/jobs", "/jobs/new", "/corpora", "/models", "/playground", "/health", "/api/docs", "/login"]
IMPORT = re.compile(r"""^\s*import\b[^"']*["']([^"']+)["'];|\bimport\(["']([^"']+)["']\)""", re.MULTILINE)


def urls_of(page: str) -> set[str]:
    """What a page loads from the static files."""
    return {url.partition("#")[0] for url in re.findall(r'(?:href|src)="(/static/[^"]+)"', page)}


def urls_with_imports(client: TestClient, urls: set[str]) -> set[str]:
    """These files and all that the scripts among them import, however indirectly; each must exist."""
    seen: set[str] = set()
    waiting = set(urls)
    while waiting:
        url = waiting.pop()
        seen.add(url)
        answer = client.get(url)
        assert answer.status_code == 200, url
        if url.endswith(".js") and "/vendor/" not in url:
            waiting |= {urljoin(url, a or b) for a, b in IMPORT.findall(answer.text)} - seen
    return seen


@pytest.fixture
def after_an_update(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Alice at the application of another version, whose static files have another path."""
    monkeypatch.setattr(main, "STATIC_PATH", "/static/another")
    monkeypatch.setitem(pages.templates.env.globals, "static", "/static/another")
    with TestClient(main.create_app(), base_url=users.ORIGIN, cookies=alice.cookies) as client:
        yield client


def test_after_an_update_only_new_files_are_loaded(after_an_update: TestClient) -> None:
    urls = {f"/static/another/js/{path.name}" for path in DIRECTORY.glob("js/*.js")}
    for path in PAGES:
        urls |= urls_of(after_an_update.get(path).text)
    everything = urls_with_imports(after_an_update, urls)
    assert [url for url in everything if not url.startswith("/static/another/")] == []
    assert after_an_update.get(f"{STATIC_PATH}/js/page.js").status_code == 404


def test_files_are_cached_forever_and_missing_ones_never(visitor: TestClient) -> None:
    assert "immutable" in visitor.get(f"{STATIC_PATH}/js/page.js").headers["Cache-Control"]
    for path in (f"{STATIC_PATH}/js/missing.js", "/static/js/page.js", f"{STATIC_PATH}/../pyproject.toml"):
        answer = visitor.get(path)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-store"), path


def test_the_path_changes_with_content_and_name(tmp_path: Path) -> None:
    copy = tmp_path / "static"
    shutil.copytree(DIRECTORY, copy)
    assert STATIC_PATH.endswith(digest(copy))
    (copy / "js/page.js").write_text("changed")
    changed = digest(copy)
    (copy / "js/page.js").rename(copy / "js/renamed.js")
    assert len({STATIC_PATH.rpartition("/")[2], changed, digest(copy)}) == 3


def test_scripts_are_sent_compressed_to_those_who_take_it(visitor: TestClient) -> None:
    script = "vendor/uplot/uPlot.esm.js"
    original = (DIRECTORY / script).read_bytes()
    with visitor.stream("GET", f"{STATIC_PATH}/{script}", headers={"Accept-Encoding": "br, gzip"}) as answer:
        sent = b"".join(answer.iter_raw())
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert (gzip.decompress(sent), len(sent)) == (original, int(answer.headers["Content-Length"]))
    assert len(sent) < len(original) / 2


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("", None),
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip; q=0.000, *", None),
        ("*;q=0", None),
        ("gzip-of-another-kind", None),
        ("gzip;q=much", None),
        ("*", "gzip"),
        ("br, GZIP ; q=0.001", "gzip"),
        ("*;q=0, gzip", "gzip"),
    ],
)
def test_what_is_sent_compressed_follows_the_weights_that_a_client_gives(
    visitor: TestClient, accepted: str, encoding: str | None
) -> None:
    answer = visitor.get(f"{STATIC_PATH}/js/page.js", headers={"Accept-Encoding": accepted})
    assert (answer.headers.get("Content-Encoding"), answer.headers["Vary"]) == (encoding, "Accept-Encoding")
    assert answer.content == (DIRECTORY / "js/page.js").read_bytes()
