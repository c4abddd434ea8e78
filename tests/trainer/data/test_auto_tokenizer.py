"""What AutoTokenizer opens of a checkpoint is the tokenizer that the model was trained with, for every family."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.trainer.runs import SAMPLES, english, write_corpus
from tests.trainer.tokenizers_of_bases import KINDS, fast
from trainer.data import tokenizer
from trainer.families import DECODERS, ENCODERS

Opened = dict[str, tuple[Tokenizer, PreTrainedTokenizerFast]]
FAMILIES = (*DECODERS, *ENCODERS, "t5")
TEXT = st.text(alphabet=st.one_of(st.sampled_from("ab 12\n'Té\u0301桥"), st.characters(codec="utf-8")), max_size=30)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """By family: the tokenizer trained for it, and what AutoTokenizer opens in a checkpoint."""
    home = tmp_path_factory.mktemp("families")
    verses = [json.loads(line)["text"] for line in (SAMPLES / "song-lyrics.jsonl").read_text().splitlines()[:200]]
    numbers = [f"In {1900 + n} it cost {n * 37 % 9000} coins." for n in range(200)]
    source = write_corpus(home / "corpus", [english(40_000), *verses, *numbers])
    opened = {}
    for family in FAMILIES:
        entry = tokenizer.train_cached([source], 700, home / "cache", lambda done, total: None, family)
        opened[family] = (tokenizer.load(entry), opened_as(entry, home / family, family))
    return opened


def opened_as(source: Path, directory: Path, family: str) -> PreTrainedTokenizerFast:
    directory.mkdir()
    for path in source.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    (directory / "config.json").write_text(json.dumps({"model_type": family}))
    return AutoTokenizer.from_pretrained(directory)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=80, deadline=None)
@example(text="cafe\u0301 and 1234 old kettles, don't: 山上有一座旧的桥\n\n  x")
@given(text=TEXT)
def test_a_tokenizer_trained_here_gives_the_same_tokens(trained: Opened, family: str, text: str) -> None:
    own, auto = trained[family]

    assert auto(text, add_special_tokens=False)["input_ids"] == own.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "roberta", "t5"])
def test_an_imported_tokenizer_gives_the_same_tokens(tmp_path: Path, kind: str, family: str) -> None:
    base = tmp_path / "base"
    base_tokenizer = fast(KINDS[kind]())
    base_tokenizer.save_pretrained(base)
    imported_tokenizer = tokenizer.import_tokenizer(base, tmp_path / "cache")
    auto = opened_as(imported_tokenizer, tmp_path / "checkpoint", family)

    for text in ("The old kettle", " caffè 山上\n\n x", "1990 e\u0301"):
        assert auto(text)["input_ids"] == base_tokenizer(text)["input_ids"]


def test_the_files_name_what_transformers_4_takes_for_granted(tmp_path: Path) -> None:
    tokenizer.save(
        tokenizer.train([write_corpus(tmp_path / "c", [english()])], 300, lambda done, total: None), tmp_path
    )
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())

    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
