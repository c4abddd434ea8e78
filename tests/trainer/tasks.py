"""Small tasks for tests, which a model of 0.1 million parameters learns in seconds."""

import json
import random

from tests.trainer.runs import english

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def echoes(count: int = 600) -> list[str]:
    """Texts that repeat one number: a masked word is the same as its neighbors."""
    rng = random.Random(1)
    return [" ".join([rng.choice(NUMBERS)] * 40) for _ in range(count)]


def countings(count: int = 1500) -> list[str]:
    """Texts that count up from a random digit: a hidden word follows from the ones before."""
    rng = random.Random(2)
    starts = [rng.randrange(10) for _ in range(count)]
    return [" ".join(NUMBERS[(start + n) % 10] for n in range(12)) for start in starts]


def spellings(count: int = 400) -> list[str]:
    """Seq2seq records: three digits and their names."""
    rng = random.Random(3)
    numbers = [[rng.randrange(10) for _ in range(3)] for _ in range(count)]
    return [
        json.dumps({"source": " ".join(map(str, digits)), "target": " ".join(NUMBERS[digit] for digit in digits)})
        for digits in numbers
    ]


def sentences(count: int = 1500) -> list[str]:
    """Classification records: sentences labeled by whether they mention God or the LORD, as a fifth of them do."""
    every = [sentence.strip() for sentence in english(400_000).replace("\n", " ").split(".")]
    chosen = [sentence for sentence in every if 30 < len(sentence) < 150][:count]
    return [
        json.dumps({"text": text, "label": "divine" if "God" in text or "LORD" in text else "human"}) for text in chosen
    ]
