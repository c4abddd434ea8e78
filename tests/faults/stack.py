"""The whole of Athanor as single processes that a test may kill, stop, cut off and start again, each by its role."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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
from worker import environment as gang_client

ROOT = Path(__file__).parents[2]
SHRUNKEN = {
    "LEASE_SECONDS": "4",  # a node says every 3 s that it lives
    "RENEW_SECONDS": "0.5",
    "SCHEDULER_SECONDS": "0.5",
    "RETRY_SECONDS": "0.2",
    "HINT_SECONDS": "1",
    "STOP_SECONDS": "5",
    "SAVE_SECONDS": "5",
    "STEP_SECONDS": "3",
    "FIRST_STEP_SECONDS": "20",
}
CANARY = "canary-8f3a61c2"  # the database's password: it must show up nowhere
SERVERS = ("postgres", "valkey")
PROGRAMS = ("web", "scheduler", "worker")


class Database(Postgres):
    """PostgreSQL that also listens on a port, so that a proxy can stand before it."""

    def __init__(self, address: Address, port: int) -> None:
        super().__init__(address, listen_addresses="127.0.0.1", port=str(port), fsync="off")
        self.port = port

    def url(self, database: str = "athanor") -> str:
        return f"{super().url(database)}&port={self.port}"

    def tcp(self, port: int) -> str:
        """Its address as programs get it, on its own port or a proxy's."""
        return f"postgresql://postgres:{CANARY}@127.0.0.1:{port}/athanor"


