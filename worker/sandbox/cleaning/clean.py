"""The sandboxed child that cleans a corpus by a recipe.

`python -m worker.sandbox.cleaning.clean DIRECTORY --memory=BYTES --keep-free=BYTES` reads DIRECTORY/recipe.json, and
writes there what parsing writes, `text.bin` and `index.bin`, and besides `upload`, the same documents as JSON lines,
which can be read like any other upload, and `examples.json`, samples of what each step removed or changed. With
`--preview` it reads the recipe from standard input, cleans the first documents, and writes nothing but the scores of a
model; if it refuses that, it prints the code to standard error and exits with EXIT_BAD_INPUT.

Documents pass the steps one by one. What grows with the corpus are hashes and signatures: about 100 bytes a document of
exact duplicates, 2.3 KB of near ones. Reports are those of worker/sandbox/corpus/parse.py.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from app.corpora.cleaning.recipe import EXAMPLES_FILE, RECIPE_FILE, STEPS_ADAPTER, StepSettings
from trainer.events import EXIT_BAD_INPUT
from trainer.formats import jsonlines
from trainer.formats.corpus_kinds import GROUPS_FILE, group_hash
from worker.sandbox.cleaning.documents import CorpusDocument, read_documents
from worker.sandbox.cleaning.steps import CleaningRefused, Context, Reference, ScoringModel, Step
from worker.sandbox.corpus.fields import BadLine, BadLines
from worker.sandbox.corpus.json_records import MAX_LINE_CHARACTERS
from worker.sandbox.corpus.parse import CorpusWriter
from worker.sandbox.corpus.record_schema import RecordReader
from worker.sandbox.disk_space import DiskSpace, storage_problem
from worker.sandbox.reporting import ProgressReporter, report

PREVIEW_BYTES = 8 << 20  # of the corpus, and of each corpus that it is compared with
PREVIEW_SECONDS = 30.0  # after which a preview with a model that scores reads no further document
# The module and class of each step. Libraries are imported when a recipe needs them.
_STEPS = {
    "fix_unicode": ("edits", "FixUnicodeStep"),
    "boilerplate": ("edits", "BoilerplateStep"),
    "length": ("filters", "LengthStep"),
    "repetition": ("filters", "RepetitionStep"),
    "language": ("filters", "LanguageStep"),
    "exact_duplicates": ("duplicates", "ExactDuplicatesStep"),
    "near_duplicates": ("duplicates", "NearDuplicatesStep"),
    "contamination": ("duplicates", "ContaminationStep"),
    "perplexity": ("perplexity", "PerplexityStep"),
    "mask_personal_data": ("masking", "MaskPersonalDataStep"),
    "mask_secrets": ("masking", "MaskSecretsStep"),
}


class Pipeline:
    """The steps of a recipe on the documents of a corpus.

    `recipe` has the `path` and `kind` of the corpus, its `steps`, and `corpora`: ID, name, path and kind of each that
    it is compared with; and `models`: path and SHA-256 of each that scores documents, by its ID. If
    `is_score_cache_read_only`, the scores of documents are not kept beside the corpus.
    """

    def __init__(
        self,
        recipe: dict[str, Any],
        directory: Path | None,
        progress: Callable[[int], None],
        limit: int | None = None,
        space: DiskSpace | None = None,
    ) -> None:
        """With a `limit`, only the first documents are read. Reading the other corpora takes place here. `space` is
        that of the files in which documents wait.
        """
        self._recipe, self._limit = recipe, limit
        self._done, self._progress = 0, progress
        self._directory = directory
        max_bytes = None if limit is None else PREVIEW_BYTES
        references = {
            corpus["id"]: Reference(corpus["id"], corpus["name"], partial(self._read, corpus, max_bytes=max_bytes))
            for corpus in recipe["corpora"]
        }
        is_read_only = recipe.get("is_score_cache_read_only", False)
        models = {
            model_id: ScoringModel(Path(model["path"]), model["sha256"], Path(recipe["path"]), is_read_only)
            for model_id, model in recipe.get("models", {}).items()
        }
        space = space or DiskSpace(self._spool().parent)
        context = Context(references, self._spool, self._advance, space, models)
        settings = STEPS_ADAPTER.validate_python(recipe["steps"])
        self.steps = [make_step(step, context, number) for number, step in enumerate(settings)]
        self._deadline = time.monotonic() + PREVIEW_SECONDS if models and limit is not None else None
        self.num_read = 0

    def _spool(self) -> Path:
        directory = self._directory or Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - removed at once
        return directory / f"spool.bin.{os.getpid()}"

    def _advance(self, num_bytes: int) -> None:
        self._done += num_bytes
        self._progress(self._done)

    def _read(self, corpus: dict[str, Any], **limits: int | None) -> Iterator[CorpusDocument]:
        return read_documents(Path(corpus["path"]), corpus["kind"], self._advance, **limits)

    def documents(self) -> Iterator[CorpusDocument]:
        """What is left."""
        max_bytes = None if self._limit is None else PREVIEW_BYTES
        documents = self._counted(self._read(self._recipe, limit=self._limit, max_bytes=max_bytes))
        for step in self.steps:
            documents = step.run(documents)
        return documents

    def _counted(self, documents: Iterator[CorpusDocument]) -> Iterator[CorpusDocument]:
        for document in documents:
            self.num_read += 1
            yield document
            if self._deadline is not None and time.monotonic() > self._deadline:
                return

    def facts(self) -> list[dict[str, Any]]:
        """What each step did."""
        return [step.counts.facts() for step in self.steps]


def make_step(settings: StepSettings, context: Context, seed: int) -> Step:
    """The step with some settings."""
    module, name = _STEPS[settings.name]
    step: Step = getattr(import_module(f"worker.sandbox.cleaning.{module}"), name)(settings, context, seed)
    return step


def total_bytes(recipe: dict[str, Any]) -> int:
    """The bytes that are read: of the corpus, again for each step that needs two passes, and of other corpora. The
    second pass of a step whose model scores documents takes next to nothing beside the first.
    """
    sizes: dict[str, int] = {corpus["id"]: _size(corpus) for corpus in recipe["corpora"]}
    others: int = sum(sizes[corpus_id] for step in recipe["steps"] for corpus_id in step.get("corpora", []))
    two_passes = ("boilerplate", "perplexity")
    passes: int = 1 + sum(step["name"] in two_passes and not step.get("model") for step in recipe["steps"])
    return passes * _size(recipe) + others


def _size(corpus: dict[str, Any]) -> int:
    return (Path(corpus["path"]) / "text.bin").stat().st_size


class Groups:
    """The groups of the documents of the parent, which those that are left keep."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        self.column: str | None = recipe.get("group_column")
        self._names = {group_hash([name.encode("utf-8", "surrogatepass")]): name for name in recipe.get("groups", ())}
        self._hashes = array("Q")
        self._counts: Counter[int] = Counter()
        if self.column is not None:
            self._hashes.frombytes((Path(recipe["path"]) / GROUPS_FILE).read_bytes())
            if sys.byteorder == "big":
                self._hashes.byteswap()

    def keep(self, number: int) -> list[int] | None:
        """The hash of the group of a document that is left; None for a corpus without groups."""
        if self.column is None:
            return None
        value = self._hashes[number]
        self._counts[value] += 1
        return [value]

    def facts(self) -> dict[str, Any]:
        """As a parser reports them; of the groups, those that the parent lists."""
        if self.column is None:
            return {}
        num_ungrouped = self._counts.pop(0, 0)
        listed = {self._names[value]: n for value, n in self._counts.most_common() if value in self._names}
        counts = {"num_groups": len(self._counts), "num_ungrouped": num_ungrouped}
        return {"group_column": self.column, "groups": listed, **counts}


