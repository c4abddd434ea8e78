"""The language of the client's own sentences, from the environment. The server's come translated: Accept-Language."""

import locale
import os
from collections.abc import Iterable
from functools import cache
from typing import Any

from .chinese import CHINESE


@cache
def language() -> str:
    """The language of this process: "zh-CN" or "en"."""
    name = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG")
    return "zh-CN" if (name or locale.getlocale()[0] or "").startswith("zh") else "en"


def _(message: str, **values: Any) -> str:
    """Translate a sentence and fill in its {placeholders}."""
    text = CHINESE.get(message, message) if language() == "zh-CN" else message
    return text.format(**values) if values else text


def join_sentences(sentences: Iterable[str | None]) -> str:
    """Those sentences that there are, one after the other: in Chinese without spaces between them."""
    return ("" if language() == "zh-CN" else " ").join(filter(None, sentences))
