"""The child process that downloads a corpus.

`python -m worker.sandbox.corpus_download FILE ADDRESS --max-bytes=N`

ADDRESS is a DeliveryAddress as JSON: its parent has checked where the host is, and the connection goes there. A
redirect to another host ends the process, as its parent has to check that host, too. It writes FILE; until that is
complete, download.part beside it, which a later start continues where the server has ranges and the file has not
changed. It reports by JSON lines on standard output: {"done", "total"} in bytes, at last {"fetched": {"num_bytes",
"sha256"}, "link": the header Link}, {"redirected": ADDRESS} or {"failed": {"problems"}}.
"""

import argparse
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from app.core.addresses import PORTS, DeliveryAddress, connect
from app.core.storage import DOWNLOAD_PART, num_bytes
from app.core.version import VERSION
from trainer.run_dir import sha256_file
from worker.sandbox.disk_space import storage_problem
from worker.sandbox.reporting import REPORT_SECONDS, report

PART, NOTE = DOWNLOAD_PART, "download.json"  # what has arrived, and the version and size of the file that it is of
READ_SECONDS = 60.0  # without a byte
MAX_SECONDS = 24 * 3600  # of a whole download
MAX_REDIRECTS = 5
MAX_LINK_LENGTH = 4000
PAUSES = (1, 2, 4, 8, 16)  # seconds before a broken download goes on, as long as nothing arrives
CHUNK_BYTES = 1 << 18
LATER = (408, 425, 429)  # besides all that begin with 5
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class DownloadRefused(Exception):
    """The file cannot be downloaded: a code of app/corpora/problems.py with its values."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.problem = {"code": code, **values}


class Redirected(Exception):
    """The file is at another host, under `url`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class Broken(Exception):
    """The connection or the server failed: a later try may go on."""


@contextmanager
def _network() -> Iterator[None]:
    """Raise errors of the connection as Broken."""
    try:
        yield
    except (OSError, HTTPError, HTTPException) as error:
        raise Broken(str(error) or type(error).__name__) from None


