"""The health page: the state of each part of Athanor, what to do if one fails, and the constants of scheduling."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from app.core import db, disk, live, migrations
from app.core.formatting import file_size, number
from app.core.i18n import _, gettext_noop, ngettext, translate
from app.core.installation_models import Heartbeat
from app.core.models import Node
from app.core.principal import Principal
from app.core.settings import Settings, settings
from app.jobs.attempts import attempts
from app.jobs.cluster import nodes
from app.jobs.forwarding import service as forwarding
from app.jobs.forwarding import tracker_errors, trackers
from app.jobs.forwarding.trackers import Tracker
from app.jobs.lifecycle import recovery_policy
from app.jobs.scheduling import cached_data, dispatch
from app.web.auth import EveryonesManager, Reader
from app.web.pages import page

router = APIRouter()

SILENT_ROUNDS = 3  # the scheduler counts as gone after so many rounds without a report
DISPLAYED_SETTINGS = tuple(
    name
    for name, field in Settings.model_fields.items()
    if field.annotation in (int, float) and name not in ("port", "smtp_port", "max_upload_bytes")
)
FIXED = {
    gettext_noop("Consecutive attempts without a newer checkpoint before a job fails"): dispatch.MAX_ATTEMPTS,
    gettext_noop("Consecutive failed saves before a job pauses"): attempts.MAX_SAVE_FAILURES,
    gettext_noop("Consecutive steps that a job may skip"): recovery_policy.MAX_SKIPS_IN_A_ROW,
    gettext_noop(
        "Seconds that a job waits for a silent node with GPUs before a node without GPUs may take it"
    ): nodes.KNOWN_SECONDS,
}


Kind = Literal["database", "broker", "scheduler", "node", "disk", "cache", "tracker"]
State = Literal["good", "wait", "bad"]


@dataclass(frozen=True)
class Part:
    """The state of one part of Athanor, with a sentence that describes it and what to do if it is not good."""

    kind: Kind
    name: str
    state: State
    description: str
    at: datetime | None = None  # its last report
    remedy: str | None = None
    unneeded_bytes: int = 0  # that can be freed at once


@router.post("/health/delete-unneeded-cache")
def delete_unneeded_cache(principal: EveryonesManager) -> Response:
    """Delete what the cache has that no unfinished job or task needs, and go back to the page."""
    cached_data.delete_unneeded()
    return RedirectResponse("/health", status_code=303)


@router.get("/health")
def show_health(request: Request, principal: Reader) -> Response:
    """The state of each part, and the constants that decide when jobs are retried, paused or failed."""
    return page(
        request,
        "nodes/health.html",
        principal=principal,
        parts=list_parts(principal),
        may_free=principal.is_at_least("admin"),
        constants=[(_variable(name), translate(_description(name)), _formatted(name)) for name in DISPLAYED_SETTINGS],
        fixed=[(translate(text), number(value)) for text, value in FIXED.items()],
    )


def list_parts(principal: Principal) -> list[Part]:
    """The state of each part, as far as a user may see it."""
    with db.transaction() as session:
        now = db.now()
        parts = [_database(), _broker(), _scheduler(session, now), *_nodes(nodes.list_nodes(session), now)]
        trackers = _trackers(session, sees_errors=principal.is_at_least("admin"))
    return [*parts, _disk(), _cache(), *trackers]  # after the transaction: looking at the cache takes long


def _database() -> Part:
    if migrations.present() == migrations.newest():
        return Part("database", _("Database"), "good", _("PostgreSQL responds, and its schema is up to date."))
    description = _("PostgreSQL responds, but its schema is of another version.")
    return Part("database", _("Database"), "bad", description, remedy=_("Run athanor migrate, then restart Athanor."))


def _broker() -> Part:
    if live.is_reachable():
        return Part("broker", _("Broker"), "good", _("Valkey responds."))
    return Part(
        "broker",
        _("Broker"),
        "wait",
        _("Valkey does not respond: jobs start a little later, live views lag, and text cannot be generated."),
        remedy=_("Restart Valkey, or set REDIS_URL to one that runs. Nothing is lost in the meantime."),
    )


def _scheduler(session: Session, now: datetime) -> Part:
    beat = session.get(Heartbeat, "scheduler")
    remedy = _("Start athanor scheduler (athanor up does). Running jobs continue; queued jobs wait.")
    if beat is None:
        return Part("scheduler", _("Scheduler"), "bad", _("It has never reported."), remedy=remedy)
    if (now - beat.at).total_seconds() > SILENT_ROUNDS * settings().scheduler_seconds + 1:
        description = _("It stopped reporting: no job is started or recovered.")
        return Part("scheduler", _("Scheduler"), "bad", description, beat.at, remedy)
    return Part("scheduler", _("Scheduler"), "good", _("It starts jobs and recovers lost attempts."), beat.at)


def _nodes(machines: Sequence[Node], now: datetime) -> list[Part]:
    if not machines:
        remedy = _("Run athanor worker on a machine that reaches the database, Valkey and the data directory.")
        return [Part("node", _("Nodes"), "bad", _("No worker reports: no job can run."), remedy=remedy)]
    return [_node(node, now) for node in machines]


def _node(node: Node, now: datetime) -> Part:
    name = _("Node {name}", name=node.name)
    if nodes.is_live(node, now):
        return Part("node", name, "good", _("Its worker is reporting."), node.last_seen_at)
    remedy = _(
        "Start athanor worker there. If only the worker ended, its jobs keep training; if the machine is gone, they "
        "resume from their newest checkpoints as soon as a node has free slots."
    )
    return Part("node", name, "wait", _("Its worker has stopped reporting."), node.last_seen_at, remedy)


def _disk() -> Part:
    total = shutil.disk_usage(settings().data).total
    description = _("{free} of {total} are free.", free=file_size(disk.free_bytes()), total=file_size(total))
    if not disk.is_full():
        return Part("disk", _("Data directory"), "good", description)
    description = _("{sentence} Uploads, imports, exports and new jobs are refused.", sentence=description)
    remedy = _(
        "Free some space: delete corpora, models or exports that are no longer needed, or enlarge the disk. "
        "{reserve} must be free. Running jobs whose saves fail three times in a row pause.",
        reserve=file_size(disk.kept_free()),
    )
    return Part("disk", _("Data directory"), "bad", description, remedy=remedy)


def _cache() -> Part:
    """The cache of tokens: it is shared by all users, so it counts in nobody's quota."""
    usage = cached_data.recent_usage()
    description = _(
        "Tokens and vocabularies that jobs share take {size}. Jobs and tasks that wait or run need {needed} of them; "
        "the rest is deleted when it has not been used for 30 days, or for a day on a disk that is almost full.",
        size=file_size(usage.num_bytes),
        needed=file_size(usage.num_bytes - usage.num_unneeded_bytes),
    )
    return Part("cache", _("Cache"), "good", description, unneeded_bytes=usage.num_unneeded_bytes)


