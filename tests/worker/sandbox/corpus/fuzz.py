"""Parses damaged files of one format, one after the other, in this process, as the sandboxed child does each.

`python -m tests.worker.sandbox.corpus.fuzz FORMAT COUNT SEED DIRECTORY` prints a line of JSON for each file: how its
parsing ended. FUZZ_FILES=500 makes test_fuzz.py try so many of each format.
"""

import io
import json
import random
import sys
import traceback
import zipfile
from pathlib import Path

from tests.worker.sandbox.corpus.sample_files import SAMPLES, zipped
from worker.sandbox.corpus import parse


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A damaged file: as a whole, or, of a zip file, one of its members."""
    if not content.startswith(b"PK") or chance.random() < 0.3:
        return with_accidents(content, chance)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = chance.randrange(len(members))
    members[at] = (members[at][0], with_accidents(members[at][1], chance))
    return zipped(members)


def with_accidents(content: bytes, chance: random.Random) -> bytes:
    """Bytes after one to four accidents: changed, cut out, repeated, moved, or cut off at the end."""
    data = bytearray(content)
    for _accident in range(chance.randint(1, 4)):
        if not data:
            break
        at = chance.randrange(len(data))
        length = chance.choice((1, 1, 1, 2, 4, 16, chance.randint(1, len(data))))
        piece = data[at : at + length]
        accident = chance.randrange(7)
        if accident == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif accident == 1:
            data[at : at + length] = chance.randbytes(len(piece))
        elif accident == 2:
            del data[at : at + length]
        elif accident == 3:
            data[at:at] = piece * chance.choice((1, 2, 50))
        elif accident == 4:
            place = chance.randrange(len(data))
            data[place:place] = piece
        elif accident == 5:
            data[at : at + length] = bytes([chance.choice((0, 255, 10, 34, 60))]) * len(piece)
        elif chance.random() < 0.3:
            del data[at:]
    return bytes(data)


def outcome(directory: Path, form: str, content: bytes) -> str:
    """How the parsing of a file ended: ready, the code of its problem, or what was raised."""
    (directory / "upload").write_bytes(content)
    try:
        parse.parse(directory, form, None, True, lambda done: None)
    except parse.UnreadableCorpus as refused:
        return str(refused.report["problems"][0]["code"])
    except MemoryError:
        return "out_of_memory"
    except Exception:
        return traceback.format_exc()
    return "ready"


def main() -> None:
    """Parse COUNT files."""
    form, count, seed, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    for number in range(count):
        chance = random.Random(f"{form} {seed} {number}")
        content = damaged(SAMPLES[form], chance)
        print(json.dumps({"number": number, "outcome": outcome(directory, form, content)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
