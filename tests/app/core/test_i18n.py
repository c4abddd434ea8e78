"""Languages: which one a browser gets, and that the Chinese catalog is complete."""

import io
import json
import re
import string
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from app.core import i18n
from app.core.i18n import CATALOG, Plural, _, negotiate, ngettext, plural_forms, translate, use_locale
from app.core.settings import Settings
from app.overview import health
from trainer import failure, limits, spec_errors
from trainer.data import record_refused, tokenized_records
from trainer.planning import plan, proposals, training_data
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
        (None, "zh;q=0.5, en;q=0.9", "en"),
        (None, "zh;q=0, EN-us;q=0.1", "en"),
        (None, "zh;q=2, en", "en"),
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


@pytest.mark.parametrize(
    ("n", "english", "chinese"),
    [(0, "0 files", "0 个文件"), (1, "1 file", "1 个文件"), (1234, "1,234 files", "1,234 个文件")],
)
def test_a_count_chooses_the_form_and_has_separators(n: int, english: str, chinese: str) -> None:
    assert ngettext("{n} file", "{n} files", n) == english
    with use_locale("zh-CN"):
        assert ngettext("{n} file", "{n} files", n) == chinese


def test_a_value_of_the_caller_replaces_the_written_number() -> None:
    assert ngettext("{n} file", "{n} files", 1200, n="1.2 k") == "1.2 k files"


def test_a_message_of_a_table_has_the_form_of_its_number_among_the_values() -> None:
    message = Plural("{left} job is left of {all}.", "{left} jobs are left of {all}.", "left")
    assert _(message, left=1, all=3) == "1 job is left of 3."
    assert _(message, left=2, all=3) == "2 jobs are left of 3."
    assert translate(message) == translate(message, {"left": "?"}) == message.plural  # a stored row may lack it


def test_scripts_get_each_form_by_its_name_in_intl() -> None:
    assert json.loads(plural_forms("{n} file", "{n} files")) == {"one": "{n} file", "other": "{n} files"}
    with use_locale("zh-CN"):
        assert json.loads(plural_forms("{n} file", "{n} files")) == {"one": "{n} 个文件", "other": "{n} 个文件"}


# ---- the catalog ----------------------------------------------------------------------------------------------------


Messages = set[str | tuple[str, str]]


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Messages:
    """Every sentence of the interface: those that babel.cfg extracts, and those of tables without a marker.

    A pair is one with a singular and a plural.
    """
    template = tmp_path_factory.mktemp("messages") / "messages.pot"
    command = next(line for line in (ROOT / "babel.cfg").read_text().splitlines() if "pybabel extract" in line)
    options = command.removeprefix("# pybabel ").replace("messages.pot", str(template)).split()
    run = subprocess.run(
        [sys.executable, "-m", "babel.messages.frontend", "-q", *options], cwd=ROOT, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()
    fields = TrainSpec.model_fields.values()
    return {
        *(entry.id for entry in read_po(io.BytesIO(template.read_bytes())) if entry.id),
        *(str(text) for field in fields for text in (field.title, field.description)),
        *(str(Settings.model_fields[name].description) for name in health.DISPLAYED_SETTINGS),
        *spec_errors.MESSAGES.values(),
        *limits.MESSAGES.values(),
        *failure.REASONS.values(),
        *plan.MESSAGES.values(),
        *training_data.MESSAGES.values(),
        *record_refused.MESSAGES.values(),
        *tokenized_records.MESSAGES.values(),
        *proposals.MESSAGES.values(),
    }


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    with CATALOG.open("rb") as file:
        return read_po(file, locale="zh_CN", abort_invalid=True)


def forms(text: str | tuple[str, ...]) -> tuple[str, ...]:
    """The forms of a message or of its translation."""
    return (text,) if isinstance(text, str) else text


def fields(text: str) -> set[str]:
    return {name for _literal, name, _format, _conversion in string.Formatter().parse(text) if name is not None}


def test_every_message_has_a_chinese_translation(catalog: Catalog, messages: Messages) -> None:
    translated = {entry.id for entry in catalog if entry.id and all(forms(entry.string))}
    assert sorted(messages - translated, key=str) == []


def test_no_entry_is_fuzzy_and_every_entry_is_used(catalog: Catalog, messages: Messages) -> None:
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
        if entry.id and len({frozenset(fields(form)) for form in (*forms(entry.id), *forms(entry.string))}) > 1
    ]
    assert wrong == []


def test_every_plural_has_the_one_form_of_chinese(catalog: Catalog) -> None:
    assert catalog.num_plurals == 1
    assert [entry.id for entry in catalog if isinstance(entry.id, tuple) and len(entry.string) != 1] == []


# ---- counts of one --------------------------------------------------------------------------------------------------

