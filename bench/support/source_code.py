"""Text that every machine has: the source code of the installed Python packages."""

import sysconfig
from pathlib import Path


def documents(megabytes: float) -> list[str]:
    """Source files that are not empty, in the order of their paths, up to so many megabytes."""
    texts: list[str] = []
    size = 0
    for path in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        text = path.read_text(errors="replace")
        size += len(text.encode())
        texts += [text] if text else []
        if size >= megabytes * 1e6:
            break
    return texts
