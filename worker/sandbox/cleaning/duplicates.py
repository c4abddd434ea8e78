"""Steps that remove documents whose text stands elsewhere: in an earlier document, or in another corpus."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from rensa import RMinHash, RMinHashDeduplicator

from app.corpora.cleaning.recipe import Contamination, ExactDuplicates, NearDuplicates
from worker.sandbox.cleaning.documents import CorpusDocument, text_hash, words
from worker.sandbox.cleaning.steps import CleaningRefused, Context, Filter, Reason, Reference, Step

NUM_PERMUTATIONS = 128  # values of a signature
NUM_BANDS = 16  # of 8 values: they find 95 of 100 pairs of similarity 0.8, which their signatures then verify
NUM_BANDS_BELOW = 32  # of 4 values, for thresholds below LOW_THRESHOLD: 87 of 100 pairs of similarity 0.5
LOW_THRESHOLD = 0.75
SHINGLE_WORDS = 5
SEED = 42
BATCH_DOCUMENTS = 256
MAX_NGRAM_HASHES = 10_000_000  # of all evaluation corpora, in about 700 MB


class ExactDuplicatesStep(Filter):
    """Removes documents with the text of an earlier one, by 64 bits of a hash of the text without white space."""

    def __init__(self, settings: ExactDuplicates, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._first: dict[int, int] = {}  # the number of the first document by hash
        self._elsewhere: dict[int, str] = {}
        for reference in references(context, settings.corpora):
            for document in reference.read():
                self._elsewhere.setdefault(packed_hash(document.text), reference.name)

    def reason(self, document: CorpusDocument) -> Reason | None:
        """Where the text stands already."""
        key = packed_hash(document.text)
        if key in self._elsewhere:
            return Reason("same_elsewhere", {"corpus": self._elsewhere[key]})
        first = self._first.setdefault(key, document.number)
        return None if first == document.number else Reason("same", {"document": first + 1})


def packed_hash(text: str) -> int:
    """A hash that is the same for texts that differ in white space only."""
    return text_hash("".join(text.split()))


def references(context: Context, corpus_ids: Iterable[str]) -> list[Reference]:
    """The other corpora of a step."""
    return [context.references[corpus_id] for corpus_id in corpus_ids]


class NearDuplicatesStep(Step):
    """Removes documents whose MinHash signature is as similar to an earlier one as the threshold says."""

    def __init__(self, settings: NearDuplicates, context: Context, seed: int) -> None:
        super().__init__(seed)
        num_bands = NUM_BANDS if settings.threshold >= LOW_THRESHOLD else NUM_BANDS_BELOW
        self._index = RMinHashDeduplicator(settings.threshold, NUM_PERMUTATIONS, True, num_bands, SEED)
        self._names: dict[str, str] = {}
        for number, reference in enumerate(references(context, settings.corpora)):
            self._names[str(number)] = reference.name
            for batch in batches(reference.read()):
                for document, signature in signed(batch):
                    self._index.add(f"{number}:{document.number}", signature)

    def run(self, documents: Iterator[CorpusDocument]) -> Iterator[CorpusDocument]:
        """The documents that are left."""
        for batch in batches(documents):
            signatures = dict(signed(batch))
            for document in batch:
                self.counts.num_seen += 1
                signature = signatures.get(document)
                if signature is None or self._index.add(f":{document.number}", signature):
                    yield document
                else:
                    self.counts.remove(document, self._reason(document, signature))

    def _reason(self, document: CorpusDocument, signature: RMinHash) -> Reason:
        duplicates = self._index.get_duplicates(signature)
        others = [key.partition(":") for key in duplicates]
        elsewhere = next((name for name, _colon, _number in others if name), None)
        if elsewhere is not None:
            return Reason("near_elsewhere", {"corpus": self._names[elsewhere]})
        return Reason("near", {"document": min((int(number) for _name, _colon, number in others), default=0) + 1})


def batches(documents: Iterable[CorpusDocument]) -> Iterator[list[CorpusDocument]]:
    """The documents in lists of BATCH_DOCUMENTS."""
    iterator = iter(documents)
    while batch := list(islice(iterator, BATCH_DOCUMENTS)):
        yield batch


def signed(batch: list[CorpusDocument]) -> Iterator[tuple[CorpusDocument, RMinHash]]:
    """Documents with their signatures, without those that have no word."""
    shingled = [(document, shingles(document.text)) for document in batch]
    worded = [(document, parts) for document, parts in shingled if parts]
    signatures = RMinHash.from_token_sets([parts for _document, parts in worded], NUM_PERMUTATIONS, SEED)
    return zip((document for document, _parts in worded), signatures, strict=True)


def shingles(text: str) -> list[str]:
    """The word 5-grams of a text; of a shorter one, all its words as one."""
    tokens = words(text)
    if len(tokens) <= SHINGLE_WORDS:
        return [" ".join(tokens)] if tokens else []
    return list(map(" ".join, zip(*(tokens[start:] for start in range(SHINGLE_WORDS)), strict=False)))


class ContaminationStep(Filter):
    """Removes documents that share a word n-gram with evaluation corpora."""

    def __init__(self, settings: Contamination, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._ngram = settings.ngram
        self._found: dict[int, int] = {}  # the number of the corpus by hash
        self._names: list[str] = []
        for number, reference in enumerate(references(context, settings.corpora)):
            self._names.append(reference.name)
            hashes = chain.from_iterable(ngram_hashes(document, self._ngram) for document in reference.read())
            for key, _start in hashes:
                self._found.setdefault(key, number)
                if len(self._found) > MAX_NGRAM_HASHES:
                    raise CleaningRefused("ngrams_many")

    def reason(self, document: CorpusDocument) -> Reason | None:
        """The first n-gram that stands in an evaluation corpus."""
        for key, ngram in ngram_hashes(document, self._ngram):
            if key in self._found:
                return Reason("overlap", {"corpus": self._names[self._found[key]], "ngram": ngram[:200]})
        return None


def ngram_hashes(document: CorpusDocument, n: int) -> Iterator[tuple[int, str]]:
    """The n-grams of each text of a document, each with a hash of 64 bits."""
    for text in document.texts:
        tokens = words(text)
        for parts in zip(*(tokens[start:] for start in range(n)), strict=False):
            ngram = " ".join(parts)
            yield text_hash(ngram), ngram
