"""The command line of a benchmark: a size, names, and --smoke, with which tests run it as small as can be."""

import sys
from collections.abc import Iterable
from typing import TypeVar

IS_SMOKE = "--smoke" in sys.argv
WORDS = [argument for argument in sys.argv[1:] if not argument.startswith("--")]

Number = TypeVar("Number", int, float)


def size(default: Number, *, smoke: Number) -> Number:
    """The number that the command line begins with, or else the default; with --smoke the small one."""
    return smoke if IS_SMOKE else type(default)(WORDS[0]) if WORDS else default


def names(default: Iterable[str]) -> list[str]:
    """What the command line names; by default, all."""
    return WORDS or list(default)