class Program:
    """One process of ours, and where its output goes."""

    def __init__(self, log: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.log, self.arguments, self.environment = log, arguments, environment
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    def start(self) -> None:
        """Start it, if it does not run."""
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
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Signal it and wait for its end where the signal ends it."""
        if self.process is not None and self.alive():
            self.process.send_signal(number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                self.process.wait(30)


class Stack:
    """Every process of one installation. Answers of the API are kept, for no fault may cause a bare 5xx."""

    def __init__(self, home: Path) -> None:
        self.home, self.data = home, home / "data"
        self.failpoints = home / "failpoints"
        for path in (self.data / "logs", self.failpoints, home / "sockets"):
            path.mkdir(parents=True)
        self.postgres = Database(Address(self.data / "postgres", home / "pg"), free_port())
        self.valkey = Valkey(Address(self.data / "valkey", home / "sockets"))
        self.proxy = Proxy(self.postgres.port)
        self.port = free_port()
        self.programs: dict[str, Program] = {}
        self.seen: list[tuple[str, int, str]] = []  # path, status and Retry-After of every answer
        self.token = ""
        self._socket = 0  # the inode of the fault_injector's
        self.client = httpx.Client(timeout=20)

    # ---- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and make Alice its owner."""
        self.start_servers()
        migrated = self.run("-m", "app.launcher.cli", "migrate")
        self.start_programs()
        self._sign_up(re.search(r"code=(\S+)", migrated)[1])  # type: ignore[index]
        self.repair()

    def start_servers(self) -> None:
        """PostgreSQL and Valkey."""
        self.postgres.start()
        self.valkey.start()

    def start_programs(self) -> None:
        """Web, scheduler and a worker, which reaches the database through the proxy."""
        for role in PROGRAMS:
            self.add(role, role, through=self.proxy.port if role == "worker" else None).start()

    def run(self, *arguments: str) -> str:
        """Run a program of ours to its end; answers what it printed."""
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add(self, role: str, command: str, *, through: int | None = None, node: str = "ada") -> Program:
        """A further program. A second worker is another machine, with sockets of its own."""
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
        """What every program gets. `port` leads to the database."""
        clean = {k: v for k, v in os.environ.items() if "ATHANOR" not in k}
        return {
            **clean,
            **{f"ATHANOR_{name}": value for name, value in SHRUNKEN.items()},
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
        """Make everything whole again after a fault: what is dead starts, what is cut heals, no job is left over."""
        self.proxy.heal()
        for left in self.failpoints.iterdir():
            left.unlink()
        (self.home / "faults").write_text("")
        for role in [role for role in self.programs if role not in (*PROGRAMS, "fault_injector")]:
            self.stop_role(role)
            del self.programs[role]
        for server in (self.postgres, self.valkey):
            server.start()
        for role in PROGRAMS:
            self.programs[role].signal(signal.SIGCONT)
            self.programs[role].start()
        until(self._is_ready, 60, "a web process that is ready")
        self._end_jobs()
        self.until_warm()
        until(self._has_node, 30, "a live node")

    def until_warm(self) -> None:
        """Wait for the warm parent of the present worker: an attempt that starts cold beside its start takes long."""

        def is_new() -> bool:
            with suppress(FileNotFoundError):
                return self.warm_socket().stat().st_mtime >= self.programs["worker"].started_at
            return False

        until(is_new, 60, "a warm parent")

    def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return self.client.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        return False

    def _has_node(self) -> bool:
        return any(node["live"] for node in self.get("/api/v1/nodes").json()["data"])

    def _end_jobs(self) -> None:
        """What a failed test left running is ended, the supervisor first."""
        for process in children_of(self.home):
            with suppress(psutil.Error):
                process.resume()
                process.kill()
        left = {"state": [state for state in STATES if state not in TERMINAL], "limit": 100}

        def is_over() -> bool:
            found = self.get("/api/v1/jobs", params=left).json()["data"]
            for job in found:
                if job["desired"] != "cancel":
                    self.post(f"/api/v1/jobs/{job['id']}/cancel")
            return not found

        until(is_over, 60, "the end of all jobs")
        self.seen.clear()

    def stop(self) -> None:
        """End everything that was started here."""
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
        """Stop a program for good."""
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
            found = server.process()
            assert found is not None
            found.kill()
            until(lambda: server.process() is None, 10, f"the end of {role}")
        else:
            self.programs[role].signal(signal.SIGKILL)

    def restart(self, role: str) -> None:
        """Start what was killed."""
        (getattr(self, role) if role in SERVERS else self.programs[role]).start()

    def hold(self, role: str) -> None:
        """SIGSTOP a program: it is there, and does nothing."""
        self.programs[role].signal(signal.SIGSTOP)

    def go_on(self, role: str) -> None:
        """SIGCONT."""
        self.programs[role].signal(signal.SIGCONT)

    def flushall(self) -> None:
        """Empty Valkey: every message and doorbell is lost."""
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()

    def inject_faults(self, faults: str) -> None:
        """Let the trainers that start from now on have these faults, by name and step (trainer/fault_injection.py)."""
        (self.home / "faults").write_text(faults)
        fault_injector = self.programs.get("fault_injector")
        if fault_injector is None or not fault_injector.alive() or self.warm_socket().stat().st_ino != self._socket:
            before = self.warm_socket().stat().st_ino
            if fault_injector is not None:
                self.stop_role("fault_injector")
            where, faulty = str(self.warm_socket()), str(self.home / "faults")
            arguments = ["-m", "tests.faults.fault_injection", where, str(os.getpid()), faulty]
            clean = gang_client.child_environment("trainer")
            self.programs["fault_injector"] = Program(self.data / "logs" / "fault_injector.log", arguments, clean)
            self.programs["fault_injector"].start()
            until(lambda: self.warm_socket().stat().st_ino != before, 60, "the fault_injector")
            self._socket = self.warm_socket().stat().st_ino

    def arm(self, failpoint: str) -> None:
        """Let the next process that reaches this point die there (see app/core/fault_injection.py)."""
        (self.failpoints / failpoint).touch()

    def reached(self, failpoint: str) -> bool:
        """Whether a process died at this point."""
        return (self.failpoints / f"{failpoint}.reached").exists()

    # ---- looking ----------------------------------------------------------------------------------------------------

    def get(self, path: str, **given: Any) -> httpx.Response:
        """Ask the API. Raises httpx.HTTPError where nobody answers."""
        return self._keep(self.client.get(self.url(path), **given))

    def post(self, path: str, **given: Any) -> httpx.Response:
        """Tell the API."""
        return self._keep(self.client.post(self.url(path), **given))

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def _keep(self, answer: httpx.Response) -> httpx.Response:
        self.seen.append((answer.request.url.path, answer.status_code, answer.headers.get("Retry-After", "")))
        return answer

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Read the database past everything of ours."""
        with psycopg.connect(self.postgres.url(), row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def warm_socket(self) -> Path:
        """Where the worker's warm parent listens."""
        return next(self.home.glob("athanor-*"), self.home) / "warm.sock"

    def logs(self) -> str:
        """The ends of all logs."""
        parts = []
        for path in sorted(self.data.glob("logs/*.log")) + sorted(self.data.glob("runs/*/*.[lt][ox][gt]"))[-4:]:
            parts.append(f"--- {path.relative_to(self.data)}\n{path.read_text(errors='replace')[-3000:]}")
        return "\n".join(parts)

    def _sign_up(self, code: str) -> None:
        until(self._is_ready, 60, "a web process")
        with httpx.Client(base_url=self.url("")) as visitor:
            body = {"code": code, "name": "Alice", "password": PASSWORD}
            visitor.post("/api/v1/setup", json=body).raise_for_status()
            answer = visitor.post("/api/v1/tokens", json={"name": "test", "scopes": ["read", "submit", "admin"]})
            self.token = answer.raise_for_status().json()["token"]
        self.client.headers.update({"Authorization": f"Bearer {self.token}", "Accept-Language": "en"})


def children_of(home: Path) -> list[psutil.Process]:
    """The supervisors that noted themselves below a stack's directory."""
    found = (processes.from_pid_file(path) for path in home.glob("**/supervisors/*.pid"))
    return [process for process in found if process is not None]


def free_port() -> int:
    """A port that nobody has, below those that outgoing connections take: it must be free after a restart too."""
    while True:
        port = random.randrange(18_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def running(home: Path) -> Iterator[Stack]:
    """A started stack, gone afterwards."""
    stack = Stack(home)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)
