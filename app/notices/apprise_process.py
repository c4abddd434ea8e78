"""Has a child process send notices by Apprise URLs; app/notices/apprise_child.py says what it may do."""

import json
import subprocess
import sys
from importlib.util import find_spec

from app.core.settings import ROOT, settings
from app.notices.delivery_errors import DeliveryFailed
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits, limited_command

WAIT_SECONDS = 30.0  # less than a delivery is claimed for
LIMITS = ChildLimits(memory_bytes=1 << 29, cpu_seconds=20, file_bytes=1 << 20, niceness=0)
TYPES = {
    "job_finished": "success",
    "job_failed": "failure",
    "job_stalled": "warning",
    "quota_low": "warning",
    "disk_low": "warning",
}


def is_installed() -> bool:
    """Whether the package apprise is installed, which is optional."""
    return find_spec("apprise") is not None


def check(url: str) -> None:
    """Raise DeliveryFailed for what is no URL of a service, and for a private address."""
    _run({"url": url})


def send(url: str, *, title: str, text: str, event: str | None = None) -> None:
    """Send a notice of an event; None is a test. Raises DeliveryFailed."""
    _run({"url": url, "title": title, "text": text, "type": TYPES.get(event or "", "info")})


def _run(task: dict[str, object]) -> None:
    if not is_installed():
        raise DeliveryFailed("apprise_missing")
    hosts = [name.strip() for name in settings().webhook_hosts.split(",") if name.strip()]
    try:
        child = subprocess.run(
            limited_command(LIMITS, [sys.executable, "-m", "app.notices.apprise_child"]),
            cwd=ROOT,
            env=child_environment("notice"),
            input=json.dumps({**task, "hosts": hosts}),
            capture_output=True,  # what it writes of errors may contain secrets
            text=True,
            timeout=WAIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise DeliveryFailed("service_slow") from None
    error = json.loads(child.stdout.splitlines()[-1])["error"] if child.returncode == 0 else "service_refused"
    if error is not None:
        raise DeliveryFailed(error)
