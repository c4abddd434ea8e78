"""The soak: users, and at random a fault and an attack every 20 s each, while memory is measured."""

import math
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from app.core.models import TERMINAL
from tests.attack.measuring import resident
from tests.attack.rows import ATTACKS
from tests.attack.soak_users import Users
from tests.attack.target import Target
from tests.faults.runs import Run
from tests.faults.stack import PROGRAMS, SERVERS, Installation
from tests.waiting import until

EACH_SECONDS = 20
MEMORY_SECONDS = 2
WARM_UP = 0.25  # of the time; then web and worker are no longer killed, so that their memory can be compared
MEASURED_FROM = 0.5  # of the time: by then the allocators keep what the largest attacks took, which is no leak
HALT_SECONDS = 2
END_SECONDS = 300
WATCHED = ("web", "worker")

Fault = Callable[[Installation, random.Random, list[Run]], None]


@dataclass
class Record:
    """What happened in a soak."""

    seed: int
    minutes: float
    faults: Counter[str] = field(default_factory=Counter)
    attacks: Counter[str] = field(default_factory=Counter)
    attack_errors: list[str] = field(default_factory=list)
    fault_errors: list[str] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)  # of programs that no fault had killed
    memory: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # seconds since the begin, bytes

    def medians(self, role: str) -> tuple[float, float]:
        """The median memory in bytes of a program, in the first and in the last quarter of the measured time."""
        begin = self.minutes * 60 * MEASURED_FROM
        values = [size for seconds, size in self.memory.get(role, []) if seconds >= begin and size]
        quarter = len(values) // 4
        assert quarter, f"the memory of {role} was not measured"
        return statistics.median(values[:quarter]), statistics.median(values[-quarter:])


# ---- faults ---------------------------------------------------------------------------------------------------------


def kill(role: str) -> Fault:
    """A fault: SIGKILL a process, and restart it after a moment."""

    def run(installation: Installation, chance: random.Random, runs: list[Run]) -> None:
        installation.kill9(role)
        time.sleep(chance.uniform(0, HALT_SECONDS))
        installation.restart(role)

    return run


def kill_of_job(role: str) -> Fault:
    """A fault: SIGKILL a process of a job that is not over."""

    def run(installation: Installation, chance: random.Random, runs: list[Run]) -> None:
        if runs:
            runs[-1].kill9(role)

    return run


def suspend(role: str) -> Fault:
    """A fault: suspend a program for a moment."""

    def run(installation: Installation, chance: random.Random, runs: list[Run]) -> None:
        installation.suspend(role)
        time.sleep(HALT_SECONDS)
        installation.resume(role)

    return run


def cut_off(installation: Installation, chance: random.Random, runs: list[Run]) -> None:
    """A fault: cut the worker off from the database for a moment."""
    installation.proxy.cut(chance.choice(["silent", "reset"]))
    time.sleep(HALT_SECONDS)
    installation.proxy.heal()


def flush(installation: Installation, chance: random.Random, runs: list[Run]) -> None:
    """A fault: empty Valkey."""
    installation.flushall()


def faults(is_warm: bool) -> dict[str, Fault]:
    """The faults by name."""
    mortal = [role for role in (*PROGRAMS, *SERVERS) if not (is_warm and role in WATCHED)]
    kills = {f"kill {role}": kill(role) for role in mortal}
    jobs = {f"kill {role}": kill_of_job(role) for role in ("trainer", "supervisor")}
    return {
        **kills,
        **jobs,
        **{f"suspend {role}": suspend(role) for role in PROGRAMS},
        "cut off": cut_off,
        "flush": flush,
    }


# ---- the soak -------------------------------------------------------------------------------------------------------


class Soak:
    """Runs for some minutes; then everything is restored, and all jobs end."""

    def __init__(self, target: Target, users: Users, record: Record) -> None:
        self.target, self.installation, self.users, self.record = target, target.installation, users, record
        self.chance = random.Random(record.seed)
        self.is_over = threading.Event()
        self.begin = time.monotonic()
        self.end = self.begin + 60 * record.minutes

    def run(self) -> None:
        """Run all of it."""
        threads = [threading.Thread(target=loop, daemon=True) for loop in (self.attack_forever, self.watch_memory)]
        self.users.start()
        for thread in threads:
            thread.start()
        while time.monotonic() < self.end:
            self.inject()
            time.sleep(max(0.0, min(EACH_SECONDS, self.end - time.monotonic())))
        self.is_over.set()
        self.restore()
        self.users.stop()
        for thread in threads:
            thread.join()
        self.end_jobs()

    def seconds(self) -> float:
        """The time since the begin."""
        return time.monotonic() - self.begin

    def inject(self) -> None:
        """Inject one fault."""
        choices = faults(is_warm=self.seconds() > WARM_UP * 60 * self.record.minutes)
        name = self.chance.choice(sorted(choices))
        for role in self.target.dead_programs():  # restarted as by `athanor up`
            self.record.deaths[role] += 1
            self.installation.restart(role)
        open_runs = [run for run in list(self.users.runs.values())[-3:] if run.state() not in TERMINAL]
        self.record.faults[name] += 1
        try:
            choices[name](self.installation, self.chance, open_runs)
        except Exception as error:
            self.record.fault_errors.append(f"{name}: {error!r}"[:200])
            self.restore()

    def attack_forever(self) -> None:
        """Run one attack after the other: one begins every EACH_SECONDS, or when the one before has ended.

        Each ends after the time that it has in `make attack`, and at the end of the soak.
        """
        chance = random.Random(self.record.seed + 1)
        choices = [one for one in ATTACKS if one.in_soak]
        while not self.is_over.is_set():
            one, begin = chance.choice(choices), time.monotonic()
            self.record.attacks[one.row] += 1
            self.target.begin()
            self.target.deadline = min(begin + one.seconds, self.end)
            try:
                one.run(self.target)
            except httpx.TransportError:
                self.record.attacks["cut short by a fault"] += 1
            except TimeoutError:
                self.record.attacks["cut short by time"] += 1
            except Exception as error:
                self.record.attack_errors.append(f"{one.row}: {error!r}"[:200])
            self.target.deadline = math.inf
            with suppress(Exception):
                self.target.clean_up()
            self.is_over.wait(max(1.0, EACH_SECONDS - (time.monotonic() - begin)))

    def watch_memory(self) -> None:
        """Note the memory of web and worker."""
        while not self.is_over.wait(MEMORY_SECONDS):
            for role in WATCHED:
                process = self.installation.programs[role].process
                size = resident(process.pid) if process else 0
                self.record.memory.setdefault(role, []).append((self.seconds(), size))

    def restore(self) -> None:
        """Undo all faults, without ending the jobs."""
        self.installation.proxy.heal()
        for role in SERVERS:
            self.installation.restart(role)
        for role in PROGRAMS:
            self.installation.resume(role)
            self.installation.restart(role)

    def end_jobs(self) -> None:
        """Wait for the end of all jobs."""
        for run in self.users.runs.values():
            until(lambda run=run: run.state() in TERMINAL, END_SECONDS, f"the end of {run.id}")  # type: ignore[misc]
