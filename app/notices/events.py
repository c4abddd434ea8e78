"""What users are notified of, and the sentences of a notice in the reader's language."""

from dataclasses import dataclass
from typing import Any

from app.core.formatting import file_size, number
from app.core.i18n import gettext_noop, locale, translate


@dataclass(frozen=True)
class EventText:
    """The name of an event, and title and text of its notices, with {placeholders}."""

    label: str
    title: str
    text: str


EVENTS = {
    "job_finished": EventText(
        gettext_noop("A job has finished"),
        gettext_noop("“{name}” has finished"),
        gettext_noop("All steps are done: {steps}."),
    ),
    "job_failed": EventText(
        gettext_noop("A job has failed"),
        gettext_noop("“{name}” has failed"),
        "{reason}",
    ),
    "job_stalled": EventText(
        gettext_noop("A job makes no progress"),
        gettext_noop("“{name}” makes no progress"),
        "{reason}",
    ),
    "quota_low": EventText(
        gettext_noop("A quota of yours is almost or all used"),
        gettext_noop("{percent} % of a quota of yours is used"),
        "{reason}",
    ),
    "disk_low": EventText(
        gettext_noop("The disk is almost full"),
        gettext_noop("The disk is almost full"),
        gettext_noop(
            "{free} are free on the disk of the data directory. With less than {reserve}, uploads, imports, exports "
            "and new jobs are refused."
        ),
    ),
}
OWNER_EVENTS = ("disk_low",)  # which concern the installation
_SIZES = ("free", "reserve")


@dataclass(frozen=True)
class NoticeText:
    """Title and text of a notice."""

    title: str
    text: str


def describe(event: str, values: dict[str, Any]) -> NoticeText:
    """The sentences of a notice. A value that is an object has one text for each language."""
    formatted = {name: _formatted(name, value) for name, value in values.items()}
    event_text = EVENTS[event]
    return NoticeText(
        translate(event_text.title).format_map(formatted), translate(event_text.text).format_map(formatted)
    )


def _formatted(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get(locale(), ""))
    if isinstance(value, int):
        return file_size(value) if name in _SIZES else number(value)
    return str(value)
