"""The sandboxed child that reads a corpus of several files, one after the other, as parse.py reads one.

`python -m worker.sandbox.corpus.parse_files DIRECTORY --memory=BYTES`

DIRECTORY/files.json lists the files: the name on disk, the name that people know, and the options of parse.py. Their
documents are joined in `text.bin` and `index.bin`. All files hold records of one kind. If files cannot be read, all are
tried, so that all reasons are reported at once.
"""

import argparse
import array
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from trainer.formats.corpus_kinds import GROUPS_FILE
from worker.sandbox.corpus.parse import CorpusWriter, UnreadableCorpus, parse
from worker.sandbox.disk_space import storage_problem
from worker.sandbox.reporting import ProgressReporter, report

LIST = "files.json"
PART = "part"  # the directory in which one file is read
PROBLEMS_PER_FILE = 5
MAX_PROBLEMS = 100
MAX_KEYS = 100  # of labels and unused keys
MAX_FILES_OF_OFFER = 500  # that are named, to be read again at once; a form may have a thousand fields
SUMS = (
    *("num_bad_lines", "num_bad_places", "num_turns", "num_skipped_documents", "num_files"),
    *("num_remarks", "num_ungrouped"),
)
OPTIONS = ("kind", "skip_bad", "bad_bytes", "bad_bytes_by_file", "mapping", "group_column")
FIRST = ("columns", "languages")
COUNTS = ("bad_lines", "labels", "groups", "unused_keys", "lengths", "skipped_files")


class JoinedCorpus(CorpusWriter):
    """Appends corpora that were written each to a directory of its own."""

    def append(self, directory: Path, num_documents: int, num_characters: int) -> None:
        """Append all documents of a directory."""
        begin = self.num_bytes
        with (directory / "text.bin").open("rb") as text:
            while data := text.read(1 << 20):
                self.space.spend(len(data))
                self._text.write(data)
                self._text_hash.update(data)
                self.num_bytes += len(data)
        with (directory / "index.bin").open("rb") as index:
            while data := index.read(1 << 20):
                ends = array.array("Q", data)
                if sys.byteorder == "big":
                    ends.byteswap()
                self._ends.extend(begin + end for end in ends)
                self._flush_index(1 << 20)
        if self._groups is not None:
            groups = array.array("Q", (directory / GROUPS_FILE).read_bytes())
            if sys.byteorder == "big":
                groups.byteswap()
            self._groups.extend(groups)
        self.num_documents += num_documents
        self.num_characters += num_characters


class BrokenFileGroups:
    """The files that cannot be decoded. Those for which the same is advised are read again together: they have the same
    encoding, which is rather right or wrong, and the same likeliest other one. What is offered is that for the first.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(self, filename: str, broken: dict[str, Any]) -> None:
        """Note what the report of a file says of it."""
        likeliest = next((offer["encoding"] for offer in broken["candidates"]), None)
        key = (broken["encoding"], broken["is_encoding_right"], likeliest)
        numbers = dict.fromkeys(("num_files", "num_bytes", "num_bad_places", "num_foreign"), 0)
        group = self._groups.setdefault(key, {**broken, **numbers, "files": []})
        for name in numbers:
            group[name] += broken.get(name, 1)
        group["is_counted_in_part"] = group["is_counted_in_part"] or broken["is_counted_in_part"]
        if len(group["files"]) < MAX_FILES_OF_OFFER:
            group["files"].append(filename)

    def report(self) -> list[dict[str, Any]]:
        """The groups, those whose encoding is wrong first."""
        return sorted(self._groups.values(), key=lambda group: group["is_encoding_right"])


class Facts:
    """What was counted in all files together."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTS}
        self.first: dict[str, Any] = {}  # what describes all files, as the first one that has it says
        self._is_complete = True  # whether each file names all its labels
        self._has_all_groups = True

    def add(self, facts: dict[str, Any]) -> None:
        """Count those of one file."""
        for name in SUMS:
            if facts.get(name):
                self._sums[name] += facts[name]
        self.first = {**{name: facts[name] for name in FIRST if facts.get(name)}, **self.first}
        for name in COUNTS:
            self._counts[name].update(facts.get(name) or {})
        if (facts.get("num_labels") or 0) > len(facts.get("labels") or {}):
            self._is_complete = False
        if (facts.get("num_groups") or 0) > len(facts.get("groups") or {}):
            self._has_all_groups = False

    def report(self) -> dict[str, Any]:
        """As the report of one file has them. The number of labels is known where all were listed."""
        facts: dict[str, Any] = dict(self._sums)
        num_labels, num_groups = len(self._counts["labels"]), len(self._counts["groups"])
        for name, counts in self._counts.items():
            facts[name] = dict(counts.most_common(MAX_KEYS if name in ("labels", "unused_keys", "groups") else None))
        if num_groups:
            facts["num_groups"] = num_groups if self._has_all_groups else max(num_groups, MAX_KEYS + 1)
        if num_labels:
            facts["num_labels"] = num_labels if self._is_complete else max(num_labels, MAX_KEYS + 1)
        return facts


