"""What all steps of cleaning have in common: they filter or edit a stream of documents, count, and keep examples."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.sandbox.cleaning.documents import CorpusDocument
from worker.sandbox.disk_space import DiskSpace

MAX_EXAMPLES = 20
SHOWN_CHARACTERS = 300
CONTEXT_CHARACTERS = 60  # before the first difference that an example shows


class CleaningRefused(Exception):
    """The corpus cannot be cleaned so: a code of app/corpora/problems.py."""


@dataclass(frozen=True)
class Reason:
    """Why a document was removed or how it was changed: a code of app/corpora/cleaning/reasons.py and its values."""

    code: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """Another corpus that documents are compared with: a function that reads it once, from its beginning."""

    corpus_id: str
    name: str
    read: Callable[[], Iterable[CorpusDocument]]


@dataclass(frozen=True)
class ScoringModel:
    """A checkpoint or a base model that scores documents; its scores are kept in files in `cache_directory`.

    They are only read there if a reader of a shared corpus previews (`is_cache_read_only`).
    """

    path: Path
    sha256: str
    cache_directory: Path
    is_cache_read_only: bool = False


@dataclass(frozen=True)
class Context:
    """What steps get besides their settings. `spool` is a path for documents that are read
    twice; a step removes it as soon as it has opened it."""

    references: dict[str, Reference]
    spool: Callable[[], Path]
    progress: Callable[[int], None]  # of bytes that were read again
    space: DiskSpace  # for the spool
    models: dict[str, ScoringModel] = field(default_factory=dict)


def read_twice(
    context: Context,
    documents: Iterable[CorpusDocument],
    first: Callable[[CorpusDocument], None],
    between: Callable[[], None] = lambda: None,
) -> Iterator[CorpusDocument]:
    """The documents, after each of them was given to `first`, and `between` was called. They wait in a file."""
    path = context.spool()
    with path.open("w+b") as spool:
        path.unlink()  # it stays readable: no other step finds it, and nothing is left if this process is killed
        for document in documents:
            first(document)
            line = json.dumps([document.number, document.content], ensure_ascii=False).encode() + b"\n"
            context.space.spend(len(line))
            spool.write(line)
        between()
        spool.seek(0)
        for line in spool:
            yield CorpusDocument(*json.loads(line))
            context.progress(len(line))


class StepCounts:
    """What a step did: counts, and a sample of MAX_EXAMPLES of the documents that it removed or changed."""

    def __init__(self, seed: int) -> None:
        self.num_seen = self.num_removed = self.num_changed = self.num_places = 0
        self.removed_characters = 0
        self.scores: dict[str, Any] | None = None  # the distribution of the scores that it filters by
        self._random = random.Random(seed)  # noqa: S311 - examples for people to see
        self._examples: list[dict[str, Any]] = []

    def remove(self, document: CorpusDocument, reason: Reason) -> None:
        """Count a removed document."""
        self.num_removed += 1
        text = document.text
        self.removed_characters += len(text)
        self._keep(lambda: {"before": excerpt(text, 0), "after": None}, document, reason)

    def change(self, before: CorpusDocument, after: CorpusDocument, num_places: int, reason: Reason) -> None:
        """Count a changed document."""
        self.num_changed += 1
        self.num_places += num_places
        old, new = before.text, after.text
        self.removed_characters += len(old) - len(new)
        self._keep(lambda: _difference(old, new), before, reason)

    def _keep(self, make: Callable[[], dict[str, Any]], document: CorpusDocument, reason: Reason) -> None:
        number = self.num_removed + self.num_changed
        place = len(self._examples) if number <= MAX_EXAMPLES else self._random.randrange(number)
        if place < MAX_EXAMPLES:
            example = {"document": document.number, **make(), "reason": reason.code, "values": reason.values}
            self._examples[place : place + 1] = [example]

    def facts(self) -> dict[str, Any]:
        """For people to see."""
        names = ("num_seen", "num_removed", "num_changed", "num_places", "removed_characters", "scores")
        examples = sorted(self._examples, key=lambda example: example["document"])
        return {**{name: getattr(self, name) for name in names}, "examples": examples}


def excerpt(text: str, start: int) -> str:
    """A part of a text, with … where more of it stands."""
    part = text[start : start + SHOWN_CHARACTERS]
    return f"{'…' if start else ''}{part}{'…' if start + len(part) < len(text) else ''}"


def _difference(before: str, after: str) -> dict[str, Any]:
    pairs = enumerate(zip(before, after, strict=False))
    first = next((place for place, (old, new) in pairs if old != new), min(len(before), len(after)))
    start = max(0, first - CONTEXT_CHARACTERS)
    return {"before": excerpt(before, start), "after": excerpt(after, start)}


class Step:
    """Passes documents on, changed or not, or leaves them out."""

    def __init__(self, seed: int) -> None:
        self.counts = StepCounts(seed)

    def run(self, documents: Iterator[CorpusDocument]) -> Iterator[CorpusDocument]:
        """The documents that are left."""
        raise NotImplementedError


class Filter(Step):
    """Leaves out documents for a reason."""

    def reason(self, document: CorpusDocument) -> Reason | None:
        """Why a document is removed; None if it stays."""
        raise NotImplementedError

    def run(self, documents: Iterator[CorpusDocument]) -> Iterator[CorpusDocument]:
        """The documents that are left."""
        for document in documents:
            self.counts.num_seen += 1
            reason = self.reason(document)
            if reason is None:
                yield document
            else:
                self.counts.remove(document, reason)


class Edit(Step):
    """Changes texts. A document one of whose texts becomes blank is removed."""

    code = ""  # of the reason of a change; its value `n` is the number of places

    def edit(self, text: str) -> tuple[str, int]:
        """The new text, and in how many places it differs."""
        raise NotImplementedError

    def run(self, documents: Iterator[CorpusDocument]) -> Iterator[CorpusDocument]:
        """The documents that are left."""
        for document in documents:
            self.counts.num_seen += 1
            num_places, is_emptied = 0, False

            def changed(text: str) -> str:
                nonlocal num_places, is_emptied
                new, places = self.edit(text)
                num_places += places
                is_emptied |= bool(text.strip()) and not new.strip()
                return new

            edited = document.edited(changed)
            if is_emptied:
                self.counts.remove(document, Reason("emptied"))
                continue
            if num_places:
                self.counts.change(document, edited, num_places, Reason(self.code, {"n": num_places}))
            yield edited
