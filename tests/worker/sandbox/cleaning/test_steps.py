"""Each step of cleaning, on texts made by hand, with the published rule, check digit or library as oracle."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from py3langid.langid import LanguageIdentifier

from app.corpora.cleaning.recipe import LANGUAGES, STEPS_ADAPTER
from worker.sandbox.cleaning.clean import make_step
from worker.sandbox.cleaning.documents import CorpusDocument
from worker.sandbox.cleaning.edits import LineCounter
from worker.sandbox.cleaning.filters import repeated_ngrams, top_ngram
from worker.sandbox.cleaning.languages import MODEL_FILE
from worker.sandbox.cleaning.steps import CleaningRefused, Context, Reference
from worker.sandbox.disk_space import DiskSpace

Run = Callable[..., tuple[list[Any], dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Pass texts or records through one step: what is left of them, and the facts of the step."""

    def work(contents: Iterable[Any], step: dict[str, Any], **others: list[str]) -> tuple[list[Any], dict[str, Any]]:
        def reference(name: str) -> Reference:
            texts = others[name]
            return Reference(name, name.title(), lambda: (CorpusDocument(n, text) for n, text in enumerate(texts)))

        references, space = {name: reference(name) for name in others}, DiskSpace(tmp_path)
        context = Context(references, lambda: tmp_path / "spool", lambda done: None, space)
        made = make_step(STEPS_ADAPTER.validate_python([step])[0], context, 0)
        documents: Iterator[CorpusDocument] = (CorpusDocument(n, content) for n, content in enumerate(contents))
        return [document.content for document in made.run(documents)], made.counts.facts()

    return work


def removed(facts: dict[str, Any]) -> list[tuple[int, str]]:
    return [(example["document"], example["reason"]) for example in facts["examples"]]


def test_mojibake_entities_and_ligatures_are_repaired(run: Run) -> None:
    mojibake = "schön, “quoted” — naïve".encode().decode("windows-1252", "replace")
    left, facts = run(["schÃ¶n", "Tom &amp; Jerry", "e\u0301", "a “curly” ｆull。", "plain"], {"name": "fix_unicode"})
    assert left == ["schön", "Tom & Jerry", "é", "a “curly” ｆull。", "plain"]
    assert (facts["num_changed"], facts["num_removed"], facts["num_places"]) == (3, 0, 3)
    assert facts["examples"][0] == {
        "document": 0,
        "before": "schÃ¶n",
        "after": "schön",
        "reason": "unicode_fixed",
        "values": {"n": 1},
    }
    assert run([mojibake], {"name": "fix_unicode"})[1]["num_changed"] == 1


def test_lines_of_many_documents_are_boilerplate(run: Run) -> None:
    contents = [f"My site\nText {n} of its own.\n---\nAccept cookies" for n in range(20)] + ["My site"]
    left, facts = run(contents, {"name": "boilerplate", "min_share": 0.5, "min_documents": 3})
    assert left == [f"Text {n} of its own.\n---" for n in range(20)]  # rules have no letter
    assert (facts["num_seen"], facts["num_changed"], facts["num_places"], facts["num_removed"]) == (21, 20, 40, 1)
    assert ("emptied" in {reason for _document, reason in removed(facts)}) == (20 in dict(removed(facts)))
    assert run(contents[:2], {"name": "boilerplate", "min_share": 0.5, "min_documents": 3})[0] == contents[:2]


def test_counts_of_lines_stay_bounded_and_are_never_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.sandbox.cleaning.edits.COUNTED_LINES", 100)
    counter = LineCounter()
    for number in range(5000):
        counter.add({"header", f"line {number}"})
    assert len(counter._counts) <= 100
    assert len(counter.frequent(5000 - 10_000 / 100)) == 1
    assert counter.frequent(5001) == set()


def test_lengths_are_counted_in_characters_and_words(run: Run) -> None:
    contents = ["one two", "one two three", "o" * 30, "水金火"]
    left, facts = run(contents, {"name": "length", "min_characters": 0, "max_characters": 20, "min_words": 3})
    assert left == ["one two three", "水金火"]
    assert removed(facts) == [(0, "words_few"), (2, "characters_many")]


