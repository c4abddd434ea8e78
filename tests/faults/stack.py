"""A complete installation whose processes a test can kill, suspend, cut off and restart, each by its role."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import redis
from psycopg.rows import dict_row

from app.core import processes
from app.core.models import STATES, TERMINAL
from app.launcher.embedded import Address, Postgres, Server, Valkey
from tests.faults.proxy import Proxy
from tests.users import PASSWORD
from tests.waiting import until
from trainer.processes.child_environment import child_environment

ROOT = Path(__file__).parents[2]
SHORT_TIMES = {
    "LEASE_SECONDS": "10",  # nodes report every 5 s; a supervisor needs up to 7 s to start on a busy machine
    "RENEW_SECONDS": "0.5",
    "SCHEDULER_SECONDS": "0.5",
    "RETRY_SECONDS": "0.2",
    "HINT_SECONDS": "1",
    "STOP_SECONDS": "5",
    "SAVE_SECONDS": "5",
    "STEP_SECONDS": "3",
    "FIRST_STEP_SECONDS": "20",
}
CANARY = "canary-8f3a61c2"  # the database's password, which must not appear in any log or file
SERVERS = ("postgres", "valkey")
PROGRAMS = ("web", "scheduler", "worker")


class Database(Postgres):
    """PostgreSQL that also listens on a TCP port, so that a proxy can be put in front of it."""

    def __init__(self, address: Address, port: int) -> None:
        super().__init__(address, listen_addresses="127.0.0.1", port=str(port), fsync="off")
        self.port = port

    def url(self, database: str = "athanor") -> str:
        return f"{super().url(database)}&port={self.port}"

    def tcp(self, port: int) -> str:
        """Its URL over TCP, on its own port or that of a proxy."""
        return f"postgresql://postgres:{CANARY}@127.0.0.1:{port}/athanor"


class Program:
    """A process of Athanor and its log file."""

    def __init__(self, log: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.log = log
        self.arguments = arguments
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    def start(self) -> None:
        """Start the process unless it runs."""
        if self.alive():
            return
        self.started_at = time.time()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; after SIGKILL or SIGTERM wait for the process to end."""
        if self.process is not None and self.alive():
            self.process.send_signal(number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                self.process.wait(30)


class Installation:
    """All processes of one installation, and the responses of its API, because no fault may cause a bare 5xx."""

    def __init__(self, home: Path, settings: Mapping[str, str] = SHORT_TIMES) -> None:
        """`settings` replace the defaults of Athanor, by their names without the prefix."""
        self.home, self.data, self.settings = home, home / "data", settings
        self.failpoints = home / "failpoints"
        for path in (self.data / "logs", self.failpoints, home / "sockets"):
            path.mkdir(parents=True)
        self.postgres = Database(Address(self.data / "postgres", home / "pg"), free_port())
        self.valkey = Valkey(Address(self.data / "valkey", home / "sockets"))
        self.proxy = Proxy(self.postgres.port)
        self.port = free_port()
        self.programs: dict[str, Program] = {}
        self.responses: list[tuple[str, int, str]] = []  # path, status and Retry-After of every response
        self.token = ""
        self._injector_inode = 0  # of the socket of the fault injector
        self.client = httpx.Client(timeout=20)

    # ---- start, repair and stop -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all processes and create the owner's account, Alice."""
        self.start_servers()
        migrated = self.run("-m", "app.launcher.cli", "migrate")
        self.start_programs()
        self._sign_up(re.search(r"code=(\S+)", migrated)[1])  # type: ignore[index]
        self.repair()

    def start_servers(self) -> None:
        """Start PostgreSQL and Valkey."""
        self.postgres.start()
        self.valkey.start()

    def start_programs(self) -> None:
        """Start web, scheduler and a worker, which reaches the database through the proxy."""
        for role in PROGRAMS:
            self.add(role, role, through=self.proxy.port if role == "worker" else None).start()

    def run(self, *arguments: str) -> str:
        """Run Python with these arguments to its end; returns its output."""
        command = [sys.executable, *arguments]
        result = subprocess.run(command, cwd=ROOT, env=self.environment(), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def add(self, role: str, command: str, *, through: int | None = None, node: str = "ada") -> Program:
        """Add a program. A second worker acts as another machine, with a runtime directory of its own.

        `through` is the port of the database that it uses.
        """
        environment = self.environment(through)
        if node != "ada":
            environment["XDG_RUNTIME_DIR"] = str(self.home / node)
            (self.home / node).mkdir(exist_ok=True)
        environment["ATHANOR_NODE_NAME"] = node
        self.programs[role] = Program(
            self.data / "logs" / f"{role}.log", ["-m", "app.launcher.cli", command], environment
        )
        return self.programs[role]

    def environment(self, port: int | None = None) -> dict[str, str]:
        """The environment of every program. `port` is that of the database."""
        clean = {k: v for k, v in os.environ.items() if "ATHANOR" not in k}
        return {
            **clean,
            **{f"ATHANOR_{name}": value for name, value in self.settings.items()},
            "ATHANOR_DATA": str(self.data),
            "ATHANOR_PORT": str(self.port),
            "ATHANOR_FAILPOINTS": str(self.failpoints),
            "DATABASE_URL": self.postgres.tcp(port or self.postgres.port),
            "REDIS_URL": self.valkey.url,
            "XDG_RUNTIME_DIR": str(self.home),
            "PYTHONUNBUFFERED": "1",
            "LC_ALL": "C.UTF-8",
        }

    def repair(self) -> None:
        """Undo all faults: restart what was killed, reconnect what was cut off, and end all jobs."""
        self.proxy.heal()
        for path in self.failpoints.iterdir():
            path.unlink()
        (self.home / "faults").write_text("")
        for role in [role for role in self.programs if role not in (*PROGRAMS, "fault_injector")]:
            self.stop_role(role)
            del self.programs[role]
        for server in (self.postgres, self.valkey):
            server.start()
        for role in PROGRAMS:
            self.programs[role].signal(signal.SIGCONT)
            self.programs[role].start()
        until(self.is_ready, 60, "a web process that is ready")
        self._end_jobs()
        self.until_fork_server()
        until(self._has_node, 30, "a live node")

    def until_fork_server(self) -> None:
        """Wait for the fork server of the current worker, without which an attempt starts slowly."""

        def is_new() -> bool:
            with suppress(FileNotFoundError):
                return self.fork_server_socket().stat().st_mtime >= self.programs["worker"].started_at
            return False

        until(is_new, 60, "a fork server")

    def is_ready(self) -> bool:
        """Whether the web process responds and all it needs is there."""
        with suppress(httpx.HTTPError):
            return self.client.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        return False

    def _has_node(self) -> bool:
        return any(node["live"] for node in self.get("/api/v1/nodes").json()["data"])

    def _end_jobs(self) -> None:
        """End the jobs that a failed test left running, their supervisors first."""
        for process in children_of(self.home):
            with suppress(psutil.Error):
                process.resume()
                process.kill()
        is_active = {"state": [state for state in STATES if state not in TERMINAL], "limit": 100}

        def is_over() -> bool:
            jobs = self.get("/api/v1/jobs", params=is_active).json()["data"]
            for job in jobs:
                if job["desired"] != "cancel":
                    self.post(f"/api/v1/jobs/{job['id']}/cancel")
            return not jobs

        until(is_over, 60, "the end of all jobs")
        self.responses.clear()

    def stop(self) -> None:
        """End all processes of the installation."""
        for process in children_of(self.home):
            with suppress(psutil.Error):
                process.kill()
        for role in reversed(self.programs):
            self.stop_role(role)
        for server in (self.valkey, self.postgres):
            server.stop()
        self.proxy.close()
        self.client.close()

    def stop_role(self, role: str) -> None:
        """Stop a program by SIGTERM, or SIGKILL after 15 s."""
        program = self.programs[role]
        if program.alive():
            program.signal(signal.SIGCONT)
            assert program.process is not None
            program.process.terminate()
            try:
                program.process.wait(15)
            except subprocess.TimeoutExpired:
                program.signal(signal.SIGKILL)

    # ---- faults -----------------------------------------------------------------------------------------------------

    def kill9(self, role: str) -> None:
        """SIGKILL a server or a program."""
        if role in SERVERS:
            server: Server = getattr(self, role)
            process = server.process()
            assert process is not None
            process.kill()
            until(lambda: server.process() is None, 10, f"the end of {role}")
        else:
            self.programs[role].signal(signal.SIGKILL)

    def restart(self, role: str) -> None:
        """Start a server or program again."""
        (getattr(self, role) if role in SERVERS else self.programs[role]).start()

    def suspend(self, role: str) -> None:
        """Suspend a program by SIGSTOP."""
        self.programs[role].signal(signal.SIGSTOP)

    def resume(self, role: str) -> None:
        """Resume a suspended program by SIGCONT."""
        self.programs[role].signal(signal.SIGCONT)

    def flushall(self) -> None:
        """Empty Valkey: all messages and notifications are lost."""
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()

    def inject_faults(self, faults: str) -> None:
        """Inject faults into the trainers that start from now on, by name and step (trainer/fault_injection.py)."""
        (self.home / "faults").write_text(faults)
        injector = self.programs.get("fault_injector")
        inode = self.fork_server_socket().stat().st_ino
        if injector is not None and injector.alive() and inode == self._injector_inode:
            return
        if injector is not None:
            self.stop_role("fault_injector")
        paths = (str(self.fork_server_socket()), str(os.getpid()), str(self.home / "faults"))
        arguments = ["-m", "tests.faults.fault_injection", *paths]
        environment = child_environment("trainer")
        self.programs["fault_injector"] = Program(self.data / "logs" / "fault_injector.log", arguments, environment)
        self.programs["fault_injector"].start()
        until(lambda: self.fork_server_socket().stat().st_ino != inode, 60, "the fault injector")
        self._injector_inode = self.fork_server_socket().stat().st_ino

    def arm(self, failpoint: str) -> None:
        """Make the next process that reaches a failpoint die there (app/core/fault_injection.py)."""
        (self.failpoints / failpoint).touch()

    def reached(self, failpoint: str) -> bool:
        """Whether a process died at a failpoint."""
        return (self.failpoints / f"{failpoint}.reached").exists()

    # ---- API, database and files ------------------------------------------------------------------------------------

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET a path. Raises httpx.HTTPError if the web process does not respond."""
        return self._record(self.client.get(self.url(path), **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        """POST to a path. Raises httpx.HTTPError if the web process does not respond."""
        return self._record(self.client.post(self.url(path), **options))

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def _record(self, response: httpx.Response) -> httpx.Response:
        retry_after = response.headers.get("Retry-After", "")
        self.responses.append((response.request.url.path, response.status_code, retry_after))
        return response

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Query the database directly, without code of Athanor."""
        with psycopg.connect(self.postgres.url(), row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def fork_server_socket(self) -> Path:
        """The socket that the worker's fork server listens on."""
        return next(self.home.glob("athanor-*"), self.home) / "fork_server.sock"

    def logs(self) -> str:
        """The ends of all logs, to show when a test fails."""
        parts = []
        for path in sorted(self.data.glob("logs/*.log")) + sorted(self.data.glob("runs/*/*.[lt][ox][gt]"))[-4:]:
            parts.append(f"--- {path.relative_to(self.data)}\n{path.read_text(errors='replace')[-3000:]}")
        return "\n".join(parts)

    def _sign_up(self, code: str) -> None:
        until(self.is_ready, 60, "a web process")
        with httpx.Client(base_url=self.url("")) as visitor:
            body = {"code": code, "name": "Alice", "password": PASSWORD}
            visitor.post("/api/v1/setup", json=body).raise_for_status()
            answer = visitor.post("/api/v1/tokens", json={"name": "test", "scopes": ["read", "submit", "admin"]})
            self.token = answer.raise_for_status().json()["token"]
        self.client.headers.update({"Authorization": f"Bearer {self.token}", "Accept-Language": "en"})


def children_of(home: Path) -> list[psutil.Process]:
    """The running supervisors with a pid file below an installation's directory."""
    directories = (Path(path) for path, _names, _files in os.walk(home) if Path(path).name == "supervisors")
    files = (path for directory in directories for path in directory.glob("*.pid"))  # os.walk: others may vanish
    supervisors = (processes.from_pid_file(path) for path in files)
    return [process for process in supervisors if process is not None]


def free_port() -> int:
    """A free port below the range of outgoing connections, so that it stays free while a server restarts."""
    while True:
        port = random.randrange(18_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def running(home: Path, settings: Mapping[str, str] = SHORT_TIMES) -> Iterator[Installation]:
    """A running installation, which is stopped and deleted at the end."""
    stack = Installation(home, settings)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)
