"""The process that holds the library and the credentials of a tracker, and gets one batch at a time."""

import json
import subprocess
import sys
import threading
from tempfile import TemporaryDirectory
from typing import Any

from app.core.json_shapes import FailureReason, MessageValues
from app.core.settings import ROOT
from app.jobs.forwarding.service import Claimed
from app.jobs.forwarding.tracker_errors import explain
from app.jobs.forwarding.trackers import Tracker
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits, limited_command

ANSWER_SECONDS = 90.0  # less than a batch is claimed for
LIMITS = ChildLimits(memory_bytes=2 << 30)


class TrackerFailed(Exception):
    """A tracker did not take a batch, or did not say so; the reason is without secrets.

    If it `is_lost`, the tracker does not have what it took earlier.
    """

    def __init__(self, reason: FailureReason, *, is_lost: bool = False) -> None:
        super().__init__(explain(reason))
        self.reason, self.is_lost = reason, is_lost


class TrackerProcess:
    """Starts the process when it is needed. It dies with the thread that uses it."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._child: subprocess.Popen[str] | None = None
        self._home: TemporaryDirectory[str] | None = None

    def send(self, claimed: Claimed) -> MessageValues:
        """Send a batch; returns what the tracker's client wants to know of the run next time. Raises TrackerFailed."""
        batch = claimed.batch
        request = {"job": batch.job, "rows": batch.rows, "remote": claimed.remote, "is_over": batch.is_over}
        answer = self._ask(json.dumps(request))
        if "error" in answer:
            self.close()
            raise TrackerFailed(FailureReason(**answer["error"]), is_lost=answer["is_lost"])
        remote: MessageValues = answer["remote"]
        return remote

    def _ask(self, request: str) -> dict[str, Any]:
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        timer = threading.Timer(ANSWER_SECONDS, child.kill)
        timer.start()
        try:
            child.stdin.write(request + "\n")
            child.stdin.flush()
            answer: dict[str, Any] = json.loads(child.stdout.readline())
        except (OSError, ValueError):
            is_slow = timer.finished.is_set()
            self.close()
            slow = FailureReason(code="no_answer", values={"seconds": round(ANSWER_SECONDS)})
            raise TrackerFailed(slow if is_slow else FailureReason(code="process_ended")) from None
        finally:
            timer.cancel()
        return answer

    def _start(self) -> "subprocess.Popen[str]":
        self._home = TemporaryDirectory(
            prefix="athanor-tracker-", ignore_cleanup_errors=True
        )  # what libraries keep beside what they send
        home = {"HOME": self._home.name, "TMPDIR": self._home.name}
        self._child = subprocess.Popen(
            limited_command(LIMITS, [sys.executable, "-m", "app.jobs.forwarding.clients.process", self._tracker.name]),
            cwd=ROOT,
            env=child_environment("tracker", **home, **self._tracker.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what libraries print of errors may contain secrets
            text=True,
        )
        return self._child

    def close(self) -> None:
        """End the process, if it runs; the next batch starts it again."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                assert pipe is not None
                pipe.close()
            self._child = None
        if self._home is not None:
            self._home.cleanup()
            self._home = None
