"""Why a job waits, in words. Stored in `Job.wait_reason` as a code and the values of its sentence."""

import json
from math import ceil
from typing import Any

from app.core import db
from app.core.i18n import Plural, _, gettext_noop
from app.core.models import Job

WAITS: dict[str, str | Plural] = {
    "unplaced": gettext_noop("Waiting for the scheduler."),
    "no_node": gettext_noop("Number {position} in the queue: no worker is running."),
    "silent": gettext_noop("Number {position} in the queue: the nodes that can run it are not responding."),
    "draining": gettext_noop("Number {position} in the queue: the nodes that can run it take no new jobs."),
    "too_large": Plural(
        "Needs {needed} GPU on one node; the largest node, {node}, has {largest}.",
        "Needs {needed} GPUs on one node; the largest node, {node}, has {largest}.",
        "needed",
    ),
    "own_limit": Plural(
        "You may run {limit} job at once. This is number {position} of your waiting jobs.",
        "You may run {limit} jobs at once. This is number {position} of your waiting jobs.",
        "limit",
    ),
    "next_gpu": gettext_noop("Next in the queue. GPUs in use: {busy} of {total}; needed on one node: {needed}."),
    "no_gpu": gettext_noop(
        "Number {position} in the queue. GPUs in use: {busy} of {total}; needed on one node: {needed}."
    ),
    "next_slot": gettext_noop("Next in the queue. Slots in use: {busy} of {total}."),
    "no_slot": gettext_noop("Number {position} in the queue. Slots in use: {busy} of {total}."),
    "reserved": gettext_noop("Number {position} in the queue: free capacity is reserved for a larger job ahead."),
    "gpu_quota": gettext_noop(
        "Your quota of GPU hours within 30 days is used up: {hours}. The job starts as earlier hours leave the 30 days."
    ),
    "disk_full": gettext_noop("The disk of the data directory is full. The job starts once there is room."),
    "placed": gettext_noop("Starting on the node {node}."),
    "back_off": gettext_noop("The last attempt was lost; the next one starts in {seconds} s."),
    "paused_early": gettext_noop("Paused before its first step, until it is resumed."),
    "paused": gettext_noop("Paused at step {step} of {total} until it is resumed."),
}


IN_LINE = ("next_gpu", "no_gpu", "next_slot", "no_slot", "reserved")


def encoded(code: str, **values: Any) -> str:
    """How a reason is stored."""
    assert code in WAITS, code
    return json.dumps([code, values], ensure_ascii=False, sort_keys=True)


def _stored(job: Job) -> tuple[str, dict[str, Any]]:
    """The code of a job's reason and the values of its sentence."""
    code, values = json.loads(job.wait_reason) if job.wait_reason else ("unplaced", {})
    return code, values


def is_in_line(job: Job) -> bool:
    """Whether a job waits for others on its nodes, and for nothing else."""
    return _stored(job)[0] in IN_LINE


def describe(job: Job) -> dict[str, Any] | None:
    """Why a job does not run, for people: code, sentence in the reader's language, place in line, instant it ends."""
    if job.state not in ("queued", "recovering", "paused"):
        return None
    code, values = _stored(job)
    if job.state == "paused":
        code, values = "paused", {"step": job.step, "total": job.max_steps}
    until = job.not_before if code == "back_off" else job.expected_start_at if code in IN_LINE else None
    if code == "back_off":
        seconds = (until - db.now()).total_seconds() if until is not None else 0
        values = {"seconds": max(0, ceil(seconds))}
    text = WAITS["paused_early" if code == "paused" and job.max_steps is None else code]
    message = _(text, **values)
    return {"code": code, "message": message, "position": values.get("position"), "until": until}
