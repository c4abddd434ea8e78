"""Runs a limited child process that reports by JSON lines: how far it is, and at last what came of it."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

from app.core.settings import ROOT


def run_sandboxed(
    command: list[str], env: dict[str, str], progress: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], int]:
    """Run a child to its end, telling `progress` of each {"done", "total"}; returns its closing report, empty where it
    gave none, and its exit status.

    It gets no environment but `env`: above all no address of a database.
    """
    child = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    closing: dict[str, Any] = {}
    with child, child.stdout:
        try:
            for line in child.stdout:
                message = json.loads(line)
                if "done" in message:
                    progress(message)
                else:
                    closing = message
        except BaseException:
            child.kill()
            raise
    return closing, child.returncode