def _trackers(session: Session, *, sees_errors: bool) -> list[Part]:
    health = forwarding.health(session)
    idle = forwarding.TrackerHealth()
    return [_tracker(tracker, health.get(tracker.name, idle), sees_errors) for tracker in trackers.configured()]


def _tracker(tracker: Tracker, health: forwarding.TrackerHealth, sees_errors: bool) -> Part:
    """An error may name another's job, or a path: only administrators see it."""
    name = _("Experiment tracker {name}", name=tracker.title)
    if not tracker.is_installed:
        remedy = _(
            "Run pip install '.[{extra}]' where Athanor is installed, then restart it. "
            "Jobs are forwarded from their start then.",
            extra=tracker.name,
        )
        return Part("tracker", name, "wait", _("It is configured, but its package is not installed."), remedy=remedy)
    if not health.num_failing:
        description = ngettext(
            "{n} job is being forwarded to {target}.",
            "{n} jobs are being forwarded to {target}.",
            health.num_open,
            target=tracker.target,
        )
        return Part("tracker", name, "good", description)
    description = ngettext(
        "{n} job could not be forwarded to {target}.",
        "{n} jobs could not be forwarded to {target}.",
        health.num_failing,
        target=tracker.target,
    )
    if sees_errors and health.error is not None:
        error = tracker_errors.explain(health.error)
        description = _("{sentence} The newest error: {error}", sentence=description, error=error)
    remedy = _("Training goes on. Nothing is lost: everything is sent again until the tracker takes it.")
    return Part("tracker", name, "wait", description, remedy=remedy)


def _variable(name: str) -> str:
    return f"ATHANOR_{name.upper()}"


def _description(name: str) -> str:
    return str(Settings.model_fields[name].description)


def _formatted(name: str) -> str:
    value: Any = getattr(settings(), name)
    if name.endswith("_bytes") and value:
        return file_size(value)
    return f"{number(value)} s" if name.endswith("_seconds") else number(value)
