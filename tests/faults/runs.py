"""A job of an installation under test: its state, its processes and its files."""

import hashlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.core.models import TERMINAL
from tests.faults.stack import Installation, children_of
from tests.waiting import until
from trainer.run_dir import MANIFEST, RunDir

STEPS, SAVE_STEPS = 120, 20
TEXT = "".join(f"{n} sheep went up the hill, and {n * 7 % 1013} came down again in the rain.\n" for n in range(3_000))
LONG = 800  # so many steps take longer than a lease
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

    def __init__(self, stack: Installation, corpus: str, **fields: Any) -> None:
        self.stack = stack
        self.spec = {**SPEC, "corpora": [corpus], **fields}
        answer = stack.post("/api/v1/jobs", json=self.spec)
        assert answer.status_code == 201, answer.text
        self._name(str(answer.json()["id"]))

    def _name(self, job_id: str) -> None:
        self.id = job_id
        self.dir = RunDir(self.stack.data / "runs" / job_id)

    @classmethod
    def of_job(cls, stack: Installation, job: dict[str, Any]) -> "Run":
        """The run of a job that exists already, given as the API returns it."""
        run = cls.__new__(cls)
        run.stack = stack
        run.spec = job["spec"]
        run._name(job["id"])
        return run

    # ---- API and database -------------------------------------------------------------------------------------------

    def job(self) -> dict[str, Any]:
        """The job as the API returns it; with the state "unknown" while web or database are down."""
        with suppress(httpx.HTTPError):
            response = self.stack.get(f"/api/v1/jobs/{self.id}")
            if response.status_code == 200:
                job: dict[str, Any] = response.json()
                return job
        return {"state": "unknown", "step": -1, "progress": {}}

    def state(self) -> str:
        """The state of the job."""
        return str(self.job()["state"])

    def post(self, verb: str) -> httpx.Response:
        """POST an action: pause, resume or cancel."""
        return self.stack.post(f"/api/v1/jobs/{self.id}/{verb}")

    def until(self, *states: str, seconds: float = SECONDS) -> dict[str, Any]:
        """Wait for one of these states and return the job. Fails at once if the job ends in another state."""

        def in_state() -> dict[str, Any] | None:
            job = self.job()
            is_over = job["state"] in TERMINAL and job["state"] not in states
            assert not is_over, f"{job['state']}: {job['failure']}\n{self.history()}\n{self.logs(end=4000)}"
            return job if job["state"] in states else None

        job = until(in_state, seconds, f"{states} of {self.id}")
        assert job is not None
        return job

    def until_step(self, step: int) -> None:
        """Wait until the trainer has written a step into its journal."""
        until(lambda: self.last_step() >= step, SECONDS, f"step {step}: {self.state()}")

    def until_step_or_end(self, step: int) -> None:
        """Wait until the trainer has written a step into its journal, or the job has ended."""
        until(lambda: self.last_step() >= step or self.state() in TERMINAL, SECONDS, f"step {step}")

    def end(self, state: str = "succeeded") -> dict[str, Any]:
        """Wait for the end of the job, which must be in this state, and return the job."""
        return self.until(state)

    def history(self) -> list[dict[str, Any]]:
        """The history of the job as the API returns it."""
        return list(self.stack.get(f"/api/v1/jobs/{self.id}/history").json()["data"])

    def message(self, reason: str) -> str:
        """The sentence of the first entry of the history with this reason."""
        return str(next(entry["message"] for entry in self.history() if entry["reason"] == reason))

    def reasons(self) -> list[str]:
        """The reason of each entry of the history."""
        return [entry["reason"] for entry in self.history()]

    def column(self, name: str) -> Any:
        """A column of its row in the database."""
        return self.stack.rows(f"SELECT {name} FROM job WHERE id = %s", self.id)[0][name]

    def attempts(self) -> list[dict[str, Any]]:
        """The rows of its attempts in the database."""
        return self.stack.rows("SELECT * FROM attempt WHERE job_id = %s ORDER BY fence", self.id)

    def checkpoints(self) -> list[dict[str, Any]]:
        """The rows of its checkpoints in the database."""
        return self.stack.rows("SELECT * FROM checkpoint WHERE job_id = %s ORDER BY step, fence", self.id)

    # ---- processes --------------------------------------------------------------------------------------------------

    def supervisor(self) -> psutil.Process | None:
        """The running supervisor of the job, or None."""
        pid_files = self.stack.home.glob(f"**/supervisors/{self.id}.*.pid")
        pids = {int(path.name.split(".")[1]) for path in pid_files}
        return next((process for process in children_of(self.stack.home) if process.pid in pids), None)

    def gang(self) -> list[psutil.Process]:
        """All processes that write to the job's log: the gang's parent and its ranks."""
        processes = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if os.readlink(f"/proc/{process.pid}/fd/1") == str(self.dir.log_path) and (
                    process.status() != psutil.STATUS_ZOMBIE
                ):
                    processes.append(process)
        return processes

    def ranks(self) -> list[psutil.Process]:
        """The training processes: those whose parent is in the gang."""
        gang = self.gang()
        pids = {process.pid for process in gang}
        return [process for process in gang if process.ppid() in pids]

    def trainer(self) -> psutil.Process:
        """Wait for a training process and return it."""
        return until(self.ranks, 30, "a training process")[0]

    def kill9(self, role: str) -> None:
        """SIGKILL a rank or the supervisor of the job, or a process of the installation."""
        if role == "trainer":
            for process in self.ranks()[:1]:
                process.kill()
        elif role == "supervisor":
            supervisor = self.supervisor()
            if supervisor is not None:
                supervisor.kill()
        else:
            self.stack.kill9(role)

    def signal_ranks(self, number: signal.Signals) -> None:
        """Send a signal to all ranks."""
        for process in self.ranks():
            with suppress(psutil.Error):
                process.send_signal(number)

    # ---- files ------------------------------------------------------------------------------------------------------

    def fence(self) -> int:
        """The fencing number of the newest attempt that has a directory."""
        return max((int(path.name) for path in self.dir.path.glob("attempts/*")), default=0)

    def last_step(self) -> int:
        """The last step in the journal of the newest attempt. It does not need the database."""
        path = self.dir.events_path(self.fence())
        if not path.exists():
            return 0
        for line in reversed(path.read_bytes()[-4096:].split(b"\n")):
            if b'"points"' in line and line.endswith(b"}") and line.startswith(b"{"):
                return int(json.loads(line)["step"])
        return 0

    def saving(self) -> Path | None:
        """The directory of a checkpoint that is being written, or None."""
        for directory in self.dir.path.glob("attempts/*/step-*"):
            if not (directory / MANIFEST).exists() and directory.exists():
                return directory
        return None

    def weights(self) -> str:
        """The SHA-256 of the weights after the last step."""
        newest = [row for row in self.checkpoints() if row["state"] == "ready"][-1]
        assert newest["step"] == self.spec["max_steps"], newest["step"]
        return weights_of(self.stack.data / newest["path"])

    def logs(self, end: int = 0) -> str:
        """The logs of its supervisors and trainers: all, or the last characters of each."""
        paths = (self.dir.path / "supervisor.log", self.dir.log_path)
        return "\n".join(path.read_text(errors="replace")[-end:] for path in paths if path.exists())


Submit = Callable[..., Run]  # submits a job; keyword arguments replace fields of its spec
Golden = Callable[..., str]  # the hash of the weights of an undisturbed run


def upload(stack: Installation, content: bytes) -> str:
    """Upload a text and wait until it has been parsed; returns the ID of the corpus."""
    answer = stack.post("/api/v1/corpora", params={"filename": "sheep.txt", "name": "Sheep"}, content=content)
    corpus_id = str(answer.raise_for_status().json()["id"])
    until(lambda: stack.get(f"/api/v1/corpora/{corpus_id}").json()["state"] == "ready", 60, "a parsed corpus")
    return corpus_id


def weights_of(checkpoint: Path) -> str:
    """The SHA-256 of the weights of a checkpoint."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def repeated_steps(attempts: Sequence[dict[str, Any]]) -> int:
    """The largest number of steps that an attempt repeated."""
    steps = (before["reached_step"] - (after["resume_step"] or 0) for before, after in pairwise(attempts))
    return max(steps, default=0)
