"""Tokenizers and configurations that multiply what they read are refused before they do, with the reason."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE

from app.base_models import problems
from app.core.json_shapes import Problem
from tests import folders
from trainer.processes.child_limits import ChildLimits, limited_command
from worker.background import model_import
from worker.sandbox.closing_report import MAX_WHY
from worker.sandbox.model_import import tokenizer_checks, validate

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.saved(tmp_path_factory.mktemp("model") / "llama", "llama")


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "llama"))


def change(path: Path, changes: Change) -> None:
    content = json.loads(path.read_text())
    changes(content)
    path.write_text(json.dumps(content))


def problem(directory: Path) -> dict[str, Any]:
    (report,) = validate.report_result(directory, 1 << 30, 1 << 40)["failed"]["problems"]
    code = report.pop("code")
    assert problems.sentence(Problem(code=code, **report))
    return {"code": code, **report}


def doublings(kind: str, key: str, count: int) -> dict[str, Any]:
    return {"type": "Sequence", key: [{"type": kind, "pattern": {"String": "a"}, "content": "aa"}] * count}


def replace_regex(pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}


@pytest.mark.parametrize(
    ("part", "key"), [("normalizer", "normalizers"), ("decoder", "decoders")], ids=["normalizer", "decoder"]
)
def test_rules_that_multiply_text_are_refused_by_name(model: Path, part: str, key: str) -> None:
    change(model / "tokenizer.json", lambda state: state.update({part: doublings("Replace", key, 18)}))

    assert problem(model) == {"code": "tokenizer_growth", "part": part, "found": "262144", "limit_times": 100}


def test_a_token_of_a_megabyte_is_refused(model: Path) -> None:
    change(model / "tokenizer.json", lambda state: state["model"]["vocab"].update({"x" * (1 << 20): 1}))

    assert problem(model)["code"] == "tokenizer_token_long"


def test_a_panic_of_the_tokenizer_library_is_called_so(model: Path) -> None:
    change(model / "tokenizer.json", lambda state: state.update(normalizer=replace_regex("(a+)+[bc]")))
    reported = problem(model)

    assert reported["code"] == "tokenizer_crashed"
    assert "retry-limit-in-match" in reported["why"]
    assert len(reported["why"]) <= MAX_WHY


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_labels", 10**9), ("num_hidden_layers", 10**9), ("id2label", {str(n): "" for n in range(20_000)})],
)
def test_sizes_of_a_configuration_are_bounded(model: Path, field: str, value: Any) -> None:
    change(model / "config.json", lambda config: config.update({field: value}))

    assert (problem(model)["code"], problem(model)["field"]) == ("network_unusual", field)


def test_a_header_of_more_than_16_mb_is_refused_before_it_is_read(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.write((20_000_000).to_bytes(8, "little"))
        file.truncate(30_000_000)

    assert problem(model)["code"] == "header_length"


def test_a_slow_regular_expression_ends_the_child_with_a_reason(model: Path) -> None:
    change(model / "tokenizer.json", lambda state: state.update(normalizer=replace_regex("(a|aa)" * 20 + "[bc]")))
    command = [sys.executable, "-m", "worker.sandbox.model_import.validate", str(model)]
    limited = limited_command(ChildLimits(), [*command, "--budget=1000000000", "--keep-free=0", f"--memory={2 << 30}"])
    done = subprocess.run(limited, capture_output=True, env={"PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}, check=False)

    assert done.returncode == -signal.SIGPROF, done.stdout + done.stderr
    assert (model_import.explain(done.returncode) or {})["code"] == "tokenizer_slow_text"


replacements = st.tuples(st.text("ab", min_size=1, max_size=3), st.text("ab", max_size=4))


@given(rules=st.lists(replacements, max_size=4), text=st.text("ab", max_size=40))
def test_no_text_grows_more_than_the_bound_of_its_rules(rules: list[tuple[str, str]], text: str) -> None:
    normalizer = normalizers.Sequence([normalizers.Replace(pattern, content) for pattern, content in rules])
    described = json.loads(tokenizer_with(normalizer).to_str())["normalizer"]

    assert len(normalizer.normalize_str(text)) <= tokenizer_checks._growth(described) * len(text)


def tokenizer_with(normalizer: Any) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizer
    return tokenizer


def test_ordinary_rules_are_within_the_bound() -> None:
    usual = tokenizer_with(
        normalizers.Sequence([normalizers.NFKC(), normalizers.Prepend("▁"), normalizers.Replace(Regex(" {2,}"), "▁")])
    )
    usual.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    state = json.loads(usual.to_str())

    assert max(tokenizer_checks._growth(state[part]) for part in ("normalizer", "decoder")) <= 11
