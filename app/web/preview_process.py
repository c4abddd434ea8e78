"""Runs a command whose answer a page shows, in a child process with limits of memory and time."""

import subprocess
import sys
from collections.abc import Callable

from app.core.errors import PanelError
from app.core.i18n import _
from app.core.node_budget import NoRoom, node_budget
from app.core.settings import ROOT
from app.web.pools import Pool
from trainer.events import EXIT_BAD_INPUT
from trainer.processes.child_environment import TORCH_IMPORT_ENVIRONMENT, child_environment
from trainer.processes.child_limits import ChildLimits, limited_command

MEMORY_BYTES = 1 << 30  # of the child with all that it imports
LIMITS = ChildLimits(memory_bytes=MEMORY_BYTES, cpu_seconds=20, file_bytes=1 << 20, niceness=0)
WAIT_SECONDS = 60.0
ROOM_SECONDS = 10.0  # for the node to have room

PREVIEWS = Pool(2, max_waiting=8, max_per_client=3, refusal=lambda: busy())  # of the routes that preview


class PreviewRefused(Exception):
    """The command refuses what it is asked, with a sentence."""


def run(
    module: str,
    *arguments: str,
    too_slow: Callable[[], PanelError],
    text: str = "",
    limits: ChildLimits = LIMITS,
    memory_bytes: int = MEMORY_BYTES,
    num_threads: int = 1,
    no_room: Callable[[], PanelError] = lambda: busy(),
) -> str:
    """The JSON that `python -m MODULE ARGUMENTS` prints; `text` is its standard input. `memory_bytes` of the node are
    reserved for it, `num_threads` are those of torch.

    Raises PreviewRefused, and PanelError if it takes too long or too much memory, or the node has no room for it
    (`no_room`).
    """
    threads = {"OMP_NUM_THREADS": str(num_threads), "RAYON_NUM_THREADS": "1"}
    child_command = limited_command(limits, [sys.executable, "-m", module, *arguments])
    try:
        with node_budget().wait_for(memory_bytes, seconds=ROOM_SECONDS):
            child = subprocess.run(
                child_command,
                cwd=ROOT,
                env=child_environment("tokenizer", **threads, **TORCH_IMPORT_ENVIRONMENT),
                input=text,
                capture_output=True,
                text=True,
                timeout=WAIT_SECONDS,
            )
    except NoRoom:
        raise no_room() from None
    except subprocess.TimeoutExpired:
        raise too_slow() from None
    if child.returncode == EXIT_BAD_INPUT:
        raise PreviewRefused(_last_line(child.stderr).removeprefix("trainer: "))
    if child.returncode != 0:
        raise too_slow()
    return _last_line(child.stdout)


def _last_line(output: str) -> str:
    return output.strip().splitlines()[-1]


def busy() -> PanelError:
    """The error for a preview that finds no place."""
    message = _("Other previews are running. Try again in a moment.")
    return PanelError(503, "preview_busy", message, headers={"Retry-After": "5"})
