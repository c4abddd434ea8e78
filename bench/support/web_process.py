"""A real web process, with PostgreSQL and Valkey of its own, for benchmarks that fill the database themselves.

Import it before anything of ours reads the environment.
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil

from tests import environment, servers  # noqa: F401 - environment first: it is read when ours is imported
from tests.users import Person
from tests.waiting import until

START_SECONDS = 180  # where other work leaves it little
ROOT = Path(__file__).parents[2]


@contextmanager
def empty_database() -> Iterator[None]:
    """Both servers and an empty, migrated database, to which the settings of this process point meanwhile."""
    with (
        servers.running() as both,
        tempfile.TemporaryDirectory(prefix="athanor-bench-") as data,
        servers.fresh_database(both, Path(data)),
    ):
        yield


@contextmanager
def running(user: Person) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """A web process of this database that answers: a client with an API token of the user's, and the process."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        fd = listener.fileno()
        command = [sys.executable, "-m", "app.launcher.cli", "web", "--fd", str(fd)]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, pass_fds=[fd], stderr=subprocess.DEVNULL)
        try:
            headers = {"Authorization": f"Bearer {user.token()}"}
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, headers=headers, timeout=START_SECONDS) as client:
                until(lambda: client.get("/readyz").is_success, START_SECONDS, "the web process")
                yield client, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)
