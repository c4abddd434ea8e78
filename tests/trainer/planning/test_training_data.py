"""Estimates of training samples before tokenizing, against what real tokenizers and datasets make of real files."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import SAMPLES, english, small_spec
from trainer.data import chat_template, tokenized_records, tokenized_text, tokenizer
from trainer.datasets.factory import open_dataset
from trainer.planning.scaling_laws import choose_vocab_size
from trainer.planning.training_data import TrainingData, estimate_samples, estimate_shares
from trainer.run_dir import CorpusInput
from trainer.spec import TrainSpec
from worker.sandbox.corpus import parse

pytestmark = pytest.mark.usefixtures("encodes_in_process")

CASES = Path(__file__).parents[2] / "fixtures/cases/data"
BERT = {"model_type": "bert", "num_key_value_heads": 4}
CHAT = {"objective": "chat", "sequence_length": 512}
RUNS: dict[str, tuple[Path | str, dict[str, Any]]] = {
    "short chats, packed": (CASES / "D15-short-64.jsonl", CHAT),
    "short chats, not packed": (CASES / "D15-short-64.jsonl", {**CHAT, "packing": False}),
    "long chats, packed": (CASES / "D12-long.jsonl", {**CHAT, "sequence_length": 2048}),
    "small talk, packed": (SAMPLES / "small-talk.jsonl", CHAT),
    "small talk in Chinese, packed": (SAMPLES / "small-talk-chinese.jsonl", CHAT),
    "labels": (CASES / "D14-imbalanced.jsonl", {"objective": "classification", **BERT}),
    "text": (english(40_000), {}),
    "verse in Chinese": (SAMPLES / "song-lyrics.jsonl", {"sequence_length": 128}),
    "text for BERT": (english(40_000), {"objective": "masked", **BERT}),
}


def parsed(home: Path, source: Path | str) -> tuple[CorpusInput, TrainingData]:
    """A file as the panel reads it, and the counts that it keeps."""
    home.mkdir()
    text = source if isinstance(source, str) else source.read_text()
    (home / "upload").write_text(text)
    found = parse.parse(home, "txt" if isinstance(source, str) else "jsonl", None, False, lambda done: None)
    report = found["progress"]
    data = TrainingData(
        num_bytes=found["num_text_bytes"],
        num_records=found["num_documents"],
        num_messages=report.get("num_turns", 0),
        lengths={int(bits): count for bits, count in report.get("lengths", {}).items()},
        labels=report.get("labels", {}),
    )
    return CorpusInput(id="c", path=str(home), sha256="s", kind=found["kind"]), data


@pytest.mark.parametrize("name", RUNS)
def test_an_estimate_holds_the_truth_and_is_close_once_tokens_are_counted(tmp_path: Path, name: str) -> None:
    source, fields = RUNS[name]
    corpus, data = parsed(tmp_path / "corpus", source)
    spec = small_spec(validation_fraction=0.1, vocab_size=None, **fields)
    directory = tokenizer.train_cached([corpus], None, tmp_path / "cache", lambda done, total: None, spec.model_type)
    hf_tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    dataset = open_dataset(tokenized(tmp_path, corpus, spec, hf_tokenizer), spec, hf_tokenizer)

    estimate = estimate_samples(spec, choose_vocab_size(data.num_bytes), data)  # before the tokenizer exists
    counted = data.model_copy(update={"num_tokens": dataset.num_tokens, "num_dropped": dataset.num_dropped})
    after = estimate_samples(spec, len(hf_tokenizer), counted)

    assert estimate is not None
    assert after is not None
    assert estimate.low <= dataset.num_train <= estimate.high, (estimate, dataset.num_train)
    assert after.low <= dataset.num_train <= after.high, (after, dataset.num_train)
    assert after.value == pytest.approx(dataset.num_train, rel=0.1)
    if "packed" not in name or "not packed" in name:
        assert after.value == dataset.num_train


def tokenized(home: Path, corpus: CorpusInput, spec: TrainSpec, hf_tokenizer: PreTrainedTokenizerFast) -> Path:
    if spec.objective in ("causal", "masked"):
        encoder, separator = hf_tokenizer.backend_tokenizer, tokenizer.document_separator_id(hf_tokenizer)
        start = tokenizer.start_ids(hf_tokenizer) if spec.objective == "causal" else []
        return tokenized_text.tokenize_cached([corpus], encoder, "t", home, lambda done, total: None, separator, start)
    hf_tokenizer.chat_template = chat_template.job_template(None, hf_tokenizer)
    return tokenized_records.tokenize_cached([corpus], spec, hf_tokenizer, "t", home, lambda done, total: None)


@given(counts=st.dictionaries(st.sampled_from("abc"), st.integers(1, 60), min_size=2), fraction=st.floats(0.01, 0.5))
def test_of_each_label_at_least_one_record_is_held_out(counts: dict[str, int], fraction: float) -> None:
    spec = small_spec(objective="classification", validation_fraction=fraction, **BERT)
    estimate = estimate_samples(spec, 384, TrainingData(num_records=sum(counts.values()), labels=counts))

    # Counted by hand: of more than one record, the fraction, but at least one.
    held_out = sum(0 if count == 1 else max(1, int(count * fraction)) for count in counts.values())
    assert estimate is not None
    assert (estimate.low, estimate.value) == (sum(counts.values()) - max(1, held_out), estimate.high)


@given(
    epochs=st.decimals(min_value="0.01", max_value=50, places=2),
    samples=st.integers(1, 5000),
    batch=st.sampled_from([1, 8, 64]),
)
def test_epochs_take_the_fewest_steps_that_cover_them(epochs: Any, samples: int, batch: int) -> None:
    fields = {"max_steps": None, "warmup_steps": 0, "train_batch_size": batch, "per_device_batch_size": 1}
    steps = small_spec(num_train_epochs=float(epochs), **fields).steps_for_epochs(samples)

    needed = epochs * samples  # exact: decimal arithmetic
    assert steps * batch >= needed
    assert steps == 1 or (steps - 1) * batch < needed


def two_corpora(*num_tokens: int) -> TrainingData:
    """Text of one byte for each token, counted by an earlier job."""
    parts = [TrainingData(num_bytes=count) for count in num_tokens]
    return TrainingData(num_bytes=sum(num_tokens), num_tokens=sum(num_tokens), corpora=parts)


@pytest.mark.parametrize(
    ("fields", "shares", "epochs"),
    [
        # 1000 sequences of 32 tokens in each corpus; of the second, a tenth of all, 200, are held out. 800 are seen.
        ({}, [1000 / 1800, 800 / 1800], [800 / 1800] * 2),
        ({"corpus_weights": [3, 1]}, [0.75, 0.25], [0.6, 0.25]),
        ({"corpus_weights": [3, 1], "split": "document"}, [0.75, 0.25], [600 / 900, 200 / 900]),
        ({"corpus_temperature": 1}, [1000 / 1800, 800 / 1800], [800 / 1800] * 2),
    ],
)
def test_the_shares_of_corpora_are_planned(fields: dict[str, Any], shares: list[float], epochs: list[float]) -> None:
    spec = small_spec(corpora=["a", "b"], max_steps=100, validation_fraction=0.1, **fields)
    planned = estimate_shares(spec, 384, two_corpora(32_001, 32_001))
    assert [part.share for part in planned] == pytest.approx(shares, rel=0.002)
    assert [part.num_epochs for part in planned] == pytest.approx(epochs, rel=0.002)


def test_shares_of_records_count_their_tokens() -> None:
    spec = small_spec(
        corpora=["a", "b"], objective="classification", model_type="bert", num_key_value_heads=4, corpus_weights=[1, 1]
    )
    parts = [TrainingData(num_bytes=100 * length, num_records=100) for length in (100, 1000)]
    data = TrainingData(num_bytes=110_000, num_records=200, corpora=parts)
    first, second = estimate_shares(spec, 384, data)
    assert first.num_epochs == second.num_epochs == 80 / 95  # 160 samples of 95 records each
    assert 0 < first.share < second.share
