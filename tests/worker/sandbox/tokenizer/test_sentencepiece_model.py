"""Converted SentencePiece models, against sentencepiece itself."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from worker.sandbox.model_import.safetensors_scan import InvalidModel
from worker.sandbox.tokenizer import sentencepiece_model

SAMPLES = Path(sentencepiece_model.__file__).parents[3] / "app" / "corpora" / "samples"
VERSES = (SAMPLES / "king-james-bible.txt").read_text().splitlines()[:600]
TALK = (SAMPLES / "small-talk-chinese.jsonl").read_text().splitlines()[:100]
TEXTS = [
    *("", " ", "  two  spaces  ", "a\tb\nc", "In 1990 the  old\n\nkettle doesn't", "e\u0301 ﬁ ½", "😀 ก"),
    *("山上有一座旧的桥。 ok", *VERSES[:40], *TALK[:20]),
]


def trained(directory: Path, **options: Any) -> Path:
    (directory / "text.txt").write_text("\n".join([*VERSES, *TALK]))
    sentencepiece.SentencePieceTrainer.train(
        input=str(directory / "text.txt"),
        model_prefix=str(directory / "sp"),
        vocab_size=900,
        hard_vocab_limit=False,
        character_coverage=0.995,
        minloglevel=2,
        **options,
    )
    return directory / "sp.model"


@pytest.mark.parametrize(("kind", "prefix", "squeeze"), list(product(["unigram", "bpe"], [True, False], [True, False])))
def test_it_gives_the_tokens_of_sentencepiece(kind: str, prefix: bool, squeeze: bool, tmp_path: Path) -> None:
    path = trained(
        tmp_path,
        model_type=kind,
        byte_fallback=prefix,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=squeeze,
        normalization_rule_name="nmt_nfkc" if squeeze else "identity",
    )
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    converted = sentencepiece_model.convert(path)
    for text in TEXTS:
        ids = converted(text, add_special_tokens=False)["input_ids"]
        assert ids == oracle.encode(text)
        if oracle.unk_id() not in ids:
            assert converted.decode(ids) == oracle.decode(ids)
    assert (converted.eos_token, converted.bos_token) == ("</s>", "<s>")


def test_user_defined_symbols_are_never_divided(tmp_path: Path) -> None:
    path = trained(tmp_path, user_defined_symbols=["<sep>"], control_symbols=["<ctl>"])
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    converted = sentencepiece_model.convert(path)
    for text in ("the earth<sep>and <sep> heaven", "the waters<sep><sep>light"):
        assert converted(text, add_special_tokens=False)["input_ids"] == oracle.encode(text)
    assert "<ctl>" in converted.get_added_vocab()


def test_what_has_no_equal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel) as refused:
        sentencepiece_model.convert(trained(tmp_path, treat_whitespace_as_suffix=True))
    assert refused.value.problem["code"] == "sentencepiece_spaces"