# A number that a plural follows, at once or after one word, or that is the subject of a plural verb.
COUNT = re.compile(r"\{(\w+)(?::[^}]*)?\} (?:(?:[\w-]+ )??([a-z]+s)\b(?!/)|(?:are|were|have|do)\b)")
SINGULARS = {
    *("is", "was", "has", "as", "its", "does", "this", "less", "across", "corpus", "process", "status", "ms", "takes")
}
NO_COUNTS = {
    *("file", "path", "field", "name", "part", "model_type", "tensor", "step", "free", "total", "id", "key", "log"),
    "objective",
}
# Parts of messages whose number is never 1.
NEVER_ONE = {
    "a limit that is fixed and larger": (
        *(
            "{min} characters",
            "{max} characters",
            "{max} messages",
            "{max} tags",
            "{max} jobs",
            "{max_length} characters",
            "{max_values} values or {max_bytes} bytes",
            "{max_samples} samples or {max_bytes} bytes",
        ),
        *(
            "{max_length} entries",
            "The first {n} are",
            "1 to {most} models",
            "more than {n} values",
            "ask for {n} texts",
            "at most {n} texts",
        ),
        *(
            "most {length} characters",
            "{limit} webhook endpoints",
            "{limit} model endpoints",
            "{limit} different labels",
        ),
        *("{limit} files", "{limit} characters", "{n} unfinished uploads", "{count} unfinished tasks", "{many} times"),
        *(
            "can have {n} files",
            "{limit_times} times",
            "over {ratio} times",
            "{high} seconds",
            "{attempts} attempts in",
            "lost {count} times",
        ),
        *(
            "up to {n} tokenizers",
            "most {most} are",
            "most {longest} are",
            "under {n} characters",
        ),
    ),
    "more than such a limit": (
        *(
            "prompt has {n} characters",
            "{num_tokens} tokens; the limit",
            "{found} times longer",
            "of {found} characters",
        ),
        *("{epochs} times", "takes {steps} steps", "{n} combinations", "{n} characters, at most", "{n} words, at most"),
        "have {n} deployments",
    ),
    "a size of a model, of its vocabulary, of sequences or of files": (
        *("{n} dimensions", "A vocabulary of {n} tokens", "{name} · {n} tokens", "{n} parameters", "{asked} tokens"),
        *(
            "{largest} tokens",
            "{vocab_size} rows",
            "{vocab_size} tokens",
            "{hidden_size} numbers",
            "{num_weights} weights",
        ),
        *(
            "vocabulary has {limit} tokens",
            "{window} tokens",
            "{context} tokens",
            "{length} tokens",
            "{longest} tokens",
        ),
        *("{smallest} tokens", "only {found} tokens", "{asked} were asked", "{n} tokens: {value}", "up to {n} tokens"),
        *(
            "{num_tokens} tokens at",
            "{num_tokens} tokens and was cut",
            "header of {length} bytes",
        ),
        *("phrases of {n} words", "length of {n} tokens"),
    ),
    "measured, with decimals": (
        *("{loss} nats", "{nats} nats", "{bits} bits", "{bits_per_byte} bits", "{watts} watts", "{ratio} tokens"),
        *("{time_ratio} times", "{memory_ratio} times", "{n} bytes per token", "{value} bytes per token"),
    ),
    "written for two or more only": (
        *(
            "between {num_processes} processes",
            "each of {n} processes",
            "Version {version}, {n} files",
            "Start {n} jobs",
            "A record has {n} texts",
        ),
        *("This corpus has {n} files", "into {parts} documents", "It has {left} documents", "{n} packages"),
        "{epochs} epochs of the text are worth",
    ),
}


def counts(text: str) -> list[str]:
    """The places of a message that have a number before a plural."""
    hits = [hit for hit in COUNT.finditer(text) if hit[1] not in NO_COUNTS and hit[2] not in SINGULARS]
    return [hit[0] for hit in hits]


def allows(text: str, count: str) -> bool:
    return any(count in part and part in text for parts in NEVER_ONE.values() for part in parts)


def test_every_count_that_can_be_one_has_a_singular(messages: Messages) -> None:
    texts = [text for text in messages if isinstance(text, str)]
    assert [(text, count) for text in texts for count in counts(text) if not allows(text, count)] == [], (
        "Use ngettext, or Plural in tables; or reword: “Documents: {n}”."
    )


def test_every_exception_is_needed(messages: Messages) -> None:
    texts = [text for text in messages if isinstance(text, str) and counts(text)]
    parts = [part for group in NEVER_ONE.values() for part in group]
    assert [part for part in parts if not any(part in text for text in texts)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{n} documents", ["{n} documents"]),
        ("It has {n} usable records.", ["{n} usable records"]),
        ("Skipped: {n} were empty.", ["{n} were"]),
        ("{free:.1f} GiB, {cores} cores", ["{cores} cores"]),
        ("{name} is {n} % of it", []),
        ("{n} tokens/s", []),
        ("Documents: {n}. Others are {n}.", []),
    ],
)
def test_a_number_before_a_plural_is_seen(text: str, found: list[str]) -> None:
    assert counts(text) == found


def test_every_choice_of_a_spec_is_a_technical_term() -> None:
    # Choices are shown as they are: they are the words of the API. A choice with a space would be prose.
    for name, field in TrainSpec.model_fields.items():
        if get_origin(field.annotation) is Literal:
            assert all(" " not in str(choice) for choice in get_args(field.annotation)), name