def clean(
    directory: Path, recipe: dict[str, Any], progress: Callable[[int], None], keep_free: int = 0
) -> dict[str, Any]:
    """Write the cleaned corpus, and return what a parser would report of it; `keep_free` bytes of the disk must stay
    free. Raises CleaningRefused, and OSError if the disk is full.
    """
    kind = recipe["kind"]
    shape, bad_lines, groups = RecordReader(kind), BadLines(), Groups(recipe)
    output = CorpusWriter(directory, has_groups=groups.column is not None, keep_free=keep_free)
    pipeline = Pipeline(recipe, directory, progress, space=output.space)
    temporary = directory / f"upload.bin.{os.getpid()}"
    digest = hashlib.sha256()
    try:
        with temporary.open("wb", buffering=1 << 20) as upload:
            for document in pipeline.documents():
                try:
                    stored = list(_stored(shape, document))
                except BadLine as bad:
                    bad_lines.add(bad, document.number + 1)
                    continue
                if len(stored) > 1:
                    bad_lines.remark("document_split", document=document.number + 1, parts=len(stored))
                for text, line in stored:
                    output.documents([text], groups.keep(document.number))
                    output.space.spend(len(line))
                    upload.write(line)
                    digest.update(line)
            upload.flush()
            os.fsync(upload.fileno())
            num_bytes = upload.tell()
        if not output.num_documents:
            raise CleaningRefused("all_removed")
        examples = json.dumps([facts["examples"] for facts in pipeline.facts()])
        output.space.spend(len(examples))
        sha256 = output.finish()
        temporary.rename(directory / "upload")
        (directory / EXAMPLES_FILE).write_text(examples)
    finally:
        output.discard()
        temporary.unlink(missing_ok=True)
    steps = [{name: value for name, value in facts.items() if name != "examples"} for facts in pipeline.facts()]
    counts = {"num_documents": output.num_documents, "num_text_bytes": output.num_bytes}
    file = {"position": 0, "encoding": "utf-8", "num_bytes": num_bytes, "sha256": digest.hexdigest(), **counts}
    return {
        "encoding": "utf-8",
        "kind": kind,
        "num_characters": output.num_characters,
        "text_sha256": sha256,
        "num_bytes": num_bytes,
        "sha256": digest.hexdigest(),
        **counts,
        "problems": bad_lines.problems,
        "progress": {"kind": kind, **shape.facts(), **bad_lines.facts(), **groups.facts()},
        "files": [file],
        "steps": steps,
    }


