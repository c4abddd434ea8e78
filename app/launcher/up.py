"""`athanor up`: starts all parts of Athanor on one machine, and stops them in the opposite order."""

import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.request import urlopen

from app.accounts import service as accounts
from app.core import db, migrations, processes, storage
from app.core.i18n import _
from app.core.processes import ManagedProcess
from app.core.settings import run_directory, settings
from app.corpora import service as corpora
from app.launcher.embedded import Address, Postgres, Server, ServerFailed, Valkey

WEB_SECONDS = 60
STOP_SECONDS = 15.0  # web, scheduler and worker; supervisors get settings().save_seconds and a little more
_WATCH_SECONDS = 0.2


class CannotStart(RuntimeError):
    """`athanor up` cannot start. The message is a translated sentence for the terminal."""


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP: the first one starts the shutdown; a second one ends the waiting in it."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.is_hurried = False

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.is_stopping:
            self.is_hurried = True
            return
        self.is_stopping = True
        raise KeyboardInterrupt


def run(when_ready: Callable[[str], None] | None = None) -> int:
    """Start everything, print the link, and keep it running until interrupted. Returns the exit code.

    `when_ready` is called with the address of the web server, instead of printing the link.
    """
    interrupts = Interrupts()
    interrupts.install()
    try:
        with ExitStack() as stack:
            try:
                servers, children, address = start(stack, interrupts)
                (when_ready or say_link)(address)
                watch(servers, children)
            finally:
                interrupts.is_stopping = True
    except KeyboardInterrupt:
        return 0
    except (CannotStart, ServerFailed) as error:
        say(str(error))
        return 1


def start(stack: ExitStack, interrupts: Interrupts) -> tuple[list[Server], list[ManagedProcess], str]:
    """Start the servers, migrate the database and start our processes, until the web server responds at the address.

    The stack's callbacks stop all of them in reverse order. Returns the servers, the processes and the address. Raises
    CannotStart and ServerFailed.
    """
    begin = time.monotonic()
    data = settings().data.resolve()
    storage.prepare()
    stack.enter_context(lock(data))
    stack.callback(lambda: say(_("Stopped.")))
    processes.stop_orphans()
    say(_("Data directory: {path}", path=data))
    servers = start_servers(stack, data)
    with step(_("migrations")):
        migrations.upgrade()
    with step(_("sample corpora")), db.transaction() as session:
        corpora.install_samples(session)
    listener = stack.enter_context(closing(listen(settings().host, settings().port)))
    children = commands(listener, data / "logs")
    stack.callback(stop_processes, children, interrupts)
    with step(_("web, scheduler, worker")):
        for child in children:
            child.start()
        address = f"http://{url_host(settings().host)}:{listener.getsockname()[1]}"
        wait_for_web(address, children[0])
    say(_("Ready in {n} s.", n=f"{time.monotonic() - begin:.1f}"))
    return servers, children, address


def embedded_postgres(data: Path) -> Postgres:
    """The embedded PostgreSQL whose files are in a data directory; it need not run."""
    return Postgres(Address(data / "postgres", run_directory() / "postgres"))


def find_database() -> None:
    """Set DATABASE_URL to the PostgreSQL that `athanor up` runs, unless it is set already.

    Raises CannotStart if none runs.
    """
    if settings().database_url:
        return
    postgres = embedded_postgres(settings().data.resolve())
    if not postgres.answers():
        raise CannotStart(_("PostgreSQL is not running. Run `athanor up` at the same time, or set DATABASE_URL."))
    os.environ["DATABASE_URL"] = postgres.url()
    settings.cache_clear()


def start_servers(stack: ExitStack, data: Path) -> list[Server]:
    """Start the embedded PostgreSQL and Valkey and set DATABASE_URL and REDIS_URL, each unless the variable is set.

    Raises ServerFailed.
    """
    servers: list[Server] = []
    os.environ["ATHANOR_DATA"] = str(data)
    if not settings().database_url:
        postgres = embedded_postgres(data)
        os.environ["DATABASE_URL"] = postgres.url()
        servers.append(postgres)
    if not settings().redis_url:
        valkey = Valkey(Address(data / "valkey", run_directory()))
        os.environ["REDIS_URL"] = valkey.url
        servers.append(valkey)
    for server in servers:
        processes.rotate(server.log_path)
        stack.callback(server.stop)
        with step(server.name):
            server.start()
    settings.cache_clear()
    return servers


