"""English and Simplified Chinese: language negotiation and translation."""

import gettext
import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from babel.core import negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LOCALES = {"en": "English", "zh-CN": "简体中文"}
CATALOG = Path(__file__).parents[1] / "locales" / "zh_CN.po"

_locale: ContextVar[str] = ContextVar("locale", default="en")


def locale() -> str:
    """The language of the request being answered: a key of LOCALES."""
    return _locale.get()


@contextmanager
def use_locale(language: str) -> Iterator[None]:
    """Use this language inside the block."""
    token = _locale.set(language if language in LOCALES else "en")
    try:
        yield
    finally:
        _locale.reset(token)


def negotiate(cookie: str | None, accept_language: str) -> str:
    """The language of a request: that of the cookie, else the best match of the Accept-Language header."""
    if cookie in LOCALES:
        return cookie
    wanted = [part.split(";")[0].strip() for part in accept_language.split(",")]
    wanted = ["zh-CN" if tag.lower().startswith("zh") else tag for tag in wanted]
    return negotiate_locale(wanted, list(LOCALES), sep="-") or "en"


@cache
def _chinese() -> gettext.NullTranslations:
    # Compiled in memory at first use: the catalog is the source, no built file can be stale.
    with CATALOG.open("rb") as source:
        catalog = read_po(source, locale="zh_CN")
    binary = io.BytesIO()
    write_mo(binary, catalog)
    binary.seek(0)
    return gettext.GNUTranslations(binary)


def translate(message: str) -> str:
    """The message in the current language; in English if it has no translation."""
    if locale() == "zh-CN" and message:
        return _chinese().gettext(message)
    return message


def gettext_noop(message: str) -> str:
    """Mark a message for the catalog and return it unchanged; it is translated when it is displayed."""
    return message


def _(message: str, **values: Any) -> str:
    """Translate a message and fill in its {placeholders}. Values are not escaped: the template does that."""
    text = translate(message)
    return text.format(**values) if values else text
