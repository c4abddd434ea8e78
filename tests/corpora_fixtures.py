"""Real text for tests: the King James Bible from the Debian package bible-kjv-text, which is in the public domain."""

import re
import subprocess
from functools import cache

_HEADING = re.compile(r"^(\S.*) (\d+)$")
_VERSE = re.compile(r"^ *\d+ (.*)$")


@cache
def king_james(passage: str = "gen1:1-rev22:21") -> str:
    """A passage, by default all of it (4 MB): one verse a line, a form feed between chapters, each under its title."""
    try:
        run = subprocess.run(["bible", "-l99999", passage], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        message = "The King James text is missing. Install it: apt-get install bible-kjv bible-kjv-text"
        raise AssertionError(message) from error
    chapters: list[list[str]] = []
    book = ""
    for line in run.stdout.decode("ascii").splitlines():
        if heading := _HEADING.match(line):
            book = heading[1]
            chapters.append([f"{book} {heading[2]}", ""])
        elif verse := _VERSE.match(line):
            chapters[-1].append(verse[1])
        elif line.strip():
            chapters[-1].append(line.strip())
    return "\f".join("\n".join(chapter) + "\n" for chapter in chapters)
