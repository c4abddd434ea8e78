"""Records of a run: each trained on once per epoch, packed tightly, held out at random."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, small_spec, write_corpus
from trainer.data import tokenized_records, tokenizer
from trainer.data.batch import IGNORE_INDEX
from trainer.data.chat_template import job_template
from trainer.data.tokenized_records import TokenizedRecords, label_order
from trainer.data.tokenized_text import Document
from trainer.datasets.causal import SFTDataset
from trainer.datasets.labelled import ClassificationDataset
from trainer.failure import Failure
from trainer.planning.counts import EVAL_SEQUENCES
from trainer.planning.packing import pack_best_fit
from trainer.run_dir import CorpusInput
from trainer.spec import TrainSpec

pytestmark = pytest.mark.usefixtures("encodes_in_process")

CASES = Path(__file__).parents[2] / "fixtures/cases/data"


@pytest.fixture(scope="module")
def hf_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    home = tmp_path_factory.mktemp("records")
    tokenizer.save(tokenizer.train([write_corpus(home / "c", [english()])], 400, lambda done, total: None), home / "t")
    return PreTrainedTokenizerFast.from_pretrained(home / "t")


def case(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text().splitlines()]


def sums(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{n} + {n * n} = ", "completion": str(n + n * n)} for n in range(count)]


def write(home: Path, kind: str, records: list[dict[str, Any]]) -> CorpusInput:
    return write_corpus(home / kind, [json.dumps(record) for record in records]).model_copy(update={"kind": kind})


def tokenize(
    home: Path,
    hf_tokenizer: PreTrainedTokenizerFast,
    spec: TrainSpec,
    kind: str,
    records: list[dict[str, Any]],
    **more: Any,
) -> Path:
    source = write(home, kind, records)
    return tokenized_records.tokenize_cached(
        [source], spec, hf_tokenizer, "made", home / "cache", lambda done, total: None, **more
    )


@given(lengths=st.lists(st.integers(1, 40), max_size=200))
def test_packing_puts_every_item_into_one_bin_within_capacity(lengths: list[int]) -> None:
    bins = pack_best_fit(lengths, 40)

    assert sorted(number for bin_ in bins for number in bin_) == list(range(len(lengths)))
    assert all(0 < sum(lengths[number] for number in bin_) <= 40 for bin_ in bins)
    # No two bins are half empty: they could share one.
    assert sum(2 * sum(lengths[number] for number in bin_) <= 40 for bin_ in bins) <= 1


def test_every_record_is_trained_on_once_an_epoch_or_held_out(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = small_spec(objective="completion", sequence_length=48, validation_fraction=0.2)
    dataset = SFTDataset(tokenize(tmp_path, hf_tokenizer, spec, "completion", sums(50)), spec, hf_tokenizer)

    for epoch in range(2):
        drawn = range(epoch * dataset.num_train, (epoch + 1) * dataset.num_train)
        seen = [document for n in drawn for document in dataset.documents_of(n)]
        assert len(seen) == len(set(seen)) == 40
    held_out = {dataset.records.document_of(int(record)) for record in dataset.records.validation}
    assert held_out | set(seen) == {Document(0, number) for number in range(50)}


def test_positions_in_a_packed_sequence_start_at_0_for_each_record(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = small_spec(objective="completion", sequence_length=48, validation_fraction=0.2)
    dataset = SFTDataset(tokenize(tmp_path, hf_tokenizer, spec, "completion", sums(50)), spec, hf_tokenizer)
    batch = dataset.train_batch(0, dataset.num_train)
    texts = {record["prompt"] + record["completion"] for record in sums(50)}

    seen = set()
    for row in range(dataset.num_train):
        starts = [*np.flatnonzero(batch["position_ids"][row] == 0), batch["labels"].shape[1]]
        for start, end in itertools.pairwise(starts):
            assert batch["position_ids"][row, start:end].tolist() == list(range(end - start))
            end -= int(
                (batch["labels"][row, start:end] == IGNORE_INDEX).sum()
            )  # padding continues from the last record
            labels, weights = batch["labels"][row, start:end], batch["weights"][row, start:end]
            ids = [*batch["input_ids"][row, start:end], labels[-1]]
            assert batch["input_ids"][row, start + 1 : end].tolist() == labels[:-1].tolist()
            text = hf_tokenizer.decode(ids)
            seen.add(text.removesuffix("<|endoftext|>"))
            assert hf_tokenizer.decode(labels[weights > 0]) == text.partition(" = ")[2]
    assert seen <= texts
    assert len(seen) == 40


def test_without_packing_a_sequence_has_one_record(tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="completion", sequence_length=48, packing=False)
    dataset = SFTDataset(tokenize(tmp_path, hf_tokenizer, spec, "completion", sums(20)), spec, hf_tokenizer)

    assert dataset.num_train == 19
    assert dataset.train_batch(0, 4)["labels"].shape[1] < 48  # as wide as the longest record


def test_a_batch_does_not_depend_on_how_it_is_split(tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="completion", sequence_length=48)
    dataset = SFTDataset(tokenize(tmp_path, hf_tokenizer, spec, "completion", sums(50)), spec, hf_tokenizer)
    batch = dataset.train_batch(0, 4)
    for n in range(4):
        part = dataset.train_batch(n, 1)
        width = part["labels"].shape[1]
        assert all(np.array_equal(batch[name][n, :width], values[0]) for name, values in part.items())


def test_long_records_are_truncated_and_skipped_if_no_answer_is_left(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = small_spec(objective="completion", sequence_length=16)
    records = [
        *sums(4),
        {"prompt": "a", "completion": "In the beginning God created the heaven and the earth. " * 3},
        {"prompt": "In the beginning God created the heaven and the earth. " * 3, "completion": "a"},
        {"prompt": "<|endoftext|>", "completion": "a"},  # ordinary text
    ]
    meta = TokenizedRecords(tokenize(tmp_path, hf_tokenizer, spec, "completion", records), spec).meta

    assert (meta.num_records, meta.num_cut, meta.num_dropped) == ([6], 1, 1)


NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def talks(count: int, *, with_system: set[int]) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": "Be brief."}]
    question, answer = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "God"}
    return [{"messages": [*(system if n in with_system else []), question, answer]} for n in range(count)]


def test_records_that_the_template_rejects_are_skipped_and_counted(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    own = PreTrainedTokenizerFast.from_pretrained(hf_tokenizer.name_or_path, chat_template=NO_SYSTEM)
    spec = small_spec(objective="chat", sequence_length=32)
    directory = tokenize(tmp_path, own, spec, "chat", talks(6, with_system={1, 4}))
    meta = TokenizedRecords(directory, spec).meta

    assert (meta.num_records, meta.num_dropped) == ([4], 2)
    assert meta.num_refused == 2
    assert [(remark.corpus, remark.record, remark.kind) for remark in meta.remarks] == [
        (0, 2, "refused"),
        (0, 5, "refused"),
    ]
    assert all("System role not supported" in str(remark.why) for remark in meta.remarks)


ALTERNATING = (
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ message.role + ': ' + message.content + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.mark.parametrize("name", ["D17-assistant-first", "D17-two-users-last-user"])
def test_the_template_and_the_policy_decide_on_the_order_of_roles(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    records, spec = [*case(name), *chats(2)], small_spec(objective="chat", sequence_length=128)
    own = PreTrainedTokenizerFast.from_pretrained(hf_tokenizer.name_or_path, chat_template=ALTERNATING)
    meta = TokenizedRecords(tokenize(tmp_path, own, spec, "chat", records), spec).meta

    assert (meta.num_records, meta.num_refused) == ([2], 8)
    assert [remark.record for remark in meta.remarks] == [*range(1, 9)]
    with pytest.raises(Failure, match=r"record 1 .*roles must alternate"):
        tokenize(tmp_path, own, spec.model_copy(update={"on_record_error": "stop"}), "chat", records)
    own.chat_template = job_template("chatml", own)
    assert TokenizedRecords(tokenize(tmp_path, own, spec, "chat", records), spec).meta.num_records == [10]


def chats(count: int) -> list[dict[str, Any]]:
    return talks(count, with_system=set())


def test_every_record_that_is_cut_or_left_out_is_remarked_on(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    fits, long = "light", "In the beginning God created the heaven. " * 20
    texts = [(fits, fits), (long, fits), (fits, long), (fits, fits)]
    records = [{"prompt": prompt, "completion": completion} for prompt, completion in texts]
    spec = small_spec(objective="completion", sequence_length=32)
    meta = TokenizedRecords(tokenize(tmp_path, hf_tokenizer, spec, "completion", records), spec).meta

    assert (meta.num_cut, meta.num_dropped, meta.num_refused) == (1, 1, 0)
    assert [(remark.record, remark.kind) for remark in meta.remarks] == [(2, "empty"), (3, "cut")]
    num_tokens = sum(len(hf_tokenizer.encode(text, add_special_tokens=False)) for text in texts[2]) + 1  # its end
    assert [str(remark.why) for remark in meta.remarks] == [
        "nothing to learn is left of it within 32 tokens",
        f"it has {num_tokens} tokens and was cut to 32",
    ]
    many = TokenizedRecords(tokenize(tmp_path / "many", hf_tokenizer, spec, "completion", 30 * records), spec).meta
    assert (meta.num_cut, many.num_cut, len(many.remarks)) == (1, 30, 40)  # twenty of each kind


def test_a_job_can_stop_at_a_record_that_the_template_rejects(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    own = PreTrainedTokenizerFast.from_pretrained(hf_tokenizer.name_or_path, chat_template=NO_SYSTEM)
    spec = small_spec(objective="chat", sequence_length=32, on_record_error="stop")
    with pytest.raises(Failure, match=r"record 3 .*System role not supported") as caught:
        tokenize(tmp_path, own, spec, "chat", talks(6, with_system={2}))
    assert caught.value.code == "record_refused"
    skip = spec.model_copy(update={"on_record_error": "skip"})
    with pytest.raises(Failure, match=r"none of the records \(2\) .*record 1 .*System role not supported") as every:
        tokenize(tmp_path / "all", own, skip, "chat", talks(2, with_system={0, 1}))
    assert every.value.code == "records_refused"


@pytest.mark.parametrize(("model_type", "ends"), [("llama", []), ("bert", [0])])
def test_a_classifier_reads_the_default_encoding_of_its_tokenizer(
    tmp_path: Path, model_type: str, ends: list[int]
) -> None:
    directory = tokenizer.train_cached(
        [write_corpus(tmp_path / "c", [english(20_000)])], 400, tmp_path / "cache", lambda done, total: None, model_type
    )
    own = PreTrainedTokenizerFast.from_pretrained(directory)
    spec = small_spec(objective="classification", model_type=model_type, num_key_value_heads=4, sequence_length=16)
    texts = ["light", "In the beginning God created the heaven and the earth. " * 3, "a"]
    records = [{"text": text, "label": label} for text, label in zip(texts, "xyx", strict=True)]
    tokenized = TokenizedRecords(tokenize(tmp_path / "r", own, spec, "classification", records), spec)

    rows = [tokenized.segments(number)[0][0].tolist() for number in range(3)]
    assert rows == [own(text, truncation=True, max_length=16)["input_ids"] for text in texts]
    assert all(row[-1:] == ends for row in rows) or not ends


def test_too_few_records_are_rejected(tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="completion", sequence_length=16)
    with pytest.raises(Failure) as too_few:
        TokenizedRecords(tokenize(tmp_path / "few", hf_tokenizer, spec, "completion", sums(1)), spec)
    with pytest.raises(Failure) as unusable:
        tokenize(tmp_path / "none", hf_tokenizer, spec, "completion", [{"prompt": "a " * 40, "completion": "b"}])

    assert (too_few.value.code, too_few.value.values) == ("records_few", {"found": 1, "dropped": 0})
    assert (unusable.value.code, unusable.value.values) == ("records_empty", {"dropped": 1})


def test_labels_are_numbered_by_name_and_shared_with_a_validation_corpus(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = small_spec(objective="classification", model_type="bert", num_key_value_heads=4)
    records = [{"text": f"verse {n}", "label": "new" if n % 3 else "old"} for n in range(9)]
    train = TokenizedRecords(tokenize(tmp_path, hf_tokenizer, spec, "classification", records), spec)
    odd = [{"text": "verse", "label": "older"}]

    assert train.meta.labels == ["new", "old"]
    assert train.labels.tolist() == [1, 0, 0] * 3
    held_out = tokenize(tmp_path / "h", hf_tokenizer, spec, "classification", records[:1], labels=train.meta.labels)
    validation = ClassificationDataset(held_out, spec.model_copy(update={"validation_fraction": 1.0}), hf_tokenizer)
    assert (validation.num_train, validation.validation_batch([0])["labels"].tolist()) == (0, [1])
    with pytest.raises(Failure, match="the label older is not one of the labels to train on: new, old"):
        tokenize(tmp_path / "o", hf_tokenizer, spec, "classification", odd, labels=train.meta.labels)


def test_labels_that_are_numbers_are_in_numeric_order() -> None:
    assert label_order(["10", "2", "-1", "2"]) == ["-1", "2", "10"]
    assert label_order(["10", "2", "b"]) == ["10", "2", "b"]


def test_records_of_one_class_are_rejected(tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="classification", model_type="bert", num_key_value_heads=4)
    with pytest.raises(Failure, match="all records have the label") as failure:
        tokenize(tmp_path, hf_tokenizer, spec, "classification", case("D14-one-class"))
    assert failure.value.code == "labels_one"


@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=5), fraction=st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_each_class_is_held_out_in_proportion_and_a_rare_one_too(
    tmp_path_factory: pytest.TempPathFactory,
    hf_tokenizer: PreTrainedTokenizerFast,
    counts: list[int],
    fraction: float,
) -> None:
    spec = small_spec(
        objective="classification", model_type="bert", num_key_value_heads=4, validation_fraction=fraction
    )
    records = [{"text": f"verse {n}", "label": f"c{name}"} for name, count in enumerate(counts) for n in range(count)]
    directory = tokenize(tmp_path_factory.mktemp("split"), hf_tokenizer, spec, "classification", records)
    split = TokenizedRecords(directory, spec)

    assert sorted([*split.train, *split.validation]) == list(range(len(records)))
    assert len(split.train) >= 1 <= len(split.validation)
    held_out = np.bincount(split.labels[split.validation], minlength=len(counts)).tolist()
    if max(counts) > 1:
        assert held_out == [0 if count == 1 else max(1, int(count * fraction)) for count in counts]


def test_a_class_of_one_record_is_named_as_not_validated(tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast) -> None:
    spec = small_spec(objective="classification", model_type="bert", num_key_value_heads=4, validation_fraction=0.05)
    records = case("D14-imbalanced")
    split = TokenizedRecords(tokenize(tmp_path, hf_tokenizer, spec, "classification", records), spec)
    assert [record["label"] for record in records].count("rare") == 1
    assert {records[int(number)]["label"] for number in split.validation} == {"common"}
    assert split.unvalidated_labels == ["rare"]


def test_pairs_that_are_equal_after_truncation_are_skipped(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    start = "In the beginning God created the heaven and the earth. " * 3
    pairs = [{"prompt": "a", "chosen": start + end, "rejected": start + "not"} for end in ("so", "thus")]
    differing = {"prompt": "a", "chosen": "light", "rejected": "darkness"}
    spec = small_spec(objective="dpo", base_model="base", sequence_length=16)
    meta = TokenizedRecords(
        tokenize(tmp_path, hf_tokenizer, spec, "preference", [*pairs, differing, differing]), spec
    ).meta
    assert (meta.num_records, meta.num_equal, meta.num_dropped) == ([2], 2, 2)

    with pytest.raises(Failure, match=r"within 16 tokens the answers of all pairs \(2\) are equal"):
        tokenize(tmp_path / "equal", hf_tokenizer, spec, "preference", pairs)


def test_one_record_is_trained_on_if_there_is_a_validation_corpus(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = small_spec(objective="completion", sequence_length=48, validation_corpora=["other"])
    records = TokenizedRecords(tokenize(tmp_path, hf_tokenizer, spec, "completion", sums(1)), spec)
    assert (records.train.tolist(), records.validation.tolist()) == ([0], [])


def test_validation_records_that_are_trained_on_are_counted(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = small_spec(objective="completion", sequence_length=48, validation_fraction=0.5, packing=False)

    def repeated(name: str, records: list[dict[str, Any]]) -> tuple[int, int]:
        dataset = SFTDataset(tokenize(tmp_path / name, hf_tokenizer, spec, "completion", records), spec, hf_tokenizer)
        train = {
            records[document.number]["prompt"] for n in range(dataset.num_train) for document in dataset.documents_of(n)
        }
        held_out = [records[dataset.records.document_of(int(n)).number]["prompt"] for n in dataset.records.validation]
        return dataset.count_trained_on([dataset])[0], sum(prompt in train for prompt in held_out)

    assert repeated("once", sums(20)) == (0, 0)
    counted, expected = repeated("twice", sums(20) * 2)
    assert counted == expected > 0


def test_bytes_per_token_are_those_of_the_text_that_is_trained_on(
    tmp_path: Path, hf_tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = small_spec(objective="completion", sequence_length=64)
    stories = [{"prompt": "Story:", "completion": record["messages"][0]["content"]} for record in case("D12-long")]
    records = TokenizedRecords(tokenize(tmp_path, hf_tokenizer, spec, "completion", stories), spec)
    ids = [int(token) for n in range(sum(records.meta.num_records)) for token in records.segments(n)[0][0]]
    text = hf_tokenizer.decode(ids, skip_special_tokens=True)
    assert 0 < records.meta.num_cut < sum(records.meta.num_records) == len(stories)
    assert records.meta.num_bytes == len(text.encode())
    assert 1.5 < records.meta.num_bytes / records.meta.num_tokens < 3


def test_a_classifier_is_evaluated_on_more_samples_than_a_language_model() -> None:
    assert (SFTDataset.max_eval_samples, ClassificationDataset.max_eval_samples) == (EVAL_SEQUENCES, 2_000)


def test_a_tokenizer_is_trained_only_on_the_texts_of_records(tmp_path: Path) -> None:
    conversation = {"messages": [{"role": "user", "content": "light"}, {"role": "assistant", "content": "earth"}]}
    vocabulary = tokenizer.train(
        [write(tmp_path, "chat", [conversation] * 9)], None, lambda done, total: None
    ).get_vocab()

    assert {"light", "earth"} <= set(vocabulary)
    assert not any("role" in token or "{" in token for token in vocabulary if len(token) > 1)
