"""Languages: which one a browser gets, and that the Chinese catalog is complete."""

import io
import string
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from app.core import i18n
from app.core.i18n import CATALOG, _, negotiate, use_locale
from app.core.settings import Settings
from app.overview import health
from trainer import failure, limits, spec_errors
from trainer.data import record_encoding, tokenized_records
from trainer.planning import plan, scaling_laws, training_data
from trainer.spec import TrainSpec

ROOT = Path(__file__).parents[3]


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
def test_the_language_is_the_chosen_one_or_the_browsers(cookie: str | None, header: str, language: str) -> None:
    assert negotiate(cookie, header) == language


def test_a_language_applies_only_within_its_block() -> None:
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
            "The host name {host} is not allowed. Add it to ATHANOR_ALLOWED_HOSTS.", host="example.com"
        )


# ---- the catalog ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every sentence of the interface: those that babel.cfg extracts, and those of tables without a marker."""
    template = tmp_path_factory.mktemp("messages") / "messages.pot"
    command = next(line for line in (ROOT / "babel.cfg").read_text().splitlines() if "pybabel extract" in line)
    options = command.removeprefix("# pybabel ").replace("messages.pot", str(template)).split()
    run = subprocess.run(
        [sys.executable, "-m", "babel.messages.frontend", "-q", *options], cwd=ROOT, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()
    fields = TrainSpec.model_fields.values()
    return {
        *(str(entry.id) for entry in read_po(io.BytesIO(template.read_bytes())) if entry.id),
        *(str(text) for field in fields for text in (field.title, field.description)),
        *(str(Settings.model_fields[name].description) for name in health.DISPLAYED_SETTINGS),
        *spec_errors.MESSAGES.values(),
        *limits.MESSAGES.values(),
        *failure.REASONS.values(),
        *plan.MESSAGES.values(),
        *training_data.MESSAGES.values(),
        *record_encoding.MESSAGES.values(),
        *tokenized_records.MESSAGES.values(),
        *scaling_laws.MESSAGES.values(),
    }


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    with CATALOG.open("rb") as file:
        return read_po(file, locale="zh_CN", abort_invalid=True)


def fields(text: str) -> set[str]:
    return {name for _literal, name, _format, _conversion in string.Formatter().parse(text) if name is not None}


def test_every_message_has_a_chinese_translation(catalog: Catalog, messages: set[str]) -> None:
    translated = {str(entry.id) for entry in catalog if entry.id and entry.string}
    assert sorted(messages - translated) == []


def test_no_entry_is_fuzzy_and_every_entry_is_used(catalog: Catalog, messages: set[str]) -> None:
    entries = [entry for entry in catalog if entry.id]
    assert [entry.id for entry in entries if entry.fuzzy] == []
    assert [entry.id for entry in entries if entry.id not in messages] == []


def test_no_entry_is_duplicated() -> None:
    ids = [line for line in CATALOG.read_text().split("\n\n") if "msgid" in line]
    keys = [entry[entry.index("msgid") : entry.index("msgstr")] for entry in ids]
    assert sorted(key for key in set(keys) if keys.count(key) > 1) == []


def test_translations_have_the_same_placeholders(catalog: Catalog) -> None:
    wrong = [
        (entry.id, entry.string)
        for entry in catalog
        if entry.id and entry.string and fields(str(entry.id)) != fields(str(entry.string))
    ]
    assert wrong == []


def test_every_choice_of_a_spec_is_a_technical_term() -> None:
    # Choices are shown as they are: they are the words of the API. A choice with a space would be prose.
    for name, field in TrainSpec.model_fields.items():
        if get_origin(field.annotation) is Literal:
            assert all(" " not in str(choice) for choice in get_args(field.annotation)), name
