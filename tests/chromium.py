"""Find a Chromium for the browser tests; as a program (`python -m tests.chromium`), install one where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_SECONDS = 900


def find() -> str | None:
    """The path of a Chromium that starts: one of the system, or else the one that Playwright downloaded."""
    candidates = [path for name in NAMES if (path := shutil.which(name))]
    with sync_playwright() as playwright:
        candidates.append(playwright.chromium.executable_path)
    return next((path for path in candidates if starts(path)), None)


def starts(path: str) -> bool:
    """Whether this browser draws an empty page. Ubuntu's package is a stub that only says where to get the real one."""
    command = [path, "--headless", *FLAGS, "--dump-dom", "about:blank"]
    try:
        run = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.returncode == 0 and b"<html" in run.stdout


def superuser() -> list[str] | None:
    """What to write before a command that needs root; None for a user who may not run such commands."""
    if os.geteuid() == 0:
        return []
    may = (
        shutil.which("sudo") and not subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode
    )
    return ["sudo", "-n"] if may else None


def succeeds(*command: str, log: Path = Path(os.devnull)) -> bool:
    """Run a command and return whether it succeeded. Its output is appended to the log."""
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        try:
            run = subprocess.run(command, stdout=output, stderr=output, timeout=INSTALL_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            output.write(f"{error}\n".encode())
            return False
    return run.returncode == 0


def install(log: Path) -> str | None:
    """Install Chromium by apt or by Playwright's download; returns its path, or None if neither worked."""
    prefix = superuser()
    if prefix is not None and shutil.which("apt-get"):
        print("Installing Chromium with apt", flush=True)
        apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
        succeeds(*apt, "update", log=log)
        succeeds(*apt, "install", "--yes", "--no-install-recommends", "chromium", log=log)
    if path := find():
        return path
    print("Downloading Chromium with Playwright", flush=True)
    libraries = [] if prefix is None else ["--with-deps"]
    succeeds(sys.executable, "-m", "playwright", "install", *libraries, "chromium", log=log)
    return find()


def main() -> int:
    """Install a Chromium unless there is one. Answers the exit code."""
    log = Path(sys.prefix) / "chromium.log"
    if find() or install(log):
        return 0
    advice = "Install one (on Debian: apt install chromium) and run this again."
    print(f"The browser tests need a Chromium, and none could be installed ({log} says why). {advice}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
