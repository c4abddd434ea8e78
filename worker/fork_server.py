"""The fork server of a node: imports torch, transformers and DeepSpeed once, then forks on request.

`python -m worker.fork_server SOCKET WORKER`. The first line of a connection, {"serve": "gang" | "inference"}, says
what the fork is to be; the rest of the connection is its own. This process stays without threads and without a GPU, so
forking is safe, and without credentials: it is started with a scrubbed environment. It ends with the process WORKER,
which started it.
"""

import argparse
import gc
import importlib
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from trainer.formats import jsonlines

log = logging.getLogger("fork_server")

LOOK_SECONDS = 1.0  # between checks that the worker is alive
LINE_SECONDS = 5.0  # timeout for a caller's first line
MAX_LINE_BYTES = 200
KINDS = {"gang": "trainer.launch.gang", "inference": "worker.inference.server"}  # each has serve(connection)


def main() -> None:
    """Listen on a socket and fork for each connection until the worker exits."""
    parser = argparse.ArgumentParser(description="Hold imported libraries ready and fork from them.")
    parser.add_argument("socket", type=Path)
    parser.add_argument(
        "worker", type=int
    )  # an argument, because getppid() here would miss a worker that has already died
    arguments = parser.parse_args()
    path: Path = arguments.socket
    worker: int = arguments.worker
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _end)
    preload()
    log.info("ready")
    with listen(path) as listener:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps forked children
        while os.getppid() == worker:
            with suppress(TimeoutError):
                connection, _address = listener.accept()
                handle_connection(connection, listener)


def preload() -> None:
    """Import what the forks need. Freezing keeps their garbage collectors from writing to shared pages."""
    importlib.import_module("trainer.launch.gang").preload()
    importlib.import_module("worker.inference.server")
    gc.collect()
    gc.freeze()


def listen(path: Path) -> socket.socket:
    """A listening socket, renamed to `path` once it accepts connections."""
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(temporary))
    listener.listen(64)
    listener.settimeout(LOOK_SECONDS)
    temporary.rename(path)
    return listener


def handle_connection(connection: socket.socket, listener: socket.socket) -> None:
    """Read the request of a caller and fork a child that serves it."""
    with connection:
        kind = receive_kind(connection)
        if kind not in KINDS:
            log.warning("refused to serve %r", kind)
            return
        if os.fork() == 0:
            listener.close()
            run_child(kind, connection)


def receive_kind(connection: socket.socket) -> str | None:
    """The requested key of KINDS; None for an invalid request."""
    connection.settimeout(LINE_SECONDS)
    try:
        message = jsonlines.receive(connection, MAX_LINE_BYTES)
        connection.settimeout(None)
        return str(message["serve"]) if message is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_child(kind: str, connection: socket.socket) -> None:
    """Serve the caller in the forked child, then exit without running the parent's cleanup."""
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        code = importlib.import_module(KINDS[kind]).serve(connection) or 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the caller disconnected
    except BaseException:
        log.exception("serving %s failed", kind)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)


if __name__ == "__main__":
    main()
