"""Formats numbers, sizes, times and JSON for pages and messages."""

import json
import re
from typing import Any

from babel.dates import format_datetime, format_timedelta
from pydantic_core import to_json

from app.core import i18n


def number(value: float | None) -> str:
    """A number with separators, such as 1,234,567, in the reader's language; a dash for None."""
    return "–" if value is None else i18n.decimal(value)


def compact(value: float | None) -> str:
    """A count of tokens or parameters in short form, such as 1.2 k, 3.4 M or 6.7 B."""
    if value is None:
        return "–"
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def file_size(value: float | None) -> str:
    """A size in bytes in binary units, such as 1.5 KiB."""
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def instant(value: Any) -> str:
    """A time in UTC; the page's script converts it to local time."""
    return str(format_datetime(value, "yyyy-MM-dd HH:mm:ss", locale=i18n.locale().replace("-", "_"))) if value else "–"


def span(seconds: float | None) -> str:
    """A duration in words in the reader's language, such as 3 minutes or 3 分钟."""
    if seconds is None:
        return "–"
    if i18n.locale() != "zh-CN":
        return str(format_timedelta(seconds, threshold=1.2, locale="en"))
    return re.sub(r"(?<=\d)(?!\d)", " ", format_timedelta(seconds, threshold=1.2, locale="zh_CN", format="short"))


def json_bytes(value: Any) -> bytes:
    """Compact JSON of much data, several times as fast as `json_text`. NaN and infinite numbers become null."""
    return to_json(value, inf_nan_mode="null")


def json_text(value: Any) -> str:
    """Compact JSON. Raises ValueError for NaN and infinite numbers."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
