"""Schemathesis: thousands of requests that its strategies make of the OpenAPI document."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import environment
from tests.attack.attacks import attack
from tests.attack.target import Target, list_counts
from tests.faults.stack import ROOT

MIN_CASES = 5_000
MAX_EXAMPLES = 150  # of each operation and phase
SECONDS = 540
RESULT_VARIABLE = "ATTACK_CASES"  # the file that the hooks write their counts to
HOOKS = "tests.attack.schemathesis_hooks"
WITHOUT = "/api/v1/(logout|setup|login)"  # they end sessions or have limits that would refuse the rest


@attack(
    "Z1",
    f"at least {MIN_CASES:,} cases of Schemathesis, positive and negative, by a user's token",
    seconds=SECONDS + 60,
    in_soak=False,
)
def schemathesis(target: Target) -> str:
    """No status 5xx, no connection that ends without a response, no response without the security headers."""
    directory = environment.HOME / "schemathesis"
    directory.mkdir(exist_ok=True)
    counts_path = directory / "counts.json"
    log = directory / "output.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            command(target), cwd=directory, stdout=output, stderr=output, env=variables(counts_path)
        )
        try:
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
    assert counts_path.exists(), log.read_text()[-600:]
    counts = json.loads(counts_path.read_text())
    target.faults += counts["faults"]
    assert not counts["faults"], f"{len(counts['faults'])} faults, such as {counts['faults'][0]}"
    assert counts["cases"] >= MIN_CASES, f"only {counts['cases']} cases: {log.read_text()[-600:]}"
    return f"{counts['cases']:,} cases of {counts['operations']} operations: {list_counts(counts['statuses'])}"


def command(target: Target) -> list[str]:
    """The command line of Schemathesis."""
    document = target.installation.url("/api/openapi.json")
    options = [
        "--phases",
        "examples,coverage,fuzzing",
        "--checks",
        "not_a_server_error",
        "--no-shrink",
        "--continue-on-failure",
    ]
    options += ["--max-examples", str(MAX_EXAMPLES), "--workers", "2", "--request-timeout", "30", "--warnings", "off"]
    options += ["--max-time", str(SECONDS - 60), "--suppress-health-check", "all", "--exclude-path-regex", WITHOUT]
    options += ["--header", f"Authorization: Bearer {target.mallory.token}"]
    program = Path(sys.executable).with_name("schemathesis")
    return ["nice", "-n", "10", str(program), "run", document, *options]


def variables(counts_path: Path) -> dict[str, str]:
    """The environment of Schemathesis."""
    paths = {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": HOOKS, RESULT_VARIABLE: str(counts_path)}
    return {**os.environ, **paths, "NO_COLOR": "1", "COLUMNS": "120"}
