"""How fast near duplicates are found, and how well: rensa, as cleaning calls it, beside datasketch in the same run.

`PYTHONPATH=. python bench/near_dedup.py [DOCUMENTS | --smoke]`. Documents are made of words at random; every tenth is a
copy of an earlier one with a few words changed, and every tenth shares a third of its text with one, which is no
duplicate. Which pairs are as similar as the threshold follows from their exact Jaccard similarity. The goal: at least
15 times datasketch's speed on the same word 5-grams.

Measured with 20,000 documents on one core (docs/decisions/0045-near-duplicates-by-rensa.md): MinHash and LSH are 38
times as fast as datasketch's, the whole step, whose 5-grams are made in Python, 4.5 times. Precision is slightly less
(0.937 against 0.951), recall more (0.931 against 0.780).
"""

import random
import time
from collections.abc import Callable

from datasketch import MinHash, MinHashLSH
from rensa import RMinHash, RMinHashDeduplicator

from bench.support.arguments import size
from worker.sandbox.cleaning.duplicates import BATCH_DOCUMENTS, NUM_BANDS, NUM_PERMUTATIONS, SEED, shingles

THRESHOLD = 0.8
WORDS = 300  # of a document
GOAL = 15
Shingles = list[list[str]]


def documents(number: int) -> tuple[list[str], dict[int, int]]:
    """Texts, and for those that were made from an earlier one its number."""
    chance = random.Random(7)
    vocabulary = [f"w{n}" for n in range(20_000)]
    texts: list[list[str]] = []
    sources: dict[int, int] = {}
    for index in range(number):
        words = chance.choices(vocabulary, k=WORDS)
        if index > 10 and index % 10 in (3, 7):
            source = chance.randrange(index // 10) * 10  # never a copy itself
            sources[index] = source
            words = list(texts[source]) if index % 10 == 3 else texts[source][: WORDS // 3] + words[WORDS // 3 :]
            for _change in range(chance.randrange(1, 9) if index % 10 == 3 else 0):
                words[chance.randrange(WORDS)] = chance.choice(vocabulary)
        texts.append(words)
    return [" ".join(words) for words in texts], sources


def planted(shingled: Shingles, sources: dict[int, int]) -> set[int]:
    """The documents that are as similar to the one they were made from as the threshold says, exactly."""
    sets = {index: set(shingled[index]) for pair in sources.items() for index in pair}
    return {
        index
        for index, source in sources.items()
        if len(sets[index] & sets[source]) >= THRESHOLD * len(sets[index] | sets[source])
    }


def by_rensa(shingled: Shingles) -> set[int]:
    """The numbers of duplicates."""
    index = RMinHashDeduplicator(THRESHOLD, NUM_PERMUTATIONS, True, NUM_BANDS, SEED)
    removed = set()
    for start in range(0, len(shingled), BATCH_DOCUMENTS):
        signatures = RMinHash.from_token_sets(shingled[start : start + BATCH_DOCUMENTS], NUM_PERMUTATIONS, SEED)
        for number, signature in enumerate(signatures, start):
            if not index.add(str(number), signature):
                removed.add(number)
    return removed


def by_datasketch(shingled: Shingles) -> set[int]:
    """The numbers of duplicates, candidates verified by their signatures, as rensa does."""
    index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERMUTATIONS)
    kept: dict[int, MinHash] = {}
    removed = set()
    for number, parts in enumerate(shingled):
        signature = MinHash(num_perm=NUM_PERMUTATIONS, seed=SEED)
        signature.update_batch([part.encode() for part in parts])
        if any(kept[other].jaccard(signature) >= THRESHOLD for other in index.query(signature)):
            removed.add(number)
        else:
            kept[number] = signature
            index.insert(number, signature)
    return removed


def measured(find: Callable[[Shingles], set[int]], shingled: Shingles, truth: set[int]) -> tuple[float, float, float]:
    """Processor seconds, precision and recall."""
    before = time.process_time()
    removed = find(shingled)
    seconds = time.process_time() - before
    right = len(removed & truth)
    return seconds, right / max(1, len(removed)), right / max(1, len(truth))


def main(number: int) -> None:
    """Print a line for each library, and the ratio."""
    texts, sources = documents(number)
    before = time.process_time()
    shingled = [shingles(text) for text in texts]
    shingling = time.process_time() - before
    truth = planted(shingled, sources)
    print(
        f"{number:,} documents of {WORDS} words, {len(truth):,} near duplicates; their 5-grams take {shingling:.2f} s"
    )
    figures = {find.__name__: measured(find, shingled, truth) for find in (by_rensa, by_datasketch)}
    for name, (seconds, precision, recall) in figures.items():
        speed = number / seconds
        print(f"{name}: {seconds:.2f} s, {speed:,.0f} documents/s, precision {precision:.3f}, recall {recall:.3f}")
    ours, theirs = (figures[find.__name__][0] for find in (by_rensa, by_datasketch))
    print(f"ratio: {theirs / ours:.1f} (goal {GOAL}); with the 5-grams {(theirs + shingling) / (ours + shingling):.1f}")


if __name__ == "__main__":
    main(size(20_000, smoke=300))
