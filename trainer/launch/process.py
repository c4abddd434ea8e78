"""Runs the work of a trainer process: handles SIGTERM, reports failures as events and returns an exit code.

Does not import torch, which preparation does not need.
"""

import signal
import traceback
from collections.abc import Callable
from types import FrameType

from pydantic import ValidationError

from trainer.datasets import prepare as preparation
from trainer.events import EXIT_BUG, EXIT_OK, EXIT_PEER_LOST, EXIT_RESUMABLE, FULL, Journal
from trainer.failure import Failure, memory_code
from trainer.report import Reporter, log, log_to_stdout
from trainer.run_dir import RunDir


class StopRequest:
    """Calling it tells whether SIGTERM was received. A second SIGTERM ends the process."""

    def __init__(self, *signals: signal.Signals) -> None:
        self._requested = False
        for number in signals:
            signal.signal(number, self._request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        signal.signal(number, signal.SIG_DFL)

    def __call__(self) -> bool:
        return self._requested


def prepare(run_dir: RunDir, fence: int) -> int:
    """Prepare a run. Returns the exit code. SIGTERM ends it at once, without saving what is done so far."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_RESUMABLE)

    log_to_stdout()
    report = Reporter(Journal(run_dir.events_path(fence)))

    def work() -> int:
        signal.signal(signal.SIGTERM, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        preparation.prepare(run_dir, fence, report)
        return EXIT_OK

    return run_and_report(report, work)


def run_and_report(report: Reporter, work: Callable[[], int]) -> int:
    """Run `work` and return its exit code; a failure is reported as an event with its code."""
    try:
        return work()
    except SystemExit as stop:
        return int(stop.code or 0)
    except Failure as failure:
        return _fail(report, failure)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or error.title
        return _fail(report, Failure("config_invalid", field=name, why=first["msg"]))
    except OSError as error:
        traceback.print_exc()
        if error.errno not in FULL:
            return _report_bug(report, error)
        return _fail(report, Failure("no_space", what=report.current_phase))
    except Exception as error:
        traceback.print_exc()
        if code := memory_code(error):
            return _fail(report, Failure(code, step=report.step))
        if "gloo" in str(error) or "NCCL" in str(error):
            report.warning("another process of this run was lost")
            return EXIT_PEER_LOST
        return _report_bug(report, error)
    finally:
        report.close()


def _report_bug(report: Reporter, error: Exception) -> int:
    report.event("failure", code="trainer_bug", values={"error": type(error).__name__})
    return EXIT_BUG


def _fail(report: Reporter, failure: Failure) -> int:
    report.event("failure", code=failure.code, values=failure.values)
    log.error("%s: %s", failure.code, failure)
    return failure.exit_code
