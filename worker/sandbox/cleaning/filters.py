"""Steps that remove documents for what they are: too short or long, repetitive, in another language."""

from collections import Counter
from collections.abc import Sequence

from app.corpora.cleaning.recipe import Language, Length, Repetition
from worker.sandbox.cleaning.documents import CorpusDocument, words
from worker.sandbox.cleaning.languages import LanguageIdentifier
from worker.sandbox.cleaning.steps import Context, Filter, Reason

# Gopher's thresholds (Rae et al. 2021, table A1): largest share of characters in duplicate lines and paragraphs, in the
# most frequent n-gram, and in all n-grams that occur more than once.
MAX_LINE_CHARACTERS = MAX_PARAGRAPH_CHARACTERS = 0.2
MAX_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
MAX_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


class LengthStep(Filter):
    """Removes documents that are too short or too long."""

    def __init__(self, settings: Length, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._settings = settings

    def reason(self, document: CorpusDocument) -> Reason | None:
        """The first limit that it breaks."""
        settings, text = self._settings, document.text
        if len(text) < settings.min_characters:
            return Reason("characters_few", {"n": len(text), "limit": settings.min_characters})
        if settings.max_characters is not None and len(text) > settings.max_characters:
            return Reason("characters_many", {"n": len(text), "limit": settings.max_characters})
        if settings.min_words or settings.max_words is not None:
            num_words = len(words(text))
            if num_words < settings.min_words:
                return Reason("words_few", {"n": num_words, "limit": settings.min_words})
            if settings.max_words is not None and num_words > settings.max_words:
                return Reason("words_many", {"n": num_words, "limit": settings.max_words})
        return None


class RepetitionStep(Filter):
    """Removes documents that repeat themselves."""

    def __init__(self, settings: Repetition, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._settings = settings

    def reason(self, document: CorpusDocument) -> Reason | None:
        """The first of Gopher's rules that it breaks."""
        text, settings = document.text, self._settings
        lines = [line for line in map(str.strip, text.split("\n")) if line]
        paragraphs = [part for part in map(str.strip, text.split("\n\n")) if part]
        rules = (
            ("lines_repeated", lines, settings.max_lines, MAX_LINE_CHARACTERS),
            ("paragraphs_repeated", paragraphs, settings.max_paragraphs, MAX_PARAGRAPH_CHARACTERS),
        )
        for code, parts, max_share, max_characters in rules:
            share, share_of_characters = repeated(parts)
            if share > max_share or (max_share < 1 and share_of_characters > max_characters):
                return Reason(code, {"share": round(max(share, share_of_characters), 3)})
        return _repeated_ngrams(words(text)) if settings.ngrams else None


def repeated(parts: Sequence[str]) -> tuple[float, float]:
    """The share of parts that stand earlier already, and of the characters in them."""
    if not parts:
        return 0.0, 0.0
    earlier: set[str] = set()
    number = characters = 0
    for part in parts:
        if part in earlier:
            number, characters = number + 1, characters + len(part)
        earlier.add(part)
    return number / len(parts), characters / sum(map(len, parts))


def _repeated_ngrams(tokens: list[str]) -> Reason | None:
    num_characters = sum(map(len, tokens))
    for n, limit in MAX_TOP_NGRAM.items():
        ngram, share = top_ngram(tokens, n, num_characters)
        if share > limit:
            return Reason("ngram_frequent", {"n": n, "ngram": " ".join(ngram)[:100], "share": round(share, 3)})
    for n, limit in MAX_REPEATED_NGRAMS.items():
        share = repeated_ngrams(tokens, n, num_characters)
        if share > limit:
            return Reason("ngrams_repeated", {"n": n, "share": round(share, 3)})
    return None


def top_ngram(tokens: list[str], n: int, num_characters: int) -> tuple[tuple[str, ...], float]:
    """The most frequent n-gram that occurs more than once, and the share of characters in its occurrences."""
    counts = Counter(zip(*(tokens[start:] for start in range(n)), strict=False))
    ngram, count = max(counts.items(), key=lambda item: item[1], default=((), 0))
    return (ngram, count * sum(map(len, ngram)) / num_characters) if count > 1 else ((), 0.0)


def repeated_ngrams(tokens: list[str], n: int, num_characters: int) -> float:
    """The share of characters in n-grams that occurred before, each character once."""
    earlier: set[int] = set()
    covered, position = 0, 0  # up to which token characters were counted
    for start in range(len(tokens) - n + 1):
        key = hash(tuple(tokens[start : start + n]))
        if key in earlier:
            covered += sum(map(len, tokens[max(position, start) : start + n]))
            position = start + n
        earlier.add(key)
    return covered / num_characters if num_characters else 0.0


class LanguageStep(Filter):
    """Removes documents in other languages."""

    def __init__(self, settings: Language, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._settings = settings
        self._identifier = LanguageIdentifier()

    def reason(self, document: CorpusDocument) -> Reason | None:
        """The language of a document that is in none of the wanted ones."""
        ranked = self._identifier.rank(document.text)
        wanted = sum(share for language, share in ranked if language in self._settings.languages)
        if not ranked or wanted >= self._settings.min_confidence:
            return None
        language, share = ranked[0]
        return Reason("language_other", {"language": language, "share": round(share, 3)})
