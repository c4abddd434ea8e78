"""The console command `athanor`. A checkout of the server adds the server's commands."""

import sys
from importlib import import_module
from pathlib import Path

from .root import commands, names

LAUNCHER = Path(__file__).parents[2] / "launcher" / "cli.py"  # where this file lies in a checkout


def main() -> None:
    """Run a command of the client at once, and all others through the server's command line if it is there."""
    if LAUNCHER.exists() and sys.argv[1:2] not in [[name] for name in names()]:
        import_module("app.launcher.cli").main()
    else:
        commands()


if __name__ == "__main__":
    main()
