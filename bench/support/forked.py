"""Runs work in children that are forked from this process, so that they have its imports already.

Fork before this process starts threads, those of torch among them: a child has only the thread that forked it.
"""

import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.support.arguments import IS_SMOKE


class Forked:
    """A child that does some work. It starts at once."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._reading, writing = os.pipe()
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._reading)
                os.write(writing, json.dumps(work()).encode())
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.close(writing)

    def result(self) -> Any:
        """What the work returned, by way of JSON. Raises RuntimeError if it failed; the child printed why."""
        with os.fdopen(self._reading) as file:
            answer = file.read()
        if code := self.wait():
            raise RuntimeError(f"the child ended with {code}")
        return json.loads(answer)

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> int:
        """Wait for its end. Returns the exit code."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


def start_module(*arguments: str) -> "subprocess.Popen[bytes] | Forked":
    """Start `python -m` with these arguments; its output goes to standard error. With --smoke it is forked from this
    process instead, which spares it the imports.
    """
    if IS_SMOKE:
        return Forked(partial(_run_module, list(arguments)))
    return subprocess.Popen([sys.executable, "-m", *arguments], stdout=sys.stderr)


def _run_module(arguments: list[str]) -> None:
    sys.argv = arguments
    os.dup2(2, 1)
    runpy.run_module(arguments[0], run_name="__main__")
