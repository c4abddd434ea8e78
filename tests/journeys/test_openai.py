"""The example of docs/openai.md, with both majors of OpenAI's client, against a whole installation."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.corpora.shipped import FOLDER
from tests.stack import Stack

EXAMPLE = re.compile(r"<!-- run by tests/journeys/test_openai.py -->\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("path", [None, f"{sys.prefix}/openai-1"], ids=["major 3", "major 1"])
def test_the_example_trains_two_models(running_stack: Stack, root: Path, tmp_path: Path, path: str | None) -> None:
    (example,) = EXAMPLE.findall((root / "docs/openai.md").read_text())
    text = tmp_path / "text.txt"
    text.write_text((FOLDER / "king-james-bible.txt").read_text(encoding="utf-8")[:60_000], encoding="utf-8")
    environment = {
        **os.environ,
        "BASE_URL": f"{running_stack.base_url}/v1",
        "API_KEY": running_stack.token,
        "TEXT": str(text),
        "PYTHONPATH": path or "",
    }
    script = subprocess.run(
        [sys.executable, "-c", example], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert script.returncode == 0, script.stderr
    *listed, results = script.stdout.partition("step,train_loss")
    assert "Step " in listed[0]
    assert ":ckpt-step-" in listed[0]
    assert len(results.splitlines()) > 2
