"""What holds for all templates of pages."""

import re
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

from app.core.principal import Principal
from app.web.pages import CompiledTemplates, load_templates, templates

TEMPLATES = Path(__file__).parents[3] / "templates"
DELETING = re.compile(r'<form[^>]*action="[^"]*/(?:delete|remove|revoke|disconnect)"[^>]*>.*?</form>', re.DOTALL)
# Forms whose button opens a dialog, that ask on a page of their own, and logins, which can be made again.
ASKING = {
    "jobs/parts/actions.html": "data-dialog=|attrs=",
    "trash/confirm.html": 'name="confirmed"',
    "accounts/person.html": r'field\("confirmation"',
    "accounts/account.html": "sessions|identities",
}


def outside_dialogs(template: str) -> str:
    return re.sub(r"<dialog.*?</dialog>", "", template, flags=re.DOTALL)


def test_every_deletion_asks_first() -> None:
    num_dialogs = 0
    for path in TEMPLATES.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        num_dialogs += len(re.findall(r"<dialog|ui\.deletion\(", text))
        for form in DELETING.findall(outside_dialogs(text)):
            name = str(path.relative_to(TEMPLATES))
            assert name in ASKING, f"{name} deletes without a question: {form}"
            assert re.search(ASKING[name], form), f"{name} deletes without a question: {form}"
    assert num_dialogs > 10


def test_each_dialog_has_a_button_that_opens_it() -> None:
    for path in TEMPLATES.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"ui\.deletion\((.*?)\) \}\}", text, re.DOTALL):
            identifier = re.search(r'(?:id=|, )"((?:delete|remove|revoke|forget)-[a-z]*)', call)
            start = identifier[1] if identifier else "delete"
            opener = re.compile(rf'"data-dialog": "{start}|data-dialog="{start}')
            assert opener.search(text), f"{path.name}: nothing opens the dialog {start}"


@pytest.mark.parametrize(
    ("drawn", "for_viewers"),
    [
        ('ui.button("x", href="/jobs/new?recipe=tiny")', False),
        ('ui.button("x", href="/jobs")', True),
        ('ui.edit_button("/corpora/c")', False),
        ('ui.button("x", type="button", attrs={"data-dialog": "delete"})', False),
        ('ui.deletion("/corpora/c/delete", "x", "y")', False),
        ('ui.button("x", type="button", attrs={"data-dialog": "revoke-t"})', True),
        ('ui.deletion("/account/tokens/t/revoke", "x", "y", id="revoke-t")', True),
    ],
)
def test_viewers_get_no_buttons_of_what_they_are_refused(drawn: str, for_viewers: bool) -> None:
    template = templates.env.from_string('{% import "_ui.html" as ui with context %}{{ ' + drawn + " }}")
    viewer, member = (Principal("u", role, role, frozenset(), by_cookie=True) for role in ("viewer", "member"))
    assert bool(template.render(principal=viewer).strip()) == for_viewers
    assert template.render(principal=member).strip()
    assert template.render(principal=None).strip()  # the live parts of a job are the same for everybody


@pytest.mark.parametrize(
    ("kind", "n", "words"), [("text", 1, "1 document"), ("chat", 60, "60 records"), ("dpo", 1, "1 record")]
)
def test_what_a_corpus_holds_is_named_by_its_kind(kind: str, n: int, words: str) -> None:
    template = templates.env.from_string('{% import "_ui.html" as ui %}{{ ui.num_documents(kind, n) }}')
    assert template.render(kind=kind, n=n) == words


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The names of the templates that were compiled from their source."""
    names: list[str | None] = []
    compile_template = Environment.compile

    def count(self: Environment, source: str, name: str | None = None, *arguments: str) -> object:
        names.append(name)
        return compile_template(self, source, name, *arguments)

    monkeypatch.setattr(Environment, "compile", count)
    return names


def test_a_template_is_compiled_once_for_all_processes_until_it_changes(
    tmp_path: Path, compilations: list[str | None]
) -> None:
    source = tmp_path / "page.html"
    for text, total in (("one {{ 1 }}", 1), ("one {{ 1 }}", 1), ("two {{ 2 }}", 2)):
        source.write_text(text)
        process = Environment(
            loader=FileSystemLoader(tmp_path), bytecode_cache=CompiledTemplates(tmp_path / "__pycache__")
        )
        assert process.get_template("page.html").render() == text.replace("{{ ", "").replace(" }}", "")
        assert len(compilations) == total
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "__pycache__").iterdir()} == {0o644}


def test_a_directory_that_cannot_be_written_costs_only_time(tmp_path: Path, compilations: list[str | None]) -> None:
    (tmp_path / "page.html").write_text("{{ 1 }}")
    directory = tmp_path / "missing" / "__pycache__"
    process = Environment(loader=FileSystemLoader(tmp_path), bytecode_cache=CompiledTemplates(directory))
    assert process.get_template("page.html").render() == "1"
    assert compilations == ["page.html"]


def test_a_web_process_has_all_templates_when_its_first_request_comes(compilations: list[str | None]) -> None:
    load_templates()
    compilations.clear()
    for path in TEMPLATES.rglob("*.html"):
        templates.env.get_template(str(path.relative_to(TEMPLATES)))
    assert compilations == []
