"""The layers hold, the guard that proves it catches each kind of violation, and the house style is kept."""

import ast
import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from app.core import synthetic_models  # noqa: F401 - its tables too
from app.core.models import Base

PACKAGES = ("app", "worker", "trainer")
BANNED_NAMES = {"utils", "helpers", "common", "misc", "manager"}
LAZY_IMPORTS = {
    "app/accounts/oidc/id_token.py",  # Authlib, at the first login by a provider
    "app/accounts/oidc/provider.py",
    *("trainer/__main__.py", "worker/inference/server.py", "worker/fork_server.py", "app/launcher/cli.py"),
    # Libraries that few uploads need.
    *(f"worker/sandbox/corpus/{name}.py" for name in ("decoding", "containers", "documents", "columnar")),
}
PUBLIC_INTERFACE = "app/client/__init__.py"  # from athanor import Client
LONG_FUNCTIONS = {"trainer/training/loop.py": 200}

PLANTED = [
    ("app/core/storage.py", "import torch", "app never reaches torch"),
    ("app/jobs/service.py", "import worker.celery_app", "app sends work by task name"),
    ("app/core/models.py", "from app.accounts import service as _s", "the three packages"),
    ("app/jobs/service.py", "from app.playground import service as _s", "the three packages"),
    ("app/accounts/service.py", "from app.corpora import service as _s", "the three packages"),
    ("app/corpora/service.py", "import trainer.data.corpus", "of trainer, app imports only"),
    ("trainer/training/loop.py", "import app.core.settings", "trainer knows no web"),
    ("worker/tasks/start_job.py", "import worker.inference.server", "the Celery worker"),
    ("worker/supervisor/outcome.py", "import app.web.pages", "the supervisor starts without"),
    ("app/jobs/lifecycle/transitions.py", "import app.jobs.service", "app.jobs: layers"),
    ("worker/environment.py", "import worker.node", "worker: layers"),
    ("trainer/planning/plan.py", "import torch", "app never reaches torch"),
    ("trainer/run_dir.py", "import numpy", "the light folders of trainer"),
    ("trainer/spec.py", "import trainer.data.sample_order", "trainer: layers"),
    ("app/client/api.py", "import app.core.settings", "the three packages"),
]


TABLES = {mapper.class_.__name__ for mapper in Base.registry.mappers}


def sources() -> list[Path]:
    root = Path(__file__).parents[1]
    return [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command as c; sys.path.insert(0, '.'); c()"
    command = [sys.executable, "-c", code, "--no-cache"]
    wide = {**os.environ, "COLUMNS": "1000"}  # names of contracts are not wrapped
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, env=wide)


def test_every_import_follows_the_layers(root: Path) -> None:
    result = lint(root)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    return copy_packages(root, tmp_path)


