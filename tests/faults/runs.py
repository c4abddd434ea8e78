"""One job of a stack, and everything a test wants to know of it: its state, its processes, its files."""

import hashlib
import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.core.models import TERMINAL
from tests.faults.stack import Stack, children_of
from tests.waiting import until
from trainer.run_dir import MANIFEST, RunDir

STEPS, SAVE_STEPS = 120, 20
LONG = 600  # steps that take longer than a lease
SPEC: dict[str, Any] = {
    "vocab_size": 512,
    "sequence_length": 32,
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "train_batch_size": 8,
    "per_device_batch_size": 4,
    "warmup_steps": 5,
    "max_steps": STEPS,
    "eval_steps": 1_000_000,
    "save_steps": SAVE_STEPS,
    "save_total_limit": 100,
}
SECONDS = 90


class Run:
    """A submitted job."""

    def __init__(self, stack: Stack, corpus: str, **fields: Any) -> None:
        self.stack = stack
        self.spec = {**SPEC, "corpora": [corpus], **fields}
        answer = stack.post("/api/v1/jobs", json=self.spec)
        assert answer.status_code == 201, answer.text
        self._name(str(answer.json()["id"]))

    def _name(self, job_id: str) -> None:
        self.id, self.dir = job_id, RunDir(self.stack.data / "runs" / job_id)

    @classmethod
    def known(cls, stack: Stack, job: dict[str, Any]) -> "Run":
        """A job that was submitted by other means."""
        run = cls.__new__(cls)
        run.stack, run.spec = stack, job["spec"]
        run._name(job["id"])
        return run

    # ---- what the API says ------------------------------------------------------------------------------------------

    def job(self) -> dict[str, Any]:
        """The job; where the web or the database is away, nothing is known of it."""
        with suppress(httpx.HTTPError):
            answer = self.stack.get(f"/api/v1/jobs/{self.id}")
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
        return {"state": "unknown", "step": -1, "progress": {}}

    def state(self) -> str:
        """Its state."""
        return str(self.job()["state"])

    def post(self, verb: str) -> httpx.Response:
        """Pause, resume or cancel it."""
        return self.stack.post(f"/api/v1/jobs/{self.id}/{verb}")

    def until(self, *states: str, seconds: float = SECONDS) -> dict[str, Any]:
        """Wait for one of these states; another end is a failure at once."""

        def look() -> dict[str, Any] | None:
            job = self.job()
            is_over = job["state"] in TERMINAL and job["state"] not in states
            assert not is_over, f"{job['state']}: {job['failure']}\n{self.history()}\n{self.logs()}"
            return job if job["state"] in states else None

        found = until(look, seconds, f"{states} of {self.id}")
        assert found is not None
        return found

    def until_step(self, step: int) -> None:
        """Wait until the trainer has written a step into its journal."""
        until(lambda: self.last_step() >= step, SECONDS, f"step {step}: {self.state()}")

    def until_step_or_end(self, step: int) -> None:
        """The same, for a job that may have trained all steps by then."""
        until(lambda: self.last_step() >= step or self.state() in TERMINAL, SECONDS, f"step {step}")

    def end(self, state: str = "succeeded") -> dict[str, Any]:
        """Wait for its end."""
        return self.until(state)

    def history(self) -> list[dict[str, Any]]:
        """What happened to it."""
        return list(self.stack.get(f"/api/v1/jobs/{self.id}/history").json()["data"])

    def reasons(self) -> list[str]:
        """Why it moved, each time."""
        return [entry["reason"] for entry in self.history()]

    def attempts(self) -> list[dict[str, Any]]:
        """Its attempts, as stored."""
        return self.stack.rows("SELECT * FROM attempt WHERE job_id = %s ORDER BY fence", self.id)

    def checkpoints(self) -> list[dict[str, Any]]:
        """Its checkpoints, as stored."""
        return self.stack.rows("SELECT * FROM checkpoint WHERE job_id = %s ORDER BY step, fence", self.id)

    # ---- processes --------------------------------------------------------------------------------------------------

    def supervisor(self) -> psutil.Process | None:
        """Its supervisor, if it has one."""
        notes = (note.name for note in self.stack.home.glob(f"**/supervisors/{self.id}.*.pid"))
        pids = {int(name.split(".")[1]) for name in notes}
        return next((process for process in children_of(self.stack.home) if process.pid in pids), None)

    def gang(self) -> list[psutil.Process]:
        """Every process that writes into its log: the gang's parent and its ranks."""
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if os.readlink(f"/proc/{process.pid}/fd/1") == str(self.dir.log_path) and (
                    process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def ranks(self) -> list[psutil.Process]:
        """The processes that train."""
        gang = self.gang()
        pids = {process.pid for process in gang}
        return [process for process in gang if process.ppid() in pids]

    def trainer(self) -> psutil.Process:
        """A process that trains, as soon as there is one."""
        return until(self.ranks, 30, "a training process")[0]

    def kill9(self, role: str) -> None:
        """SIGKILL one of its processes, or a part of the installation."""
        if role == "trainer":
            for process in self.ranks()[:1]:
                process.kill()
        elif role == "supervisor":
            found = self.supervisor()
            if found is not None:
                found.kill()
        else:
            self.stack.kill9(role)

    def signal_ranks(self, number: signal.Signals) -> None:
        """Signal every training process."""
        for process in self.ranks():
            with suppress(psutil.Error):
                process.send_signal(number)

    # ---- files ------------------------------------------------------------------------------------------------------

    def fence(self) -> int:
        """The number of the newest attempt that has a directory."""
        return max((int(path.name) for path in self.dir.path.glob("attempts/*")), default=0)

    def last_step(self) -> int:
        """The last step in the journal of the newest attempt: known also while the database is away."""
        path = self.dir.events_path(self.fence())
        if not path.exists():
            return 0
        for line in reversed(path.read_bytes()[-4096:].split(b"\n")):
            if b'"points"' in line and line.endswith(b"}") and line.startswith(b"{"):
                return int(json.loads(line)["step"])
        return 0

    def saving(self) -> Path | None:
        """A checkpoint that is being written right now."""
        for directory in self.dir.path.glob("attempts/*/step-*"):
            if not (directory / MANIFEST).exists() and directory.exists():
                return directory
        return None

    def weights(self) -> str:
        """SHA-256 of the last weights."""
        newest = [row for row in self.checkpoints() if row["state"] == "ready"][-1]
        assert newest["step"] == self.spec["max_steps"], newest["step"]
        return weights_of(self.stack.data / newest["path"])

    def logs(self) -> str:
        """What its supervisors and trainers said."""
        paths = (self.dir.path / "supervisor.log", self.dir.log_path)
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in paths if path.exists())


def weights_of(checkpoint: Path) -> str:
    """SHA-256 of the weights of a checkpoint."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def repeated_steps(attempts: Sequence[dict[str, Any]]) -> int:
    """The most steps that any attempt trained again."""
    steps = (before["reached_step"] - (after["resume_step"] or 0) for before, after in pairwise(attempts))
    return max(steps, default=0)
