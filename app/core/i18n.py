"""English and Simplified Chinese: language negotiation and translation."""

import gettext
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from babel.core import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

from app.core.header_weights import header_weights

LOCALES = {"en": "English", "zh-CN": "简体中文"}
_LANGUAGES = {"en": "en", "zh": "zh-CN"}  # by the first part of a tag
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
    weights = header_weights(accept_language)
    languages = (_LANGUAGES.get(tag.partition("-")[0]) for tag, weight in weights.items() if weight)
    return next(filter(None, languages), "en")


@dataclass(frozen=True)
class Plural:
    """A message with a form for one and a form for other numbers; it is translated when it is displayed.

    `number` names the placeholder whose number decides.
    """

    singular: str
    plural: str
    number: str = "n"


@cache
def _chinese() -> gettext.NullTranslations:
    # Compiled in memory at first use: the catalog is the source, no built file can be stale.
    with CATALOG.open("rb") as source:
        catalog = read_po(source, locale="zh_CN")
    binary = io.BytesIO()
    write_mo(binary, catalog)
    binary.seek(0)
    return gettext.GNUTranslations(binary)


def load_locales() -> None:
    """Read what each language needs, so that no request waits for it: that takes 0.2 s."""
    for language in LOCALES:
        with use_locale(language):
            decimal(0)
            _translations()


def _translations() -> gettext.NullTranslations:
    return _chinese() if locale() == "zh-CN" else gettext.NullTranslations()


def translate(message: str | Plural, values: Mapping[str, Any] | None = None) -> str:
    """The message in the current language, in English if it has no translation; its placeholders stay.

    The form of a Plural is that for its number among `values`; without a number, that for several.
    """
    if isinstance(message, Plural):
        number = (values or {}).get(message.number)
        return _translations().ngettext(message.singular, message.plural, number if isinstance(number, int) else 2)
    return _translations().gettext(message) if message else message


def gettext_noop(message: str) -> str:
    """Mark a message for the catalog and return it unchanged; it is translated when it is displayed."""
    return message


def _(message: str | Plural, **values: Any) -> str:
    """Translate a message and fill in its {placeholders}. Values are not escaped: the template does that."""
    text = translate(message, values)
    return text.format(**values) if values else text


def ngettext(singular: str, plural: str, n: int, /, **values: Any) -> str:
    """Translate a message in its form for `n` and fill in its {placeholders}: {n} is written with separators."""
    return _translations().ngettext(singular, plural, n).format(**{"n": decimal(n), **values})


def plural_forms(singular: str, plural: str) -> str:
    """A message for static/js/format.js: the JSON of its forms, by their names in Intl.PluralRules."""
    one, other = (_translations().ngettext(singular, plural, n) for n in (1, 2))
    return json.dumps({"one": one, "other": other}, ensure_ascii=False)


def sentence_space() -> str:
    """What stands between two sentences: nothing in Chinese, whose full stop is as wide as a space and a dot."""
    return "" if locale() == "zh-CN" else " "


def join_sentences(sentences: Iterable[str]) -> str:
    """Sentences in the current language, one after the other."""
    return sentence_space().join(sentences)


def language_name(code: str) -> str:
    """The name of a language by its ISO 639 code, in the reader's language; the code where it has none."""
    return str(Locale.parse(locale(), sep="-").languages.get(code, code))


def decimal(value: float) -> str:
    """A number with separators, such as 1,234,567, in the current language."""
    return str(format_decimal(value, locale=locale().replace("-", "_")))
