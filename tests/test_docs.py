"""What the documents list is what there is."""

import ast
import json
import re
import subprocess
from pathlib import Path

from app.client.commands import root as client_commands
from app.core.settings import Settings
from app.corpora.cleaning import preview as cleaning_preview
from app.launcher.cli import cli
from app.playground import failures
from app.web.problem_types import PROBLEM_TYPES, http_problem
from tests import api_document
from tests.attack.rows import ATTACKS
from trainer import limits
from trainer.spec import recipe_names


def table(text: str, heading: str) -> dict[str, str]:
    """First column to the rest, of the first table below a heading; the names stand in backticks."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", section, re.MULTILINE)
    return dict(rows)


def variable(name: str) -> str:
    customary = {"database_url", "redis_url", "hf_endpoint", "hf_token", "hf_hub_offline"}
    return name.upper() if name in customary else f"ATHANOR_{name.upper()}"


def test_the_readme_lists_every_setting_and_no_other(root: Path) -> None:
    listed = table((root / "README.md").read_text(), "Settings")
    assert set(listed) == {variable(name) for name in Settings.model_fields}


def test_every_setting_has_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description or name == "node_name", name


def test_the_readme_lists_every_command(root: Path) -> None:
    listed = table((root / "README.md").read_text(), "Commands")
    commands = {command.name or command.callback.__name__ for command in cli.registered_commands if command.callback}
    assert {name.removeprefix("athanor ") for name in listed} == commands


def test_the_clients_page_lists_its_commands(root: Path) -> None:
    listed = table((root / "docs/client.md").read_text(), "Commands")
    assert {name.removeprefix("athanor ") for name in listed} == client_commands.names()


def test_links_between_documents_resolve(root: Path) -> None:
    for document in (root / "README.md", root / "ARCHITECTURE.md", *root.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (document.parent / target).exists(), f"{document.name} points to {target}"


def test_the_security_page_names_every_attack_and_no_other(root: Path) -> None:
    cells = [
        line.split("|")[4] for line in (root / "docs/security.md").read_text().splitlines() if line.startswith("|")
    ]
    named = {row for cell in cells[2:] for row in re.findall(r"[A-Z]\d+", cell.replace("R1 to R5", "R1 R2 R3 R4 R5"))}
    assert named == {attack.row for attack in ATTACKS}


def test_the_architecture_names_only_what_exists(root: Path) -> None:
    text = (root / "ARCHITECTURE.md").read_text()
    for name in re.findall(r"`((?:app|worker|trainer|templates|static|docs|tests)/[\w./-]*\w)`", text):
        assert (root / name).exists(), name


def test_the_readme_names_the_recipes(root: Path) -> None:
    text = (root / "README.md").read_text()
    for name in recipe_names():
        assert f"`{name}`" in text
        assert json.loads((root / f"trainer/recipes/{name}.json").read_text())["name"]


def test_every_decision_has_the_same_sections(root: Path) -> None:
    decisions = sorted(root.glob("docs/decisions/*.md"))
    numbers = [path.name[:4] for path in decisions]
    assert numbers == sorted(set(numbers))
    for path in decisions:
        assert path.read_text().startswith("# "), path


def test_make_help_names_the_targets_of_the_readme(root: Path) -> None:
    shown = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    for target in set(re.findall(r"^make (\w+)$", (root / "README.md").read_text(), re.MULTILINE)):
        assert f"make {target} " in shown


def test_the_operations_and_error_codes_of_the_api_are_listed() -> None:
    text = api_document.DOCUMENT.read_text()
    assert text == api_document.updated(text), "run `python -m tests.api_document`"


def test_the_table_of_rights_is_that_of_the_routes() -> None:
    text = api_document.RIGHTS.read_text()
    assert text == api_document.updated_rights(text), "run `python -m tests.api_document`"


def error_codes(path: Path) -> set[str]:
    """The codes of the errors that a file raises, as far as it writes them out."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    codes = [call.args[1] for call in calls if getattr(call.func, "id", "") in ("PanelError", "bad_field")]
    return {code.value for code in codes if isinstance(code, ast.Constant)}


def test_every_error_code_has_a_meaning_and_every_meaning_a_code(root: Path) -> None:
    raised = {code for path in root.glob("app/**/*.py") for code in error_codes(path)}
    raised |= {http_problem(status, "", {}).code for status in range(400, 600)}
    raised |= {*failures.codes(), *limits.MESSAGES, *cleaning_preview.REFUSALS}
    missing = sorted(raised - PROBLEM_TYPES.keys())
    assert missing == [], "describe them in app/web/problem_types.py"
    assert PROBLEM_TYPES.keys() - raised == set()
