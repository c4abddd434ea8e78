"""A corpus is not written, and nothing is decompressed, beyond what the disk must keep free."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.corpora.cleaning.recipe import RECIPE_FILE
from tests.worker.sandbox.corpus.sample_files import tarred, zipped, zstd
from trainer.formats.corpus_kinds import GROUPS_FILE
from worker.sandbox.cleaning.documents import CorpusDocument
from worker.sandbox.cleaning.steps import Context, read_twice
from worker.sandbox.corpus import parse
from worker.sandbox.corpus.parse_files import LIST, OPTIONS
from worker.sandbox.disk_space import STEP_BYTES, DiskSpace

ALL = 1 << 62  # more than any disk has
TEXT = b"One line of a text.\n" * 200_000
UPLOADS = {
    "txt": TEXT,
    "txt.gz": gzip.compress(TEXT),
    "txt.zst": zstd(TEXT),
    "zip": zipped([("a.txt", TEXT)]),
    "tar": tarred([("a.txt", TEXT)]),
}
FULL = {"failed": {"problems": [{"code": "disk_filled_up"}]}}


def closing(*command: str) -> dict[str, object]:
    """The closing report of a child that must leave more free than there is."""
    full = [sys.executable, "-m", *command, f"--memory={1 << 30}", f"--keep-free={ALL}"]
    report: dict[str, object] = json.loads(
        subprocess.run(full, capture_output=True, check=True).stdout.splitlines()[-1]
    )
    return report


@pytest.mark.parametrize("form", UPLOADS)
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, form: str) -> None:
    (tmp_path / "upload").write_bytes(UPLOADS[form])

    assert closing("worker.sandbox.corpus.parse", str(tmp_path), form) == FULL
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]


def test_a_full_disk_is_named_for_a_cleaned_version(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    parent.mkdir()
    child.mkdir()
    output = parse.CorpusWriter(parent)
    output.documents([TEXT.decode()])
    output.finish()
    steps = [{"name": "length", "min_characters": 0}]
    recipe = {"path": str(parent), "kind": "text", "steps": steps, "corpora": []}
    (child / RECIPE_FILE).write_text(json.dumps(recipe))

    assert closing("worker.sandbox.cleaning.clean", str(child)) == FULL
    assert [path.name for path in child.iterdir()] == [RECIPE_FILE]


def test_documents_that_wait_for_a_second_pass_need_free_space(tmp_path: Path) -> None:
    context = Context({}, lambda: tmp_path / "spool", lambda _done: None, DiskSpace(tmp_path, ALL))

    with pytest.raises(OSError, match="No space"):
        next(read_twice(context, [CorpusDocument(0, "a")], lambda _document: None))


def test_the_groups_of_documents_need_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = parse.CorpusWriter(tmp_path, has_groups=True, keep_free=STEP_BYTES)
    output.documents(["a"], [1])
    spent: list[int] = []
    monkeypatch.setattr(output.space, "spend", spent.append)
    output.finish()

    index_bytes, group_bytes = ((tmp_path / name).stat().st_size for name in ("index.bin", GROUPS_FILE))
    assert spent == [index_bytes, group_bytes]


def test_a_full_disk_is_named_for_several_files(tmp_path: Path) -> None:
    options: dict[str, object] = {
        **dict.fromkeys(OPTIONS),
        "bad_bytes_by_file": {},
        "skip_bad": False,
        "form": "txt.gz",
        "encoding": None,
    }
    (tmp_path / "upload").write_bytes(UPLOADS["txt.gz"])
    (tmp_path / LIST).write_text(json.dumps(2 * [{"path": "upload", "filename": "a.txt.gz", "options": options}]))

    assert closing("worker.sandbox.corpus.parse_files", str(tmp_path)) == FULL


@pytest.mark.parametrize("form", ["txt.gz", "zip"])
def test_decompression_ends_within_a_mebibyte_of_what_must_stay_free(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    class Disk:
        free = 3 * STEP_BYTES

        def __init__(self) -> None:
            written.append(sum(path.stat().st_size for path in tmp_path.glob("*.bin.*")))
            self.free -= written[-1]

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Disk())
    (tmp_path / "upload").write_bytes(UPLOADS[form])

    with pytest.raises(OSError, match="No space"):
        parse.parse(tmp_path, form, None, False, lambda _done: None, keep_free=STEP_BYTES)
    assert STEP_BYTES <= max(written) <= 2 * STEP_BYTES


def test_the_disk_is_looked_at_for_each_mebibyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []
    usage = shutil.disk_usage(tmp_path)

    def look(path: Path) -> object:
        looks.append(path)
        return usage

    monkeypatch.setattr(shutil, "disk_usage", look)
    space = DiskSpace(tmp_path)
    for _number in range(4 * 1024):
        space.spend(1024)

    assert looks == [tmp_path] * 4
