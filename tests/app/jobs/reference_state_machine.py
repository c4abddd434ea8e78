"""What a job's life should be, in few lines: the reference that the verbs are held against in test_life.py."""

from dataclasses import dataclass, field

HELD = ("starting", "running", "pausing", "cancelling")
ENDED = ("succeeded", "failed", "cancelled")
FREE = ("shutdown", "supervisor_lost", "gpu_busy")
AT_ONCE = ("shutdown", "wish_changed", "oom_gpu_retry")


@dataclass
class Life:
    """One job. Each verb answers what the real one should; `None` and `False` say that nothing was to be done."""

    state: str = "queued"
    desired: str = "run"
    fence: int = 0
    no_progress: int = 0
    step: int = 0
    micro_batch: int = 16
    failed_saves: int = 0
    is_disk_full: bool = False
    is_placed: bool = False
    is_backing_off: bool = False
    has_begun: bool = False  # its supervisor has chosen the resume point
    points: dict[int, int] = field(default_factory=dict)  # live: step to fence
    saved: dict[tuple[int, int], bool] = field(default_factory=dict)  # step and fence to whether it is intact

    # ---- people and scheduler ----

    def request(self, desired: str) -> bool:
        if self.state in ENDED or (self.desired == "cancel" != desired):
            return desired == "cancel" and self.state == "cancelled"
        self.desired = desired
        if desired == "cancel" and self.state not in HELD:
            self.state = "cancelled"
        elif desired == "pause" and self.state == "queued":
            self.state, self.is_placed = "paused", False
        elif desired == "run" and self.state == "paused":
            self.state, self.no_progress, self.failed_saves, self.is_disk_full = "queued", 0, 0, False
        return True

    def place(self) -> None:
        self.is_placed = self.is_placed or (self.state, self.desired) == ("queued", "run")

    def settle(self) -> bool:
        if self.state != "recovering" or (self.desired == "run" and self.is_backing_off and self.no_progress < 3):
            return False
        ends = {"cancel": "cancelled", "pause": "paused", "run": "failed" if self.no_progress >= 3 else "queued"}
        self.state, self.is_backing_off = ends[self.desired], False
        return True

    # ---- the attempt ----

    def claim(self) -> int | None:
        if (self.state, self.desired, self.is_placed) != ("queued", "run", True):
            return None
        self.state, self.fence, self.has_begun = "starting", self.fence + 1, False
        return self.fence

    def resume_at(self, step: int) -> None:
        self.step, self.has_begun = step, True
        self.points = {at: fence for at, fence in self.points.items() if at <= step}

    def train(self, steps: int) -> None:
        self.points |= {self.step + n: self.fence for n in range(1, steps + 1)}
        self.step += steps
        if self.state == "starting":
            self.state = "running"

    def save(self) -> None:
        if self.step > max((step for (step, _fence), is_whole in self.saved.items() if is_whole), default=-1):
            self.no_progress = 0
        self.saved.setdefault((self.step, self.fence), True)
        if not self.is_disk_full:
            self.failed_saves = 0

    def fail_save(self) -> None:
        self.failed_saves += 1
        self.is_disk_full = self.failed_saves >= 3
        if self.is_disk_full and self.desired == "run":
            self.desired = "pause"

    def begin_stop(self, state: str) -> None:
        self.state = "cancelling" if self.state == "cancelling" else state

    def finish(self) -> None:
        if not self._stopped():
            self.state = "succeeded"

    def fail(self, code: str) -> None:
        if self._stopped():
            return
        if code == "oom_gpu" and self.micro_batch > 1:
            self.micro_batch //= 2
            self.lose("oom_gpu_retry")
        else:
            self.state = "failed"

    def release(self, reason: str) -> None:
        if not self._stopped():
            self.lose(reason)

    def lose(self, reason: str) -> None:
        self.no_progress += reason not in (*FREE, *AT_ONCE)
        self.is_backing_off, self.is_placed, self.state = reason not in AT_ONCE, False, "recovering"

    def _stopped(self) -> bool:
        if self.state == "cancelling":
            self.state = "cancelled"
        elif self.state == "pausing" and self.desired == "pause":
            self.state, self.is_placed = "paused", False
        elif self.state == "pausing":
            self.lose("wish_changed")
        else:
            return False
        return True