class Download:
    """One file, from an address. `link` is what the server's header Link says of it."""

    def __init__(self, file: Path, target: DeliveryAddress, max_bytes: int) -> None:
        self._file, self._part, self._note = file, file.with_name(PART), file.with_name(NOTE)
        self._target, self._max_bytes = target, max_bytes
        self.link = ""
        self._deadline = time.monotonic() + MAX_SECONDS
        self._reported_at = 0.0

    def run(self) -> dict[str, Any]:
        """Download the file, and return its size and hash. Raises DownloadRefused or Redirected."""
        tries = 0
        while True:
            before = self._size()
            try:
                self._fetch()
                break
            except Broken as broken:
                tries = 0 if self._size() > before else tries + 1
                if tries > len(PAUSES):
                    raise DownloadRefused("download_away", why=str(broken)[:200]) from None
            time.sleep(PAUSES[max(0, tries - 1)])
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        facts = {"num_bytes": self._size(), "sha256": sha256_file(self._part)}
        if not facts["num_bytes"]:
            raise DownloadRefused("download_empty")
        self._part.rename(self._file)
        self._note.unlink(missing_ok=True)
        return facts

    def _size(self) -> int:
        return num_bytes(self._part)

    def _fetch(self) -> None:
        """Request the file, or the rest of it, and write what arrives.

        Raises Broken, DownloadRefused, Redirected, or OSError if it cannot be written.
        """
        path = self._target.path
        for _redirect in range(MAX_REDIRECTS + 1):
            connection = connect(self._target, READ_SECONDS)
            try:
                headers = self._headers()
                with _network():
                    connection.request("GET", path, headers=headers, preload_content=False)
                    response = connection.getresponse()
                location = response.headers.get("Location") if response.status in (301, 302, 303, 307, 308) else None
                if location is None:
                    self._read(response)
                    return
                path = self._path_of(path, location)
            finally:
                connection.close()
        raise DownloadRefused("download_redirects")

    def _headers(self) -> dict[str, str]:
        headers = {"Host": self._target.host_header, "User-Agent": f"Athanor/{VERSION}", "Accept-Encoding": "identity"}
        validator, _total = self._version()
        if self._size() and validator:
            headers |= {"Range": f"bytes={self._size()}-", "If-Range": validator}
        return headers

    def _version(self) -> tuple[str, int | None]:
        """The ETag or the date of the file that has begun to arrive, "" if it has none, and its size if known."""
        try:
            note = json.loads(self._note.read_text())
            return str(note["validator"]), note.get("total")
        except (OSError, ValueError, KeyError):
            return "", None

    def _path_of(self, path: str, location: str) -> str:
        """The path that a redirect leads to. Raises Redirected for another host, port or scheme."""
        try:
            url = urljoin(f"{self._target.scheme}://{self._target.host_header}{path}", location)
            parts = urlsplit(url)
            port = parts.port or PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise DownloadRefused("download_redirected", host="?") from None
        here = (self._target.scheme, self._target.host.lower(), self._target.port)
        if (parts.scheme, (parts.hostname or "").lower(), port) != here:
            raise Redirected(url)
        return f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"

    def _read(self, response: HTTPResponse) -> None:
        if response.status in LATER or response.status >= 500:
            raise Broken(f"HTTP {response.status}")
        if response.status == 416:  # what is there is not a beginning of the file
            self._part.unlink(missing_ok=True)
            raise Broken("HTTP 416")
        if response.status not in (200, 206):
            raise DownloadRefused("download_status", status=response.status)
        self.link = response.headers.get("Link", "")[:MAX_LINK_LENGTH]
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadRefused("download_encoded", coding=response.headers["Content-Encoding"][:40])
        begin, total = self._place(response)
        if total is not None and total > self._max_bytes:
            raise DownloadRefused("download_too_large", limit_bytes=self._max_bytes)
        if response.status == 200:
            self._remember(response, total)
        self._write(response, begin, total)

    def _place(self, response: HTTPResponse) -> tuple[int, int | None]:
        """Where the bytes of an answer begin in the file, and the size of that, if it is known. Raises Broken."""
        if response.status == 200:
            length = response.headers.get("Content-Length", "")
            return 0, int(length) if length.isdecimal() else None
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != self._size():
            self._part.unlink(missing_ok=True)
            raise Broken("an answer of another range")
        total = int(match[2]) if match[2] != "*" else None
        if not self._is_same_version(response, total):
            self._part.unlink(missing_ok=True)
            raise Broken("the file has changed")
        return int(match[1]), total

    def _is_same_version(self, response: HTTPResponse, total: int | None) -> bool:
        """Whether an answer is the rest of the version of the file that has begun to arrive. It may omit its date."""
        validator, old_total = self._version()
        if None not in (total, old_total) and total != old_total:
            return False
        if validator.startswith('"'):
            return response.headers.get("ETag") == validator
        return response.headers.get("Last-Modified", validator) == validator

    def _remember(self, response: HTTPResponse, total: int | None) -> None:
        """Note the version of the file that begins to arrive, after deleting what is there of another one."""
        self._part.unlink(missing_ok=True)
        etag = response.headers.get("ETag", "")
        strong = etag if etag.startswith('"') else ""
        note = {"validator": strong or response.headers.get("Last-Modified", ""), "total": total}
        self._note.write_text(json.dumps(note))

    def _write(self, response: HTTPResponse, begin: int, total: int | None) -> None:
        done = begin
        with self._part.open("r+b" if begin else "wb") as file:
            file.seek(begin)
            file.truncate()
            while chunk := self._receive(response):
                done += len(chunk)
                if done > self._max_bytes:
                    raise DownloadRefused("download_too_large", limit_bytes=self._max_bytes)
                file.write(chunk)
                self._report(done, total)
                if time.monotonic() > self._deadline:
                    raise DownloadRefused("download_slow")
        if total is not None and done < total:
            raise Broken("the connection ended early")

    def _receive(self, response: HTTPResponse) -> bytes:
        """What has arrived, at once, so that little is lost with a connection; empty at the end. Raises Broken."""
        with _network():
            return response.read1(CHUNK_BYTES)

    def _report(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = now
            report({"done": done, "total": max(done, total or 0)})


def main() -> None:
    """Download the file that the arguments name, and report the result."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("file", type=Path)
    arguments.add_argument("address", type=json.loads)
    arguments.add_argument("--max-bytes", type=int, required=True)
    options = arguments.parse_args()
    try:
        download = Download(options.file, DeliveryAddress(**options.address), options.max_bytes)
        fetched = download.run()
        report({"fetched": fetched, "link": download.link})
    except Redirected as redirected:
        report({"redirected": redirected.url})
    except DownloadRefused as refused:
        report({"failed": {"problems": [refused.problem]}})
    except OSError as error:
        report({"failed": {"problems": [storage_problem(error)]}})


if __name__ == "__main__":
    main()
