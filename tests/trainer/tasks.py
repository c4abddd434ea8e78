"""Small tasks for tests, such that a model of 0.1 million parameters learns each in seconds."""

import json
import random

from tests.trainer.runs import english

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def echoes(count: int = 600) -> list[str]:
    """Texts that say one number again and again: what is hidden stands beside."""
    chance = random.Random(1)
    return [" ".join([chance.choice(NUMBERS)] * 40) for _ in range(count)]


def countings(count: int = 1500) -> list[str]:
    """Texts that count on from somewhere: what is hidden follows from what stands before."""
    chance = random.Random(2)
    starts = [chance.randrange(10) for _ in range(count)]
    return [" ".join(NUMBERS[(start + n) % 10] for n in range(12)) for start in starts]


def spellings(count: int = 400) -> list[str]:
    """Pairs of digits and their names."""
    chance = random.Random(3)
    drawn = [[chance.randrange(10) for _ in range(3)] for _ in range(count)]
    return [
        json.dumps({"source": " ".join(map(str, digits)), "target": " ".join(NUMBERS[digit] for digit in digits)})
        for digits in drawn
    ]


def sentences(count: int = 1500) -> list[str]:
    """Real sentences, with the label of whether they speak of God or the LORD; a fifth of them do."""
    found = [sentence.strip() for sentence in english(400_000).replace("\n", " ").split(".")]
    fitting = [sentence for sentence in found if 30 < len(sentence) < 150][:count]
    return [
        json.dumps({"text": text, "label": "divine" if "God" in text or "LORD" in text else "human"})
        for text in fitting
    ]
