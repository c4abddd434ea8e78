"""Languages: which one a browser gets, and that the Chinese catalogue is whole."""

import ast
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract

from app.core import i18n
from app.core.i18n import CATALOG, _, negotiate, use_locale
from app.core.settings import Settings
from app.overview import health
from trainer import spec, spec_errors
from trainer.planning import plan, scaling_laws

ROOT = Path(__file__).parents[3]
KEYWORDS = {"_": None, "gettext_noop": None, "t": None}


@pytest.mark.parametrize(
    ("cookie", "header", "language"),
    [
        (None, "", "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        (None, "zh", "zh-CN"),
        (None, "zh-TW,en;q=0.5", "zh-CN"),
        (None, "en-GB,zh;q=0.5", "en"),
        (None, "de,fr;q=0.5", "en"),
        (None, "de,zh-Hans;q=0.5", "zh-CN"),
        ("zh-CN", "en", "zh-CN"),
        ("en", "zh-CN", "en"),
        ("tlh", "zh-CN", "zh-CN"),
        (None, ";;;,,,q=", "en"),
    ],
)
def test_the_language_is_the_chosen_one_else_what_the_browser_prefers(
    cookie: str | None, header: str, language: str
) -> None:
    assert negotiate(cookie, header) == language


def test_a_sentence_is_spoken_in_the_language_of_the_block_only() -> None:
    message = "There is nothing at this address."
    with use_locale("zh-CN"):
        chinese = _(message)
        with use_locale("en"):
            assert _(message) == message
        assert _(message) == chinese != message
    assert _(message) == message
    with use_locale("nonsense"):
        assert i18n.locale() == "en"


def test_values_are_filled_in_after_translation() -> None:
    with use_locale("zh-CN"):
        assert "example.com" in _(
            "This panel does not answer to the host name {host}. Add it to ATHANOR_ALLOWED_HOSTS.", host="example.com"
        )


# ---- the catalogue --------------------------------------------------------------------------------------------------


def said_in_python() -> Iterator[tuple[str, str]]:
    for package in ("app", "worker"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for _line, message, _comments, _context in extract_from_file("python", path, keywords=KEYWORDS):
                yield str(message), path.relative_to(ROOT).as_posix()


def said_in_templates() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "templates").rglob("*.html")):
        with path.open("rb") as file:
            options = {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}
            for _line, _function, message, _comments in babel_extract(file, list(KEYWORDS), (), options):
                text = message[0] if isinstance(message, tuple) else message
                if text:
                    yield str(text), path.relative_to(ROOT).as_posix()


def said_by_the_spec() -> Iterator[tuple[str, str]]:
    for name, field in spec.TrainSpec.model_fields.items():
        for text in (field.title, field.description):
            assert text, f"{name} has no title or no description"
            yield text, f"TrainSpec.{name}"
    yield from ((sentence, f"SENTENCES[{kind}]") for kind, sentence in spec_errors.MESSAGES.items())
    for node in ast.walk(ast.parse((ROOT / "trainer/spec.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "field_error":
            message = node.args[1]
            assert isinstance(message, ast.Constant), "the sentence must stand in the call"
            yield str(message.value), f"trainer/spec.py:{node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "message" and isinstance(node.value, ast.Constant):
            yield str(node.value.value), f"trainer/spec.py:{node.value.lineno}"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    with CATALOG.open("rb") as file:
        return read_po(file, locale="zh_CN", abort_invalid=True)


def fields(text: str) -> set[str]:
    return {name for _literal, name, _format, _conversion in string.Formatter().parse(text) if name is not None}


def said_by_the_plan() -> Iterator[tuple[str, str]]:
    yield from ((sentence, "trainer/planning/plan.py") for sentence in plan.MESSAGES.values())
    yield from ((sentence, "trainer/planning/scaling_laws.py") for sentence in scaling_laws.MESSAGES.values())


def said_by_the_settings() -> Iterator[tuple[str, str]]:
    yield from ((str(Settings.model_fields[name].description), f"Settings.{name}") for name in health.SHOWN)


SAID = sorted(
    {*said_in_python(), *said_in_templates(), *said_by_the_spec(), *said_by_the_plan(), *said_by_the_settings()}
)


def test_every_sentence_has_a_chinese_one(catalog: Catalog) -> None:
    missing: dict[str, str] = {}
    for message, place in SAID:
        entry = catalog.get(message)
        if entry is None or not entry.string:
            missing.setdefault(message, place)
    assert not missing, "\n".join(f"{place}: {message!r}" for message, place in missing.items())


def test_no_entry_is_fuzzy_and_none_is_left_over(catalog: Catalog) -> None:
    said = {message for message, _place in SAID}
    assert [entry.id for entry in catalog if entry.id and entry.fuzzy] == []
    assert [entry.id for entry in catalog if entry.id and entry.id not in said] == []


def test_no_entry_stands_twice() -> None:
    ids = [line for line in CATALOG.read_text().split("\n\n") if "msgid" in line]
    keys = [entry[entry.index("msgid") : entry.index("msgstr")] for entry in ids]
    assert sorted(key for key in set(keys) if keys.count(key) > 1) == []


def test_chinese_sentences_hold_the_same_values(catalog: Catalog) -> None:
    wrong = [
        (entry.id, entry.string)
        for entry in catalog
        if entry.id and entry.string and fields(str(entry.id)) != fields(str(entry.string))
    ]
    assert wrong == []


def test_every_choice_of_a_spec_is_a_word_programs_use() -> None:
    # Choices are shown as they are: they are the words of the API. A choice with a space would be prose.
    for name, field in spec.TrainSpec.model_fields.items():
        if get_origin(field.annotation) is Literal:
            assert all(" " not in str(choice) for choice in get_args(field.annotation)), name