def test_repetition_follows_the_rules_of_gopher(run: Run) -> None:
    chance = random.Random(1)
    words = [f"word{n}" for n in range(400)]
    good = " ".join(words)
    lines = "\n".join([*words[:60], *["the same line"] * 40])  # 39 of 100 lines stand earlier
    paragraphs = "\n\n".join([" ".join(chance.sample(words, 5)) for _n in range(6)] + ["same old part"] * 5)
    phrase = "buy now " * 60 + " ".join(words[:100])
    left, facts = run([good, lines, paragraphs, phrase], {"name": "repetition"})
    assert left == [good]
    assert removed(facts) == [(1, "lines_repeated"), (2, "lines_repeated"), (3, "ngram_frequent")]
    assert facts["examples"][0]["values"]["share"] == pytest.approx(39 * 13 / 870, abs=0.001)  # of all characters
    assert run([phrase], {"name": "repetition", "ngrams": False})[0] == [phrase]
    assert removed(run([paragraphs], {"name": "repetition", "max_lines": 1})[1]) == [(0, "paragraphs_repeated")]


def test_shares_of_ngrams_are_those_counted_by_hand() -> None:
    tokens = ["a", "b", "c", "a", "b", "c", "d"]
    assert top_ngram(tokens, 2, 7) == (("a", "b"), pytest.approx(4 / 7))
    assert repeated_ngrams(tokens, 3, 7) == pytest.approx(3 / 7)
    assert repeated_ngrams(["a", "a", "a", "a"], 2, 4) == pytest.approx(
        3 / 4
    )  # in the second and the third, which overlap


def test_documents_in_other_languages_are_removed(run: Run) -> None:
    contents = [
        "This is a longer sentence that is written in English.",
        "Dieser Satz ist auf Deutsch geschrieben und etwas länger.",
        "这是一个用中文写的比较长的句子，用来测试语言识别的功能。",
        "Ja.",
    ]
    left, facts = run(contents, {"name": "language", "languages": ["en", "zh"]})
    assert left == [contents[0], contents[2], contents[3]]
    assert (facts["examples"][0]["values"]["language"], facts["num_removed"]) == ("de", 1)


def test_the_languages_that_recipes_name_are_those_that_are_recognized() -> None:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    assert set(LANGUAGES) == set(identifier.labels)


def test_exact_duplicates_differ_in_white_space_only(run: Run) -> None:
    contents = ["One text.", "one text.", " One\n text. ", "Elsewhere.", "Two."]
    left, facts = run(contents, {"name": "exact_duplicates", "corpora": ["held"]}, held=["Elsewhere."])
    assert left == ["One text.", "one text.", "Two."]
    assert [example["values"] for example in facts["examples"]] == [{"document": 1}, {"corpus": "Held"}]


def planted(chance: random.Random, num_changes: int, words: list[str]) -> str:
    copy = list(words)
    for place in chance.sample(range(len(words)), num_changes):
        copy[place] = f"new{place}"
    return " ".join(copy)


def test_planted_near_duplicates_are_removed_and_others_stay(run: Run) -> None:
    chance = random.Random(3)
    originals = [[f"w{chance.randrange(5000)}" for _n in range(200)] for _n in range(300)]
    near = [planted(chance, 2, words) for words in originals[:100]]  # similarity at least 186 / 206 = 0.90
    far = [planted(chance, 40, words) for words in originals[100:200]]  # below 0.5
    contents = [*map(" ".join, originals), *near, *far]
    left, facts = run(contents, {"name": "near_duplicates"})
    assert facts["num_removed"] >= 98
    assert set(left) >= {*map(" ".join, originals), *far}
    numbers = {example["document"]: example["values"]["document"] for example in facts["examples"]}
    assert all(number - 300 == original - 1 for number, original in numbers.items())
    left, facts = run(near, {"name": "near_duplicates", "corpora": ["held"]}, held=[" ".join(w) for w in originals])
    assert facts["num_removed"] >= 98
    assert facts["examples"][0]["reason"] == "near_elsewhere"


def test_near_duplicates_are_recognized_in_chinese(run: Run) -> None:
    text = "太阳升起来了，照在山上，河水慢慢地流过村庄，人们开始了一天的工作，孩子们去上学，老人坐在门口说话。"
    left, _facts = run(
        [text, text.replace("。", "！"), "完全不同的一句话，讲的是另外一件事情。"], {"name": "near_duplicates"}
    )
    assert len(left) == 2


def test_documents_that_share_thirteen_words_with_an_evaluation_corpus_are_removed(run: Run) -> None:
    question = "which of these thirteen words stands in both texts so that it is found here"
    words = question.split()
    contents = [
        f"Before it, {', '.join(words[:13]).upper()}! And after.",
        f"Before it {' '.join(words[:12])} other words after it.",
        "Nothing in common.",
    ]
    step = {"name": "contamination", "corpora": ["exam"]}
    left, facts = run(contents, step, exam=[question, "Nothing in common."])  # the second is shorter than an n-gram
    assert left == contents[1:]
    assert facts["examples"][0]["values"] == {"corpus": "Exam", "ngram": " ".join(words[:13])}


