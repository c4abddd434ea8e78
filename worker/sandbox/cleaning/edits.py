"""Steps that change texts: repair of Unicode, and removal of lines that many documents share."""

from collections.abc import Iterator

import ftfy
from ftfy import TextFixerConfig

from app.corpora.cleaning.recipe import Boilerplate, FixUnicode
from worker.sandbox.cleaning.documents import CorpusDocument, text_hash
from worker.sandbox.cleaning.steps import Context, Edit, read_twice

# Curly quotes and full-width punctuation are right where people wrote them. ftfy explains each of its repairs only if
# asked, which takes three times as long.
_CONFIG = TextFixerConfig(uncurl_quotes=False, fix_character_width=False, explain=False)
COUNTED_LINES = 1 << 19  # lines after which rare ones are forgotten


class FixUnicodeStep(Edit):
    """Repairs text with ftfy."""

    code = "unicode_fixed"

    def __init__(self, settings: FixUnicode, context: Context, seed: int) -> None:
        super().__init__(seed)

    def edit(self, text: str) -> tuple[str, int]:
        """The repaired text. A place is a line that differs."""
        fixed = ftfy.fix_text(text, _CONFIG)
        if fixed == text:
            return text, 0
        lines, others = text.splitlines(), fixed.splitlines()
        return fixed, max(1, sum(a != b for a, b in zip(lines, others, strict=False)))


class LineCounter:
    """In how many documents each line stands: lossy counting (Manku and Motwani 2002).

    Of N lines at most N / COUNTED_LINES documents are missed for each, none is added, and memory does not grow with N.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._num_lines = 0

    def add(self, lines: set[str]) -> None:
        """Count the lines of a document."""
        for line in lines:
            key = text_hash(line)
            self._counts[key] = self._counts.get(key, 0) + 1
            self._num_lines += 1
            if self._num_lines % COUNTED_LINES == 0:
                self._counts = {key: count - 1 for key, count in self._counts.items() if count > 1}

    def frequent(self, minimum: float) -> set[int]:
        """The hashes of the lines that stand in so many documents."""
        return {key for key, count in self._counts.items() if count >= minimum}


class BoilerplateStep(Edit):
    """Removes lines that stand in many documents. Reads all documents twice."""

    code = "lines_removed"

    def __init__(self, settings: Boilerplate, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._settings, self._context = settings, context
        self._frequent: set[int] = set()

    def run(self, documents: Iterator[CorpusDocument]) -> Iterator[CorpusDocument]:
        """The documents without the lines."""
        counter, num_documents = LineCounter(), 0

        def count(document: CorpusDocument) -> None:
            nonlocal num_documents
            num_documents += 1
            lines = (line for text in document.texts for line in map(str.strip, text.split("\n")) if is_text(line))
            counter.add(set(lines))

        def choose() -> None:
            settings = self._settings
            self._frequent = counter.frequent(max(settings.min_documents, settings.min_share * num_documents))

        return super().run(read_twice(self._context, documents, count, choose))

    def edit(self, text: str) -> tuple[str, int]:
        """The text without frequent lines."""
        if not self._frequent:
            return text, 0
        lines = text.split("\n")
        kept = [line for line in lines if not self._is_frequent(line.strip())]
        return ("\n".join(kept), len(lines) - len(kept)) if len(kept) < len(lines) else (text, 0)

    def _is_frequent(self, line: str) -> bool:
        return is_text(line) and text_hash(line) in self._frequent


def is_text(line: str) -> bool:
    """Whether a line has a letter or digit: brackets and rules are no boilerplate."""
    return any(map(str.isalnum, line))
