"""The version of Athanor, read from the changelog, so that the two agree."""

import re
from pathlib import Path

_HEADING = re.compile(r"^## (\d+\.\d+\.\d+)", re.MULTILINE)


def _read() -> str:
    heading = _HEADING.search((Path(__file__).parents[2] / "CHANGELOG.md").read_text())
    assert heading, "CHANGELOG.md has no version heading"
    return heading[1]


VERSION = _read()