def _stored(shape: RecordReader, document: CorpusDocument) -> Iterator[tuple[str, bytes]]:
    """What the corpus holds of a document, and its line of JSON; several of a text that no line can hold.

    Raises BadLine, also for a record that no line can hold.
    """
    if isinstance(document.content, str):
        for part in _parts(document.content):
            yield shape.document_of_text(part), _line_of_text(part).encode() + b"\n"
        return
    line = shape.document(document.content)
    if len(line) > MAX_LINE_CHARACTERS:
        raise BadLine("line_too_long")
    yield line, line.encode() + b"\n"


def _parts(text: str) -> Iterator[str]:
    """A text in parts that fit into a line, cut after line ends, else after spaces, else anywhere; none is blank."""
    if len(text) <= MAX_LINE_CHARACTERS and len(_line_of_text(text)) <= MAX_LINE_CHARACTERS:
        yield text
        return
    middle = len(text) // 2
    cut = next((end for end in (text.rfind(mark, 0, middle) + 1 for mark in "\n ") if end), middle)
    for part in (text[:cut], text[cut:]):
        if part.strip():
            yield from _parts(part)


def _line_of_text(text: str) -> str:
    return json.dumps({"text": text}, ensure_ascii=False, separators=(",", ":"))


def preview(recipe: dict[str, Any], limit: int) -> dict[str, Any]:
    """What each step does with the first documents."""
    pipeline = Pipeline(recipe, None, lambda done: None, limit)
    num_left = sum(1 for _document in pipeline.documents())
    return {"num_documents": pipeline.num_read, "num_left": num_left, "steps": pipeline.facts()}


def main() -> None:
    """Clean under limits, and report."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path, nargs="?")
    arguments.add_argument("--memory", type=int, default=0, help="what it may use, for the message")
    arguments.add_argument("--keep-free", type=int, default=0, help="bytes of the disk that must stay free")
    arguments.add_argument("--preview", type=int, help="how many documents")
    options = arguments.parse_args()
    if options.preview is not None:
        try:
            jsonlines.write(sys.stdout, preview(json.load(sys.stdin), options.preview))
        except CleaningRefused as refused:
            sys.stderr.write(f"{refused}\n")
            sys.exit(EXIT_BAD_INPUT)
        return
    recipe = json.loads((options.directory / RECIPE_FILE).read_text())
    try:
        progress = ProgressReporter(total_bytes(recipe))
        report({"result": clean(options.directory, recipe, progress, options.keep_free)})
    except CleaningRefused as refused:
        report({"failed": {"problems": [{"code": str(refused)}]}})
    except MemoryError:
        report({"failed": {"problems": [{"code": "cleaning_memory", "limit_bytes": options.memory}]}})
    except OSError as error:
        report({"failed": {"problems": [storage_problem(error)]}})


if __name__ == "__main__":
    main()
