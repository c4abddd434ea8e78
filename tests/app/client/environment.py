"""An environment that holds a client alone: the wheel of this checkout and the closure of what it declares."""

import os
import re
import shutil
import subprocess
import sys
import venv
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[3]


def create(directory: Path) -> Path:
    """A virtual environment with the client installed and no other package than it needs; its `bin` directory.

    Its dependencies are copied from the environment of the tests, so that nothing is downloaded.
    """
    wheels = directory / "wheels"
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT))
    (wheel,) = wheels.glob("athanor-*.whl")
    home = directory / "client"
    venv.create(home, symlinks=True, with_pip=False)
    python = home / "bin" / "python"
    packages = next(home.glob("lib/python*/site-packages"))
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (installed,) = metadata.distributions(name="athanor", path=[str(packages)])
    for name in closure(installed):
        copy(metadata.distribution(name), packages)
    return python.parent


def pip(*arguments: str) -> None:
    """Run pip, which must not see this checkout as an installed distribution."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, check=True, capture_output=True, text=True, env=variables, cwd="/")


def closure(distribution: metadata.Distribution) -> set[str]:
    """The names of everything that a distribution requires without any extra."""
    names: set[str] = set()
    waiting = required(distribution)
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting |= required(metadata.distribution(name))
    return names


def required(distribution: metadata.Distribution) -> set[str]:
    requirements = [line for line in distribution.requires or [] if "extra ==" not in line]
    names = {re.split(r"[^\w.-]", line.strip(), maxsplit=1)[0].lower().replace("_", "-") for line in requirements}
    return names & available()


@cache
def available() -> frozenset[str]:
    """What the tests run with. A requirement for another system or Python is not among it."""
    return frozenset(entry.name.lower().replace("_", "-") for entry in metadata.distributions() if entry.name)


def copy(distribution: metadata.Distribution, packages: Path) -> None:
    """Copy the files of an installed distribution to another site-packages."""
    for file in distribution.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)
