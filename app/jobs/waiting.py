"""Why a queued job waits, in words. Stored in `Job.wait_reason` as a code and the values of its sentence."""

import json
from typing import Any

from app.i18n import mark, translate

WAITS = {
    "unplaced": mark("Waiting for the scheduler."),
    "no_node": mark("Waiting for a node: no worker is running."),
    "too_large": mark("Needs {needed} GPUs on one node; the largest node has {largest}."),
    "no_room": mark("Waiting for a free slot; {ahead} jobs are ahead."),
    "next": mark("Waiting for a free slot; this job is next."),
    "placed": mark("The node {node} is starting it."),
    "back_off": mark("The last attempt was lost; the next one starts in a moment."),
}


def encoded(code: str, **values: Any) -> str:
    """How a reason is stored."""
    assert code in WAITS, code
    return json.dumps([code, values], ensure_ascii=False, sort_keys=True)


def describe(stored: str | None) -> dict[str, str]:
    """A stored reason for people: its code and its sentence in the reader's language."""
    code, values = json.loads(stored) if stored else ("unplaced", {})
    return {"code": code, "message": translate(WAITS[code]).format(**values)}
