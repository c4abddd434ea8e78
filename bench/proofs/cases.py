"""Whether the right value of each case that broke comparable systems holds here: runs the tests that hold it.

`PYTHONPATH=. python bench/proofs/cases.py [--smoke]`, about ten minutes. Writes docs/measurements/cases.md, row by row
of bench/support/cases.py; the exit status is 1 where a test fails.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from bench.support.arguments import IS_SMOKE
from bench.support.cases import MODELS, RECORDS, Case

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "measurements" / "cases.md"
Outcomes = dict[str, list[bool]]  # whether each run of a test passed, by file and name


def outcomes(tests: Sequence[str]) -> Outcomes:
    """Run tests. A test that is not there has no runs."""
    with TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        options = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, *sorted(tests)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, stdout=sys.stderr)
        runs = ElementTree.parse(report).iter("testcase")
        results: Outcomes = {test: [] for test in tests}
        for run in runs:
            name = f"{run.get('file')}::{run.get('name', '').partition('[')[0]}"
            if name in results:
                results[name].append(not any(child.tag in ("failure", "error", "skipped") for child in run))
    return results


def row(case: Case, results: Mapping[str, list[bool]]) -> str:
    """A line of the table."""
    runs = [passed for test in case.tests for passed in results[test] or [False]]
    result = f"{len(runs)} passed" if all(runs) else f"{runs.count(False)} of {len(runs)} failed"
    tests = "<br>".join(f"`{test}`" for test in case.tests)
    files = f" ({', '.join(f'`{pattern}`' for pattern in case.files)})" if case.files else ""
    return f"| {case.name}{files} | {case.source} | {case.right} | {tests} | {result} |"


def table(cases: Sequence[Case], results: Mapping[str, list[bool]]) -> str:
    """The table of some cases."""
    head = "| case | source | right | tests | result |\n| --- | --- | --- | --- | --- |"
    return "\n".join([head, *(row(case, results) for case in cases)])


def report(results: Mapping[str, list[bool]]) -> str:
    """The document."""
    return f"""\
# Cases that broke comparable systems

`PYTHONPATH=. python bench/proofs/cases.py` runs these tests and writes this page. The files are those of
`tests/fixtures/cases/data`; a source is the public thread that a case was made after, “Athanor” where there is none. A
test counts once for each of its parameters.

## Corpora and records

{table(RECORDS, results)}

## Base models, fine-tuning, exports

{table(MODELS, results)}
"""


def main() -> int:
    """Run all tests; 1 if one of them failed."""
    cases = RECORDS[:1] if IS_SMOKE else (*RECORDS, *MODELS)
    results = outcomes(sorted({test for case in cases for test in case.tests[: 1 if IS_SMOKE else None]}))
    if IS_SMOKE:
        print(", ".join(f"{test}: {len(runs)} runs, {runs.count(False)} failed" for test, runs in results.items()))
    else:
        REPORT.write_text(report(results))
        print(table(cases, results))
    return int(not all(runs and all(runs) for runs in results.values()))


if __name__ == "__main__":
    sys.exit(main())