def parse_files(
    directory: Path, files: list[dict[str, Any]], progress: Callable[[int], None], keep_free: int = 0
) -> dict[str, Any]:
    """Parse all files in their order and return what was read. Raises UnreadableCorpus."""
    output = JoinedCorpus(directory, has_groups=files[0]["options"]["group_column"] is not None, keep_free=keep_free)
    facts = Facts()
    options = {name: files[0]["options"][name] for name in OPTIONS}
    kind: str | None = options["kind"]
    problems: list[dict[str, Any]] = []
    remarks: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []
    broken_files = BrokenFileGroups()
    is_failed, done = False, 0
    encodings = set()
    try:
        for position, file in enumerate(files):
            upload = directory / file["path"]
            try:
                result = _parse_one(
                    directory, upload, _options_of(file), partial(_report_sum, progress, done), keep_free
                )
                file_problems, report_of_file = result["problems"], result["progress"]
                if kind is None or kind == result["kind"]:
                    kind = result["kind"]
                    output.append(directory / PART, result["num_documents"], result["num_characters"])
                else:
                    file_problems = [{"code": "kind_differs", "kind": result["kind"], "first_kind": kind}]
                    result.update(num_documents=None, num_text_bytes=None)
                    is_failed = True
                encodings.add(result["encoding"])
            except UnreadableCorpus as refused:
                result = {}
                is_failed = True
                report_of_file = {name: value for name, value in refused.report.items() if name != "problems"}
                file_problems = refused.report["problems"]
                for broken in report_of_file.get("broken_files", []):
                    broken_files.add(file["filename"], broken)
            facts.add(report_of_file)
            problems += [_in_file(file["filename"], problem) for problem in file_problems[:PROBLEMS_PER_FILE]]
            remarks += [_in_file(file["filename"], remark) for remark in report_of_file.get("remarks", [])]
            names = ("encoding", "num_documents", "num_text_bytes")
            counted = {name: result.get(name) for name in names if name != "encoding" or result}
            num_problems = report_of_file.get("num_bad_lines") or len(file_problems)
            reports.append({"position": position, **counted, "num_problems": num_problems})
            done += upload.stat().st_size
            progress(done)
        progress_report = {**options, **facts.report(), "remarks": remarks[:MAX_PROBLEMS], **facts.first}
        if is_failed:
            progress_report["broken_files"] = broken_files.report()
            raise UnreadableCorpus(problems[:MAX_PROBLEMS], **progress_report, files=reports)
        sha256 = output.finish()
    finally:
        output.discard()
        shutil.rmtree(directory / PART, ignore_errors=True)
    return {
        "encoding": encodings.pop() if len(encodings) == 1 else None,
        "kind": kind or "text",
        "num_documents": output.num_documents,
        "num_characters": output.num_characters,
        "num_text_bytes": output.num_bytes,
        "text_sha256": sha256,
        "problems": problems[:MAX_PROBLEMS],
        "progress": progress_report,
        "files": reports,
    }


def _in_file(filename: str, problem: dict[str, Any]) -> dict[str, Any]:
    """A problem with the name of its file, and of its member if that is an archive."""
    member = problem.get("file")
    return {**problem, "file": filename if member is None else f"{filename}/{member}"}


def _report_sum(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _options_of(file: dict[str, Any]) -> dict[str, Any]:
    """The options of a file, with what was chosen for it alone about undecodable bytes."""
    options: dict[str, Any] = file["options"]
    bad_bytes = options["bad_bytes_by_file"].get(file["filename"], options["bad_bytes"])
    return {**options, "bad_bytes": bad_bytes}


def _parse_one(
    directory: Path, upload: Path, options: dict[str, Any], progress: Callable[[int], None], keep_free: int
) -> dict[str, Any]:
    """Parse one file into DIRECTORY/part. Raises UnreadableCorpus."""
    part = directory / PART
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    os.link(upload, part / "upload")
    choices = (options["encoding"], options["skip_bad"], progress, options["kind"], options["bad_bytes"])
    return parse(part, options["form"], *choices, options["mapping"], options["group_column"], keep_free)


def main() -> None:
    """Parse the files of a directory under limits, and report."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--memory", type=int, required=True, help="what it may use, for the message")
    arguments.add_argument("--keep-free", type=int, default=0, help="bytes of the disk that must stay free")
    options = arguments.parse_args()
    files = json.loads((options.directory / LIST).read_text())
    total = sum((options.directory / file["path"]).stat().st_size for file in files)
    try:
        report({"result": parse_files(options.directory, files, ProgressReporter(total), options.keep_free)})
    except UnreadableCorpus as refused:
        report({"failed": refused.report})
    except MemoryError:
        report({"failed": {"problems": [{"code": "out_of_memory", "limit_bytes": options.memory}]}})
    except OSError as error:
        report({"failed": {"problems": [storage_problem(error)]}})


if __name__ == "__main__":
    main()