def copy_packages(root: Path, directory: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(root / package, directory / package, ignore=shutil.ignore_patterns("__pycache__", "samples"))
    shutil.copy(root / "pyproject.toml", directory)
    return directory


@pytest.fixture(scope="module")
def broken_contracts(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What import-linter reports on a copy with all planted lines, by the name of the contract."""
    directory = copy_packages(root, tmp_path_factory.mktemp("planted"))
    for place, line, _contract in PLANTED:
        with (directory / place).open("a") as file:
            file.write(f"\n{line}\n")
    result = lint(directory)
    assert result.returncode == 1, result.stdout + result.stderr
    lines = result.stdout.partition("Broken contracts")[2].splitlines()
    names = [index for index, line in enumerate(lines) if index and line and set(line) == {"-"} and lines[index - 1]]
    ends = [*(index - 1 for index in names[1:]), len(lines)]
    return {lines[index - 1]: "\n".join(lines[index:end]) for index, end in zip(names, ends, strict=True)}


@pytest.mark.parametrize(("place", "line", "contract"), PLANTED)
def test_a_planted_violation_is_caught(
    broken_contracts: dict[str, str], root: Path, place: str, line: str, contract: str
) -> None:
    report = next(text for name, text in broken_contracts.items() if name.startswith(contract))
    line_number = len((root / place).read_text().splitlines()) + 2
    module = place.removesuffix(".py").replace("/", ".")
    assert re.search(rf"{re.escape(module)} -> \S+ \(l\.{line_number}\)", report), report


def test_every_contract_has_a_planted_violation(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    planted = [start for _place, _line, start in PLANTED]
    assert [contract["name"] for contract in contracts if not contract["name"].startswith(tuple(planted))] == []


def test_a_new_module_must_be_put_in_a_layer(copy: Path) -> None:
    folders = ("trainer", "worker", "app/jobs")
    for folder in folders:
        (copy / folder / "new.py").write_text('"""New."""\n')
    report = lint(copy).stdout
    assert [folder for folder in folders if f"{folder.replace('/', '.')}.new" not in report] == []


def test_the_web_process_loads_no_torch(root: Path) -> None:
    heavy = ("torch", "transformers", "deepspeed", "accelerate", "numpy", "safetensors", "tokenizers")
    code = f"import sys, app.main; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


# ---- house style ----------------------------------------------------------------------------------------------------


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    root = Path(__file__).parents[1]
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path.relative_to(root).as_posix(), node


def test_functions_are_short() -> None:
    lengths = [node.end_lineno - node.lineno + 1 for _place, node in functions() if node.end_lineno]
    assert statistics.median(lengths) <= 10
    assert statistics.quantiles(lengths, n=10)[-1] <= 35
    long = [
        (place, node.name)
        for place, node in functions()
        if (node.end_lineno or 0) - node.lineno + 1 > LONG_FUNCTIONS.get(place, 80)
    ]
    assert long == []


def test_files_are_short_and_start_with_a_docstring(root: Path) -> None:
    lengths = []
    for path in sources():
        text = path.read_text()
        if path.name == "__init__.py":
            assert text == "" or path == root / PUBLIC_INTERFACE, f"{path} must be empty"
            continue
        lengths.append(len(text.splitlines()))
        assert lengths[-1] <= 500, path
        assert ast.get_docstring(ast.parse(text)), f"{path} does not say what lives there"
        assert path.stem not in BANNED_NAMES, path
    assert statistics.median(lengths) <= 120


def test_no_two_public_classes_have_one_name() -> None:
    names = Counter(
        node.name
        for path in sources()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_imports_are_at_the_top_of_a_file(root: Path) -> None:
    hidden = [
        (place, node.name)
        for place, node in functions()
        if place not in LAZY_IMPORTS
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert hidden == []


# ---- who writes a state ---------------------------------------------------------------------------------------------

# Every place that writes a column `state`, with the variable or table it writes to.
STATE_WRITERS = {
    ("app/corpora/open_uploads.py", "upload"),
    ("app/jobs/submissions.py", "submission"),
    ("app/jobs/lifecycle/state.py", "job"),
    ("app/jobs/scheduling/rescan.py", "Job"),  # inserts a job that ended long ago
    ("app/jobs/archives/imports.py", "Job"),  # inserts one that ended in another installation
    ("app/jobs/scheduling/rescan.py", "row"),  # a checkpoint
    ("app/jobs/attempts/attempts.py", "row"),  # a checkpoint
    ("app/checkpoints/service.py", "Checkpoint"),
    ("app/checkpoints/service.py", "row"),  # a checkpoint
    ("app/base_models/service.py", "ImportedModel"),
    ("app/base_models/service.py", "model"),
    ("app/corpora/service.py", "Corpus"),
    ("app/corpora/service.py", "corpus"),
    ("app/tokenizers/service.py", "Tokenizer"),
    ("app/core/background_tasks.py", "task"),
    ("app/synthetic/drafts.py", "draft"),
    ("app/synthetic/drafts.py", "DraftRecord"),
}
PLANTED_STATE_WRITES = [
    'job.state = "failed"',
    'before, job.state = job.state, "failed"',
    'job.state: str = "failed"',
    'setattr(job, "state", "failed")',
    'Job(id="1", state="failed")',
    'models.Job(state="failed")',
    'update(Job).where(Job.id == "1").values(state="failed")',
    'session.execute(insert(Job).values({"state": "failed"}))',
    'Job.__table__.update().values(state="failed")',
]


def state_writes(tree: ast.AST) -> Iterator[str]:
    """What each write of a column `state` writes to: a variable, or the name of a table."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "state" and isinstance(node.ctx, ast.Store):
            yield ast.unparse(node.value)
        elif isinstance(node, ast.Call):
            yield from _state_writes_of_call(node)


def _state_writes_of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func).rpartition(".")[2]
    if name == "setattr" and ast.unparse(call.args[1]) == "'state'":
        yield ast.unparse(call.args[0])
    keys = {keyword.arg for keyword in call.keywords}
    keys |= {key.value for arg in call.args if isinstance(arg, ast.Dict) for key in arg.keys if is_text(key)}
    if "state" in keys and name in TABLES:
        yield name
    elif "state" in keys and name == "values":
        yield next(part.id for part in ast.walk(call.func) if isinstance(part, ast.Name) and part.id in TABLES)


def is_text(node: ast.expr | None) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_the_places_that_write_a_state_are_known(root: Path) -> None:
    writers = {
        (path.relative_to(root).as_posix(), subject)
        for path in sources()
        for subject in state_writes(ast.parse(path.read_text()))
    }
    assert writers == STATE_WRITERS


@pytest.mark.parametrize("line", PLANTED_STATE_WRITES)
def test_a_planted_write_of_a_jobs_state_is_detected(line: str) -> None:
    (subject,) = state_writes(ast.parse(line))
    assert subject in ("job", "Job")


def test_no_statement_updates_jobs_in_bulk(root: Path) -> None:
    """Its values could hold a state that `state_writes` does not see."""
    calls = [
        (path.relative_to(root).as_posix(), node.lineno)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node) in ("update(Job)", "sqlalchemy.update(Job)")
    ]
    assert calls == []


def test_ranks_exchange_tensors_and_no_pickled_objects() -> None:
    pickled = re.compile(r"\b(broadcast|all_gather|gather|scatter|send|recv)_object(_list)?\b")
    assert [path for path in sources() if pickled.search(re.sub(r"`[^`]*`", "", path.read_text()))] == []
