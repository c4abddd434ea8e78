"""English and Simplified Chinese: which one a request wants, and the catalog it is read from."""

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
    """Answer in this language inside the block."""
    token = _locale.set(language if language in LOCALES else "en")
    try:
        yield
    finally:
        _locale.reset(token)


def negotiate(cookie: str | None, accept_language: str) -> str:
    """The language a browser asks for: its choice kept in a cookie, else its Accept-Language header."""
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
    """The sentence in the present language; English where it is missing."""
    if locale() == "zh-CN" and message:
        return _chinese().gettext(message)
    return message


def gettext_noop(message: str) -> str:
    """Only marks a sentence for the catalog: it is kept in English and translated when it is shown."""
    return message


def _(message: str, **values: Any) -> str:
    """Translate, then fill {names}. Values are inserted as they are: the template escapes them."""
    text = translate(message)
    return text.format(**values) if values else text