def commands(listener: socket.socket, logs: Path) -> list[ManagedProcess]:
    """The processes to run, web first. It inherits the listening socket, so no connection is refused in a restart."""
    me = [sys.executable, "-m", "app.launcher.cli"]
    web = [*me, "web", "--fd", str(listener.fileno())]
    env = processes.environment_without_secrets
    of_web, of_worker = env(processes.WEB_SECRETS), env(processes.WORKER_SECRETS)
    return [
        ManagedProcess("web", web, logs / "web.log", of_web, pass_fds=[listener.fileno()]),
        ManagedProcess("scheduler", [*me, "scheduler"], logs / "scheduler.log", env(processes.SCHEDULER_SECRETS)),
        ManagedProcess("worker", [*me, "worker"], logs / "worker.log", of_worker),
    ]


def watch(servers: list[Server], children: list[ManagedProcess]) -> NoReturn:
    """Print warnings and errors from the logs and restart processes that end, until KeyboardInterrupt."""
    rounds = 0
    while True:
        time.sleep(_WATCH_SECONDS)
        rounds += 1
        for child in children:
            for line in child.new_log_lines():
                say(f"{child.name}: {line}")
            if (how := child.restart_if_dead()) is not None:
                values = {"name": child.name, "how": how, "n": f"{child.pause:.0f}", "log": child.log}
                say(_("{name} ended ({how}) and restarts in {n} s. Log: {log}", **values))
        for server in servers if rounds % 5 == 0 else ():
            processes.rotate(server.log_path)
            if server.process() is None:
                say(_("{name} ended and restarts. Log: {log}", name=server.name, log=server.log_path))
                server.start()


def stop_processes(children: list[ManagedProcess], interrupts: Interrupts) -> None:
    """Stop web, scheduler and worker together, then the supervisors, which save a checkpoint of what they train."""
    say(_("Stopping; press Ctrl-C again to stop without waiting."))
    for child in children:
        child.ask_to_stop()
    wait_until(lambda: not any(child.alive() for child in children), STOP_SECONDS, interrupts)
    for child in children:
        child.kill()
    wait_until(lambda: not any(child.alive() for child in children), 5, interrupts)
    running = processes.supervisors()
    if running:
        say(_("Waiting for running jobs to stop: {n}", n=len(running)))
    processes.signal_all(running, signal.SIGTERM)
    wait_until(lambda: not processes.supervisors(), settings().save_seconds + 10, interrupts)
    processes.signal_all(processes.supervisors(), signal.SIGKILL)


def wait_until(is_done: Callable[[], bool], seconds: float, interrupts: Interrupts) -> None:
    """Wait until `is_done` returns True, the time is over or the user interrupts a second time."""
    deadline = time.monotonic() + seconds
    while not is_done() and not interrupts.is_hurried and time.monotonic() < deadline:
        time.sleep(0.05)


def wait_for_web(address: str, web: ManagedProcess) -> None:
    """Wait until /readyz of the web process returns 200. Raises CannotStart."""
    deadline = time.monotonic() + WEB_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), urlopen(f"{address}/readyz", timeout=5) as answer:  # noqa: S310 - our own address
            if answer.status == 200:
                return
        if not web.alive():
            break
        time.sleep(0.05)
    lines = "\n".join(web.log.read_text(errors="replace").splitlines()[-15:])
    raise CannotStart(_("The web process did not start. {log} ends with:", log=web.log) + f"\n{lines}")


def say_link(address: str) -> None:
    """Print the link to open, with a one-time code as long as no account exists."""
    with db.transaction() as session:
        if accounts.owner_exists(session):
            say(_("Open {link}", link=address))
            return
        code = accounts.create_setup_code(session)
    say(_("Open {link}", link=f"{address}/setup?code={code}"))
    say(_("This link works once: it creates the first account. Press Ctrl-C to stop everything."))


@contextmanager
def lock(data: Path) -> Iterator[None]:
    """Lock the data directory, which two installations must not share. Raises CannotStart if it is locked already."""
    with (data / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            sentence = _(
                "Athanor runs already with the data in {path} (process {pid}). Stop it first, or set ATHANOR_DATA "
                "to another directory.",
                path=data,
                pid=file.read().strip() or "?",
            )
            raise CannotStart(sentence) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on the port, or on the next free one after it, which is printed. Raises CannotStart."""
    family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    for candidate in range(port, min(port + 100, 65536)) if port else [0]:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
        except OSError:
            listener.close()
            continue
        listener.listen(512)
        if candidate != port:
            say(_("Port {port} is in use; using {other}.", port=port, other=candidate))
        return listener
    raise CannotStart(_("No free port from {port} on {host}. Set ATHANOR_PORT to another one.", port=port, host=host))


def url_host(host: str) -> str:
    """The host to put into a URL that is opened on this machine."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "localhost"
    return f"[{host}]" if ":" in host else host


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print how long a step took, in seconds."""
    begin = time.monotonic()
    yield
    say(f"  {time.monotonic() - begin:5.1f} s  {title}")


def say(line: str) -> None:
    """Print one line and flush it."""
    with suppress(BrokenPipeError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
