"""The worker's hold on its inference process: started at first use, warm or cold, and asked for text."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.settings import ROOT, run_directory, settings

log = logging.getLogger(__name__)

START_SECONDS = 120.0  # a cold start imports torch and transformers, on a machine that may be busy training
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


class Inference:
    """One inference process, which lives no longer than this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leash: socket.socket | None = None

    @contextmanager
    def writing(self, order: dict[str, Any]) -> Iterator[socket.socket]:
        """A socket on which the text of this order comes, as JSON lines. Closing it stops the writing."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._pass(theirs)
            line = {**order, "num_threads": max(1, (os.cpu_count() or 1) // settings().generation_slots)}
            ours.sendall(json.dumps(line).encode() + b"\n")
            yield ours

    def close(self) -> None:
        """Let the process end, and its memory go."""
        with self._lock:
            if self._leash is not None:
                self._leash.close()
                self._leash = None

    def _pass(self, theirs: socket.socket) -> None:
        with self._lock:
            if self._leash is not None:
                try:
                    socket.send_fds(self._leash, [b"+"], [theirs.fileno()])
                    return
                except OSError:  # it went home after a long idle time, or died
                    self._leash.close()
            self._leash = _start()
            socket.send_fds(self._leash, [b"+"], [theirs.fileno()])


def _start() -> socket.socket:
    for connect in (_fork_from_warm, _start_cold):
        leash = connect()
        if leash is not None and _is_ready(leash):
            return leash
    raise ConnectionError("the inference process ended before it was ready")


def _is_ready(leash: socket.socket) -> bool:
    leash.settimeout(START_SECONDS)
    try:
        ready = b"ready" in leash.recv(64)  # one short line, and nothing follows it
    except OSError:
        ready = False
    if ready:
        leash.settimeout(None)
    else:
        leash.close()
    return ready


def _fork_from_warm() -> socket.socket | None:
    """A fork of the parent that has imported everything; None where there is none."""
    leash = socket.socket(socket.AF_UNIX)
    leash.settimeout(2)
    try:
        leash.connect(str(run_directory() / "warm.sock"))
        leash.sendall(b'{"serve": "inference"}\n')
    except OSError as error:
        log.info("no warm parent (%s), the inference process starts cold", error)
        leash.close()
        return None
    return leash


def _start_cold() -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "worker.inference", "--fd", str(theirs.fileno())]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    return ours
