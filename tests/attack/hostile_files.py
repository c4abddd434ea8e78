"""Archives and documents that are made to harm who reads them as corpora."""

import gzip
import tarfile
from collections.abc import Iterator

from tests.attack.hostile_models import link, sparse_tar, tar_of, zip_of
from tests.attack.requests import CANARY
from tests.worker.sandbox.corpus.bad_files import FILES
from tests.worker.sandbox.corpus.bad_shapes import nested
from tests.worker.sandbox.corpus.sample_files import docx_of_markup, epub, xlsx_of_markup, zstd

BOMB_BYTES = 100_000_000
DOCUMENT_BYTES = 300_000
TEXT = b"A line of text, and another one.\n"
PATHS = (f"../../../../tmp/{CANARY}", f"/tmp/{CANARY}", "..\\..\\a.txt", "a/../../a.txt", "x\0.txt", "a" * 60_000)
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
# Billions of characters by nine lines: a reader that expands entities never ends.
LAUGHS = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
LAUGHING = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY l0 "ha">{LAUGHS}]><d>&l9;</d>'
STEAL = '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/passwd">]><d>&f;</d>'


def archives() -> Iterator[tuple[str, bytes]]:
    """Archives by a name that ends as their format does."""
    zeros = bytes(BOMB_BYTES)
    yield "bomb.zip", zip_of({"a.txt": zeros})
    yield "bomb.txt.gz", gzip.compress(zeros, compresslevel=1)
    yield "bomb.txt.zst", zstd(zeros)
    yield "bomb.tar.gz", gzip.compress(tar_of({"a.txt": zeros}), compresslevel=1)
    yield "bombs.zip", zip_of({f"{n}.txt.gz": gzip.compress(bytes(10_000_000), compresslevel=1) for n in range(30)})
    yield "sparse.tar", sparse_tar()
    inner = zip_of({"a.txt": TEXT})
    for _level in range(50):
        inner = zip_of({"a.zip": inner})
    yield "nested.zip", inner
    yield "members.zip", zip_of({f"{n}.txt": b"a" for n in range(20_000)})
    yield "members.tar", tar_of({f"{n}/" * 20 + f"{n}.txt": b"a" for n in range(5_000)})
    for number, path in enumerate(PATHS):
        yield f"path-{number}.zip", zip_of({path: TEXT, f"{path[:60]}.txt": TEXT, "a.txt": TEXT})
        yield f"path-{number}.tar", tar_of({path.replace("\0", ""): TEXT, "a.txt": TEXT})
    for kind in LINKS:
        yield f"link-{kind.decode()}.tar", tar_of({"a.txt": TEXT}, link(kind))
    whole = zip_of({"a.txt": TEXT * 1000})
    yield "cut.zip", whole[: len(whole) // 2]
    yield "twice.zip", whole + whole


def documents() -> Iterator[tuple[str, bytes]]:
    """Documents by a name that ends as their format does."""
    for form in ("pdf", "docx", "epub", "xlsx"):
        for number, shape in enumerate(list(FILES[form].values())[::3]):  # each third, for the time of a row
            yield f"shape-{number}.{form}", shape(DOCUMENT_BYTES)
    head = '<row r="1"><c r="A1" t="inlineStr"><is><t>text</t></is></c></row>'
    yield "corner.xlsx", xlsx_of_markup(f'{head}<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>')
    rows = (f'<row r="{n}"><c r="XFD{n}"><v>1</v></c></row>' for n in range(2, 1_000_000, 1_000))
    yield "sparse.xlsx", xlsx_of_markup(head + "".join(rows))
    yield "bomb.xlsx", xlsx_of_markup(head + "<row><c><v>1</v></c></row>" * 5_000_000)
    yield "bomb.docx", docx_of_markup("<w>" + "a" * BOMB_BYTES + "</w>")
    for name, markup in (("laughs", LAUGHING), ("steal", STEAL)):
        yield f"{name}.docx", docx_of_markup(markup)
        yield f"{name}.epub", epub([markup])
        yield f"{name}.xlsx", xlsx_of_markup(markup)
    yield "deep.html", nested("<div>a", "</div>", "", "")(3_000_000)
    yield "open.html", b"<table><tr><td>" * 200_000
    yield "attributes.html", b"<p " + b"".join(b'a%d="" ' % n for n in range(200_000)) + b">a</p>"
