"""The code that the form of a new job shows submits what its button submits."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from app.core import db
from app.core.models import HyperparameterSearch, Job
from tests import web_server
from tests.app.jobs import factories
from tests.users import Person

ROOT = Path(__file__).parents[3]
FIELDS = {"recipe": "tiny", "max_steps": "40", "warmup_steps": "2", "name": "It's 学习", "learning_rate": "0.002"}
SEARCH = {"search_field_1": "learning_rate", "search_values_1": "0.001, 0.003", "early_stopping": "true"}
SAMPLED = {
    "search_field_1": "learning_rate",
    "search_values_1": "1e-4..1e-2",
    "search_sampler": "random",
    "search_num_jobs": "2",
}


@pytest.fixture(scope="module")
def address(database: str) -> Iterator[str]:
    """The application on a real socket."""
    with web_server.running() as address:
        yield address


def code_in(page: str, address: str) -> dict[str, str]:
    """The code in a page, for the server at an address."""
    blocks = re.findall(r'<pre class="code" id="code-(\w+)" tabindex="0">(.*?)</pre>', page, re.DOTALL)
    return {language: unescape(text).replace("http://localhost", address) for language, text in blocks}


def run_json(text: str, token: str, address: str) -> None:
    path = "hyperparameter-searches" if '"spec"' in text else "jobs"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    httpx.post(f"{address}/api/v1/{path}", content=text, headers=headers, timeout=60).raise_for_status()


def run_curl(text: str, token: str, address: str) -> None:
    if shutil.which("curl"):
        command = f"set -e\n{text} --fail --silent --show-error"
        subprocess.run(["sh", "-c", command], env={**os.environ, "ATHANOR_TOKEN": token}, check=True, timeout=60)
        return
    _curl, url, *options = shlex.split(text.replace("\\\n", " ").replace("$ATHANOR_TOKEN", token))
    values = dict(zip(options[::2], options[1::2], strict=True))
    assert values.keys() == {"-H", "-d"}
    headers = dict(line.split(": ") for name, line in zip(options[::2], options[1::2], strict=True) if name == "-H")
    httpx.post(url, content=values["-d"], headers=headers, timeout=60).raise_for_status()


def run_python(text: str, token: str, directory: Path) -> None:
    (directory / "athanor").symlink_to(ROOT / "app/client")
    environment = {**os.environ, "ATHANOR_TOKEN": token, "PYTHONPATH": str(directory)}
    subprocess.run([sys.executable, "-c", text], env=environment, cwd=directory, check=True, timeout=60)


def newest_specs(count: int) -> list[dict[str, Any]]:
    """The specs of the newest jobs, without their seeds and what names a search."""
    with db.transaction() as session:
        jobs = session.query(Job).order_by(Job.id.desc()).limit(count)
        return [job.spec.model_dump(exclude={"seed"}) for job in reversed(list(jobs))]


@pytest.mark.parametrize("more", [{}, SEARCH, SAMPLED], ids=["job", "search", "sample"])
def test_all_three_submit_what_the_form_submits(
    alice: TestClient, alice_user: Person, address: str, tmp_path: Path, more: dict[str, str]
) -> None:
    factories.node()
    data = {**FIELDS, **more, "corpora": factories.corpus(alice_user), "key": "k" * 16}
    code, token = code_in(alice.post("/jobs/plan", data=data).text, address), alice_user.token()
    num_jobs = 2 if more else 1
    answer = alice.post("/jobs", data=data)
    assert answer.status_code == 303, answer.text
    expected = newest_specs(num_jobs)
    assert expected[0]["max_steps"] == 40
    runs: dict[str, Callable[[], None]] = {
        "json": lambda: run_json(code["json"], token, address),
        "curl": lambda: run_curl(code["curl"], token, address),
        "python": lambda: run_python(code["python"], token, tmp_path),
    }
    assert code.keys() == runs.keys()
    for count, run in enumerate(runs.values(), start=2):
        run()
        assert newest_specs(num_jobs) == expected
        with db.transaction() as session:
            owned = session.query(Job).where(Job.spec["corpora"][0].astext == data["corpora"]).count()
        assert owned == count * num_jobs
    if more:
        with db.transaction() as session:
            searches = session.query(HyperparameterSearch).order_by(HyperparameterSearch.id.desc()).limit(4).all()
        assert {search.early_stopping for search in searches} == {"early_stopping" in more}


def test_the_code_of_a_continued_job_names_its_checkpoint(alice: TestClient, alice_user: Person) -> None:
    factories.node()
    _job, checkpoint = factories.finished(alice_user, factories.corpus(alice_user), max_steps=8, warmup_steps=0)
    code = code_in(alice.get(f"/jobs/new?from={checkpoint}").text, "http://localhost")
    assert f'"resume_from_checkpoint": "{checkpoint}"' in code["json"]
    assert '"recipe"' not in code["json"]
    missing = code_in(alice.post("/jobs/plan", data={"recipe": "tiny", "max_steps": "many"}).text, "")
    assert '"max_steps": "many"' in missing["json"]
