"""A complete installation as `athanor up` runs it, in processes of its own, for the journeys and browser tests."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.users import PASSWORD
from tests.waiting import until

ROOT = Path(__file__).parents[1]
READY_SECONDS = 400


@dataclass
class Stack:
    """A running installation. `link` is what it printed: the one-time link where there was no owner yet."""

    process: subprocess.Popen[bytes]
    data: Path
    output: Path
    link: str
    token: str = ""
    client: httpx.Client = field(default_factory=httpx.Client)

    @property
    def base_url(self) -> str:
        return re.match(r"https?://[^/]+", self.link)[0]  # type: ignore[index]

    def sign_up(self, name: str) -> None:
        """Make the owner through the API; `client` then holds an API token of theirs."""
        code = self.link.partition("code=")[2]
        with httpx.Client(base_url=self.base_url) as visitor:
            body = {"code": code, "name": name, "password": PASSWORD}
            visitor.post("/api/v1/setup", json=body).raise_for_status()
            answer = visitor.post("/api/v1/tokens", json={"name": "test", "scopes": ["read", "submit", "admin"]})
            self.token = answer.raise_for_status().json()["token"]
        headers = {"Authorization": f"Bearer {self.token}"}
        self.client = httpx.Client(base_url=self.base_url, headers=headers, timeout=120)

    def logs(self) -> str:
        """What it printed, and the ends of its processes' logs."""
        parts = [self.output.read_text(errors="replace")[-4000:]]
        for path in sorted(self.data.glob("logs/*.log")) + sorted(self.data.glob("runs/*/*.[lt][ox][gt]")):
            parts.append(f"--- {path.relative_to(self.data)}\n{path.read_text(errors='replace')[-4000:]}")
        return "\n".join(parts)

    def stop(self, seconds: float = 60) -> int:
        """Ctrl-C, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)


@contextmanager
def running(directory: Path, **environment: str) -> Iterator[Stack]:
    """Start `athanor up` on a data directory of its own and a free port; stop it at the end."""
    stack = start(directory, **environment)
    try:
        yield stack
    finally:
        try:
            stack.stop()
        except subprocess.TimeoutExpired:
            stack.process.kill()
            raise AssertionError(f"athanor up did not stop:\n{stack.logs()}") from None
        stack.client.close()


def start(directory: Path, **environment: str) -> Stack:
    """Start `athanor up` and wait for its link."""
    clean = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL") and "ATHANOR" not in k}
    clean.update(ATHANOR_DATA=str(directory / "data"), ATHANOR_PORT="0", PYTHONUNBUFFERED="1")
    clean.update(ATHANOR_DISK_RESERVE_BYTES=str(64 * 2**20), **environment)  # and its ballast, of each test's stack
    output = directory / "up.txt"
    with output.open("ab") as file:
        begin = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "app.launcher.cli", "up"], cwd=ROOT, env=clean, stdout=file, stderr=file
        )

    def link() -> str | None:
        text = output.read_bytes()[begin:].decode(errors="replace")
        assert process.poll() is None, f"athanor up ended with {process.returncode}:\n{text}"
        match = re.search(r"Open (https?://\S+)", text)
        return match[1] if match else None

    try:
        printed = until(link, READY_SECONDS, "the link")
    except AssertionError:
        process.send_signal(signal.SIGINT)  # a kill would leave its servers running
        process.wait(60)
        raise
    assert printed
    return Stack(process, directory / "data", output, printed)
