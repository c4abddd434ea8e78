"""Runs the sandboxed child of a background task. One that ends without a closing report is explained by how it ended:
by the limit of its memory, the full disk, or its exit status.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainer.processes.child_limits import ChildLimits
from worker.background.lease import Lease
from worker.background.work import Report
from worker.sandbox import runner

Failed = dict[str, Any]  # a code and the values of its message


@dataclass(frozen=True)
class EndCodes:
    """The codes of a child's end without a report. Problems are those of the corpus, model or tokenizer of a task;
    else they are failures of the task itself.
    """

    died: str = "process_died"
    out_of_memory: str = "process_memory"
    are_problems: bool = False


def run(
    command: list[str],
    env: dict[str, str],
    lease: Lease,
    *,
    limits: ChildLimits,
    directory: Path,
    codes: EndCodes,
    phase: str | None = None,
    memory_bytes: int | None = None,
    stderr: Path | None = None,
    explain: Callable[[int], Failed | None] = lambda status: None,
) -> Report:
    """Run a child until its closing report, and return that or why there is none; {} once the task is over.

    `explain` knows exit statuses of this child. `memory_bytes` is its limit of memory where it lowers that itself.
    """
    closing, status = runner.run_sandboxed(
        command, env, partial(lease.renew, phase=phase), limits=limits, directory=directory, stderr=stderr
    )
    if closing or lease.is_over:
        return closing
    if lease.is_disk_full:
        failed: Failed = {"code": "disk_filled_up"}
    elif runner.is_out_of_memory(status):
        failed = {"code": codes.out_of_memory, "limit_bytes": memory_bytes or limits.memory_bytes}
    else:
        failed = explain(status) or {"code": codes.died, "status": status}
    if codes.are_problems:
        return {"failed": {"problems": [failed]}}
    return {"failed": {"code": failed.pop("code"), "values": failed}}
