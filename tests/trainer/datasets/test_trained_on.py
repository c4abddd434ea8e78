"""Documents and records for validation that are also trained on are counted, wherever they are held out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.runs import english, make_run, of_kind, write_corpus
from trainer.data.repeated_documents import TokenizedDocuments, count_repeated_documents
from trainer.datasets import prepare
from trainer.events import Journal
from trainer.report import Reporter
from trainer.run_dir import CorpusInput

RECORDS = {"kind": "completion", "objective": "completion", "packing": False, "validation_fraction": 0.25}


def verses(count: int) -> list[str]:
    """Different texts of about the same length."""
    return [f"{number}: {english(40_000)[400 * number : 400 * number + 380]}" for number in range(count)]


def pairs(count: int) -> list[str]:
    return [json.dumps({"prompt": f"Count {n}:", "completion": f" it is {n}."}) for n in range(count)]


def counted(home: Path, documents: list[str], others: Sequence[CorpusInput] = (), **fields: Any) -> dict[str, int]:
    """What a run counts of its own documents, under "", and of each validation corpus."""
    run_dir = make_run(
        home, "run", documents, held_out=list(others), validation_corpora=[other.id for other in others], **fields
    )
    prepare.prepare(run_dir, 1, Reporter(Journal(run_dir.events_path(1))))
    (data,) = of_kind(run_dir, "data")
    return {"": data.num_validation_in_training} | {name: one.num_in_training for name, one in data.held_out.items()}


def corpus(home: Path, name: str, documents: list[str], kind: str = "text") -> CorpusInput:
    return write_corpus(home / name, documents, kind).model_copy(update={"id": name})


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_copies_in_the_end_of_a_text_are_counted(tmp_path: Path, objective: str) -> None:
    fields = {"objective": objective, "model_type": "llama" if objective == "causal" else "bert"}
    fields |= {"num_key_value_heads": 4, "validation_fraction": 0.2}
    different = verses(40)
    assert counted(tmp_path, [*different[:38], different[0], different[39]], **fields) == {"": 1}
    (tmp_path / "different").mkdir()
    assert counted(tmp_path / "different", different, **fields) == {"": 0}


def test_documents_of_validation_corpora_are_compared_with_what_is_trained_on(tmp_path: Path) -> None:
    different = verses(40)
    same = corpus(tmp_path, "same", [different[3], "A line that is nowhere else.", different[9], different[3]])
    new = corpus(tmp_path, "new", ["Another line that is nowhere else, and long enough for one sequence. " * 9])
    fields = {"validation_fraction": 0, "sequence_length": 16}
    assert counted(tmp_path, different[:30], [same, new], **fields) == {"": 0, "same": 3, "new": 0}


def test_records_of_validation_corpora_are_compared_with_what_is_trained_on(tmp_path: Path) -> None:
    records = pairs(40)
    same = corpus(tmp_path, "same", [*records[:5], *pairs(50)[45:]], "completion")
    fields = {**RECORDS, "validation_fraction": 0}
    assert counted(tmp_path, records, [same], **fields) == {"": 0, "same": 5}


TEXTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=20)


@given(documents=TEXTS, others=TEXTS)
def test_only_documents_with_the_same_tokens_are_counted(documents: list[list[int]], others: list[list[int]]) -> None:
    assert count_repeated_documents(stored(documents), stored(others)) == sum(one in others for one in documents)


def stored(documents: list[list[int]]) -> TokenizedDocuments:
    tokens = np.asarray([token for document in documents for token in document], dtype="<u2")
    return TokenizedDocuments(tokens, np.cumsum([0, *map(len, documents)], dtype="<u8"))


def test_documents_that_differ_in_one_token_between_those_that_are_compared_first_are_different() -> None:
    long = list(range(1_000))
    other = [*long[:500], 7, *long[501:]]
    assert count_repeated_documents(stored([long, [1]]), stored([other, [2]])) == 0
    assert count_repeated_documents(stored([long, other]), stored([[2], other])) == 1
