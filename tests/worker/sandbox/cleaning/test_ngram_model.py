"""The n-gram model against interpolated Kneser-Ney smoothing written down with dictionaries, and the step on texts."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from app.corpora.cleaning.recipe import Perplexity
from worker.sandbox.cleaning.documents import CorpusDocument, words
from worker.sandbox.cleaning.ngram_model import NgramModel
from worker.sandbox.cleaning.perplexity import PerplexityStep
from worker.sandbox.cleaning.steps import CleaningRefused, Context, Reference
from worker.sandbox.disk_space import DiskSpace

START = "<s>"


def sampled(seed: int, num_documents: int = 40, vocabulary: str = "abcdefg") -> list[list[str]]:
    draw = random.Random(seed)
    return [[draw.choice(vocabulary) for _ in range(draw.randint(1, 12))] for _ in range(num_documents)]


def by_dictionaries(documents: list[list[str]], order: int, text: list[str]) -> float:
    """The perplexity of a text, by the formulas of Chen and Goodman (1999), section 2.7."""
    grams: dict[int, Counter[tuple[str, ...]]] = {length: Counter() for length in range(1, order + 1)}
    for document in documents:
        padded = [START] * order + document
        for place in range(order, len(padded)):
            grams[order][tuple(padded[place - order + 1 : place + 1])] += 1
    for length in range(order - 1, 0, -1):
        for gram in grams[length + 1]:
            grams[length][gram[1:]] += 1
    vocabulary = {word for document in documents for word in document}

    def probability(history: tuple[str, ...], word: str) -> float:
        result = 1 / (len(vocabulary) + 1)
        for length in range(1, order + 1):
            counts = grams[length]
            context = history[len(history) - length + 1 :] if length > 1 else ()
            followers = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == context}
            if followers:
                once, twice = (sum(n == times for n in counts.values()) for times in (1, 2))
                discount = once / (once + 2 * twice) if once and twice else 0.5
                rest = discount * len(followers) * result
                result = (max(followers.get(word, 0) - discount, 0) + rest) / sum(followers.values())
        return result

    padded = [START] * order + text
    logs = [math.log(probability(tuple(padded[:place]), padded[place])) for place in range(order, len(padded))]
    return math.exp(-sum(logs) / len(logs))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_kneser_ney(order: int) -> None:
    documents = sampled(order)
    model = NgramModel(documents, order)
    for text in [["a"], ["z", "a", "z"], *sampled(99, 10), *sampled(7, 5, "abxyz")]:
        assert model.perplexity(text) == pytest.approx(by_dictionaries(documents, order, text))


def test_probabilities_of_all_words_add_up_to_one() -> None:
    model = NgramModel(sampled(1), 3)
    for history in (["a"], ["a", "b"], ["nobody", "knows"]):
        before = -math.log(model.perplexity(history)) * len(history)
        after = [-math.log(model.perplexity([*history, word])) * (len(history) + 1) for word in "abcdefg?"]
        assert sum(math.exp(value - before) for value in after) == pytest.approx(1)


def test_only_the_first_words_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.sandbox.cleaning.ngram_model.MAX_WORDS", 25)
    documents = [["a", "b"] * 5] * 10
    assert NgramModel(documents, 2).num_words == 25


NOUNS = [
    "cat",
    "dog",
    "horse",
    "river",
    "house",
    "door",
    "tree",
    "stone",
    "child",
    "teacher",
    "market",
    "window",
    "garden",
    "letter",
    "bridge",
]
VERBS = ["sees", "finds", "leaves", "paints", "likes", "opens", "draws", "remembers", "crosses", "describes"]


def prose(seed: int, num_sentences: int) -> str:
    draw = random.Random(seed)
    sentences = (
        f"the {draw.choice(NOUNS)} {draw.choice(VERBS)} the {draw.choice(NOUNS)} near the {draw.choice(NOUNS)}."
        for _ in range(num_sentences)
    )
    return " ".join(sentences)


REFERENCE = [prose(seed, 10) for seed in range(100)]


def step(tmp_path: Path, reference: list[str], **settings: float) -> PerplexityStep:
    texts = Reference("good", "Good", lambda: (CorpusDocument(n, text) for n, text in enumerate(reference)))
    context = Context({"good": texts}, lambda: tmp_path / "spool", lambda done: None, DiskSpace(tmp_path))
    return PerplexityStep(Perplexity(corpora=["good"], **settings), context, 0)


def test_the_most_surprising_documents_are_removed(tmp_path: Path) -> None:
    texts = [prose(seed, 5) for seed in range(1_000, 1_020)]
    tokens = words(texts[3])
    texts[3] = " ".join(random.Random(0).sample(tokens, len(tokens)))
    texts[7] = "zq xv wk jj qp " * 8
    made = step(tmp_path, REFERENCE, max_percentile=90)
    left = [document.number for document in made.run(CorpusDocument(n, text) for n, text in enumerate(texts))]
    assert left == [number for number in range(20) if number not in (3, 7)]
    facts = made.counts.facts()
    assert (facts["num_seen"], facts["num_removed"]) == (20, 2)
    for example in facts["examples"]:
        assert example["reason"] == "perplexity_high"
        assert example["values"]["perplexity"] > example["values"]["limit"]


def test_the_most_predictable_documents_are_removed_and_short_ones_stay(tmp_path: Path) -> None:
    texts = [prose(seed, 5) for seed in range(2_000, 2_020)]
    texts[1] = "too short"
    model = NgramModel(map(words, REFERENCE), 3)
    least = min((number for number in range(20) if number != 1), key=lambda n: model.perplexity(words(texts[n])))
    made = step(tmp_path, REFERENCE, min_percentile=5, max_percentile=100)
    left = [document.number for document in made.run(CorpusDocument(n, text) for n, text in enumerate(texts))]
    assert left == [number for number in range(20) if number != least]
    assert [example["reason"] for example in made.counts.facts()["examples"]] == ["perplexity_low"]


def test_in_chinese_a_word_is_a_character(tmp_path: Path) -> None:
    usual = "春天来了花园里的花都开了孩子们在草地上玩老人坐在树下说话"
    texts = [usual, "".join(random.Random(1).sample(usual, len(usual))), *[usual] * 18]
    made = step(tmp_path, [usual] * 60, max_percentile=95)
    left = [document.number for document in made.run(CorpusDocument(n, text) for n, text in enumerate(texts))]
    assert left == [0, *range(2, 20)]


def test_a_short_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CleaningRefused, match="reference_short"):
        step(tmp_path, REFERENCE[:5])
