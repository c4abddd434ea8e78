"""Names are the field's nouns, each public class has a name of its own, the spelling is American, template lines short.

`words_allowed.json` lists the files whose names are keys of the REST API or of journals, which stay as they are.
"""

import ast
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "worker", "trainer")
BANNED_NAMES = {
    "found",
    "given",
    "made",
    "held",
    "known",
    "some",
    "whole",
    "mine",
    "told",
    "said",
    "shown",
    "seen",
    "asked",
    "lap",
    "laps",
    "contestants",
    "mended",
    "owed",
    "stranger",
}
# Phrases of the old idiom in names of tests, each with the usual word: continues, reported, fixed, unknown, again.
BANNED_IN_TESTS = re.compile(
    r"_(?:go(?:es)?_on|went_on|(?:is|are)_told|tells?|mended|owe[sd]?|stranger|anew|nobody|somebody|passed_over|let_go"
    r"|anothers|as_it_came|for_ever|lives_are|zombie)(?:_|$)"
)
BRITISH = re.compile(
    r"(?:token|normal|initial|optim|quant|serial|synchron|recogn|organ|minim|maxim|util|summar|parallel)is(?:e|ed|es|ing|ation)"
    r"|colour|behaviour|neighbour|favour|honour|catalogue|licence|analyse|artefact(?!['\"]  #)"
    r"|(?<!\.)\blabell(?:ed|ing)\b"
    r"|\b(?:un)?learnt\b|\bspelt\b|\bleapt\b|modell(?:ed|ing)|signall(?:ed|ing)|travell|\bcentre\b|\bmetre|\bgrey|\bprogramme\b"
    r"|\bfulfil\b|judgement|defence|\btowards\b|whilst|amongst|sceptic",
    re.IGNORECASE,
)
ALLOWED_SPELLINGS = re.compile(r"tokenise")  # the name of a phase in journals and in the database
MAX_TEMPLATE_LINE = 160
# A sentence that a script builds: a word glued to a value, a placeholder filled by hand, a form chosen by hand. `fill`
# and `fillPlural` of static/js/format.js fill in sentences of the server, which tests/app/core/test_i18n.py checks.
BUILDS_SENTENCE = re.compile(
    r"""\$\{[^}`]*\}\ +[a-z]{2,}      # `${n} files`
    |\+\ ?["'`]\ ?[a-z]{2,}      # n + " files"
    |\.replace\(["'`]\{         # sentence.replace("{n}", n)
    |[=!]==\ ?1\ ?\?\ ?["'`]     # n === 1 ? "file" : "files"
    |PluralRules|toLocaleString\(\)""",
    re.VERBOSE,
)
ALLOWED: dict[str, list[str]] = json.loads((Path(__file__).parent / "words_allowed.json").read_text())
TEXT_SUFFIXES = {".py", ".md", ".html", ".js", ".css", ".toml"}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Every variable, parameter and function that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def british(text: str) -> set[str]:
    return {match for match in BRITISH.findall(text) if not ALLOWED_SPELLINGS.fullmatch(match)}


@pytest.mark.parametrize("code", ["found = 1", "def f(given): ...", "def held(): ...", "for some in []: ..."])
def test_a_planted_name_is_detected(code: str) -> None:
    assert BANNED_NAMES & set(bound_names(ast.parse(code)))


def test_no_name_is_a_banned_word() -> None:
    places = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if BANNED_NAMES & set(bound_names(ast.parse(path.read_text())))
    }
    assert places - set(ALLOWED["names"]) == set()


def test_names_of_tests_are_plain_english() -> None:
    names = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name for name in names if name.startswith("test_") and BANNED_IN_TESTS.search(name)} == set()


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in [*sources(), *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "bench").rglob("*.py"))]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path.relative_to(ROOT).as_posix())
    doubles = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert set(doubles) - set(ALLOWED["classes"]) == set(), doubles


def test_the_spelling_is_american() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = {}
    for name in listing.splitlines():
        path = ROOT / name
        skipped = {"vendor", "samples"} & set(path.parts) or path == Path(__file__)
        if path.suffix in TEXT_SUFFIXES and path.exists() and not skipped:
            words[name] = british(path.read_text())
    assert {name: spellings for name, spellings in words.items() if spellings} == {}


def places_that_build_sentences(script: str) -> list[str]:
    """The places of a script, without its comments, that build a sentence."""
    code = re.sub(r"/\*.*?\*/|(?<![:\"'`])//[^\n]*", "", script, flags=re.DOTALL)
    return [hit[0] for hit in BUILDS_SENTENCE.finditer(code)]


@pytest.mark.parametrize(
    "script",
    [
        "`${n} files`",
        'n + " files"',
        'words.done.replace("{n}", n)',
        'n === 1 ? "file" : "files"',
        "new Intl.PluralRules(language)",
        "n.toLocaleString()",
    ],
)
def test_a_sentence_that_a_script_builds_is_seen(script: str) -> None:
    assert places_that_build_sentences(script)


def test_scripts_build_no_sentences_and_choose_no_plurals() -> None:
    scripts = (ROOT / "static" / "js").glob("*.js")
    places = {path.name: places_that_build_sentences(path.read_text()) for path in sorted(scripts)}
    assert {name: hits for name, hits in places.items() if hits} == {"format.js": ["PluralRules"]}


def test_lines_of_templates_are_short() -> None:
    places = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "templates").rglob("*.html")
        if any(len(line) > MAX_TEMPLATE_LINE for line in path.read_text().splitlines())
    }
    assert places - set(ALLOWED["template lines"]) == set()
