"""What a kind of background tasks does on a node."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.core.models import BackgroundTask
from worker.background.lease import Lease

# The closing report of a task's process: `result`, or `failed` (see app/background_tasks/outcomes.py).
Report = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """The parts of a kind of tasks. Each process of `run` holds the lock of `directory` as long as it lives."""

    directory: Callable[[BackgroundTask], Path]
    run: Callable[[BackgroundTask, Lease], Report]
    clean_up: Callable[[BackgroundTask, bool], None]  # after every ending; the flag says whether it succeeded
    # Stores what came of a success, in the transaction that then ends the task; returns what is done after that.
    record: Callable[[Session, BackgroundTask, Report, Lease], Callable[[], None]] | None = None
    writes_user_data: bool = True  # so that its process must end when the disk is full