def test_evaluation_corpora_that_need_too_much_memory_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.sandbox.cleaning.duplicates.MAX_NGRAM_HASHES", 5)
    with pytest.raises(CleaningRefused, match="ngrams_many"):
        run([], {"name": "contamination", "corpora": ["exam"]}, exam=[" ".join(map(str, range(100)))])


# Test numbers that issuers and standards publish; the last digit of the wrong ones is another one.
@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.doe+x@mail.example.co.uk.", "Write to <EMAIL>."),
        ("not@an address, @handle", None),
        ("Visa 4111 1111 1111 1111 and 5555-5555-5555-4444", "Visa <CREDIT_CARD> and <CREDIT_CARD>"),
        ("4111 1111 1111 1112", None),
        ("IBAN DE89 3704 0044 0532 0130 00, GB82WEST12345698765432", "IBAN <IBAN>, <IBAN>"),
        ("DE88 3704 0044 0532 0130 00", None),
        ("from 192.0.2.17 and 2001:db8::8a2e:370:7334", "from <IP_ADDRESS> and <IP_ADDRESS>"),
        ("version 1.2.3, 127.0.0.1, 999.1.1.1, at 10:20:30", None),
        ("Call +49 30 901820 or (212) 555-0134, 212-555-0134.", "Call <PHONE> or <PHONE>, <PHONE>."),
        ("电话13800138000。", "电话<PHONE>。"),
        ("In 1999-2003, 3.14159265358979, ISBN 978-3-16-148410-0", None),
    ],
)
def test_personal_data_are_masked(run: Run, text: str, masked: str | None) -> None:
    left, facts = run([text], {"name": "mask_personal_data"})
    assert left == [masked or text]
    assert facts["num_changed"] == (masked is not None)


def test_only_the_chosen_kinds_are_masked(run: Run) -> None:
    text = "a@example.org, 192.0.2.17"
    assert run([text], {"name": "mask_personal_data", "kinds": ["email"]})[0] == ["<EMAIL>, 192.0.2.17"]


KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIB" + "A" * 60 + "\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("aws AKIAIOSFODNN7EXAMPLE here", "aws <SECRET> here"),
        ("token ghp_" + "a1B2" * 9 + ".", "token <SECRET>."),
        ("https://user:hunter2@example.org/x", "https://user:<SECRET>@example.org/x"),
        (f"before\n{KEY}\nafter", "before\n<SECRET>\nafter"),
        ("The secret of the key is a password.", None),
    ],
)
def test_secrets_are_masked(run: Run, text: str, masked: str | None) -> None:
    assert run([text], {"name": "mask_secrets"})[0] == [masked or text]


RECORDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"messages": [{"role": "user", "content": "a@example.org"}, {"role": "assistant", "content": None,
         "tool_calls": [{"function": {"name": "mail", "arguments": {"to": ["a@example.org"], "n": 1}}}]}]},
        {"messages": [{"role": "user", "content": "<EMAIL>"}, {"role": "assistant", "content": None,
         "tool_calls": [{"function": {"name": "mail", "arguments": {"to": ["<EMAIL>"], "n": 1}}}]}]},
    ),
    ({"text": "a@example.org", "label": "a@example.org"}, {"text": "<EMAIL>", "label": "a@example.org"}),
    (
        {"prompt": [{"role": "user", "content": "Who?"}], "chosen": "a@example.org", "rejected": "Me."},
        {"prompt": [{"role": "user", "content": "Who?"}], "chosen": "<EMAIL>", "rejected": "Me."},
    ),
    (
        {"question": "a@example.org", "choices": ["b@example.org", "no"], "answer": 0},
        {"question": "<EMAIL>", "choices": ["<EMAIL>", "no"], "answer": 0},
    ),
    ({"source": "a@example.org", "target": "x"}, {"source": "<EMAIL>", "target": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(("record", "masked"), RECORDS, ids=["chat", "label", "preference", "choice", "pair"])
def test_all_texts_of_records_are_edited_and_nothing_else(
    run: Run, record: dict[str, Any], masked: dict[str, Any]
) -> None:
    before = json.dumps(record)
    assert run([record], {"name": "mask_personal_data"})[0] == [masked]
    assert json.dumps(record) == before


def test_examples_are_a_sample_of_twenty(run: Run) -> None:
    _left, facts = run([f"{n}" for n in range(1000)], {"name": "length"})
    numbers = [example["document"] for example in facts["examples"]]
    assert (len(numbers), numbers == sorted(numbers), numbers[-1] > 500) == (20, True, True)
