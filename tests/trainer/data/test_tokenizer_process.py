"""Templates and tokenizers are programs: what hostile ones do ends with a reason, and nothing else is affected."""

import json
import os
import resource
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import small_spec, write_corpus
from trainer.data import process_pool, tokenized_records, tokenized_text, tokenizer
from trainer.data.chat_template import job_template
from trainer.data.process_pool import ProcessPool, num_processes
from trainer.data.record_encoding import RecordEncoder, Segment
from trainer.data.record_refused import RecordRefused
from trainer.data.server_process import CallStopped
from trainer.data.tokenizer_process import TokenizerProcess
from trainer.failure import Failure

# What each record makes a template do, and the reason that is reported.
HOSTILE = {
    "loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "time"),
    "powers": ("{{ (messages|length + 7) ** (9 ** 9) }}", "time"),  # in C, where no signal handler of Python runs
    "doubles": (
        "{% set x = namespace(s='a') %}{% for a in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}",
        "memory",
    ),
    "writes": ("{{ 'a' * 3000000 }}", "output"),
    "overflows": ("{% for a in range(10 ** 30) %}{% endfor %}", "template"),
    "recurses": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "template"),
    "divides": ("{{ 1 // 0 }}", "template"),
    "surrogates": ("{{ '\\ud800' }}", "template"),
    "raises": ("{{ raise_exception('no') }}", "template"),
}


def conversation(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "The old kettle."}]}


def hostile_tokenizer() -> PreTrainedTokenizerFast:
    hf_tokenizer = tokenizer.untrained()
    cases = "".join(
        "{%- if messages[0].content == '" + name + "' -%}" + body + "{%- endif -%}"
        for name, (body, _) in HOSTILE.items()
    )
    hf_tokenizer.chat_template = job_template("chatml", hf_tokenizer) + cases
    return hf_tokenizer


def test_each_hostile_record_is_refused_with_its_reason_and_the_others_are_encoded() -> None:
    hf_tokenizer = hostile_tokenizer()
    expected = RecordEncoder("chat", hf_tokenizer).segments(conversation("Who?"))
    names = [name for hostile in HOSTILE for name in (hostile, "Who?")]

    with TokenizerProcess(hf_tokenizer) as process:
        answers = list(process.segments("chat", [json.dumps(conversation(name)) for name in names]))

    outcomes = [answer.message.code if isinstance(answer, RecordRefused) else answer for answer in answers]
    assert outcomes == [outcome for _body, code in HOSTILE.values() for outcome in (code, expected)]


def test_a_record_that_loops_is_named_by_the_failure_of_the_run(tmp_path: Path) -> None:
    records = [json.dumps(conversation(name)) for name in ("Who?", "loops", "Why?")]
    source = write_corpus(tmp_path / "corpus", records, kind="chat")

    def tokenize(on_record_error: str) -> Path:
        spec = small_spec(objective="chat", sequence_length=128, on_record_error=on_record_error)
        return tokenized_records.tokenize_cached(
            [source], spec, hostile_tokenizer(), "hostile", tmp_path / "cache", lambda done, total: None
        )

    with pytest.raises(Failure, match=r"record 2 of corpus corpus cannot be used: encoding takes more than 1 s"):
        tokenize("stop")
    meta = tokenized_records.TokenizedRecordsMeta.model_validate_json((tokenize("skip") / "meta.json").read_text())
    assert (meta.num_records, meta.num_refused, meta.remarks[0].record) == ([2], 1, 2)


def test_a_run_gives_up_on_a_template_that_ends_process_after_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.tokenizer_process.MAX_DEATHS", 1)
    record = json.dumps(conversation("powers"))
    with ProcessPool(partial(TokenizerProcess, hostile_tokenizer()), 2) as pool:
        both_have_one = Barrier(2)

        def encode(process: TokenizerProcess, records: list[str]) -> list[list[Segment] | RecordRefused]:
            both_have_one.wait()  # of the two batches
            return list(process.segments("chat", records))

        with pytest.raises(Failure, match="more than 1 s of computing time"):
            list(pool.map(encode, [[record], [record]]))


def amplifier() -> PreTrainedTokenizerFast:
    """A tokenizer that makes 64 characters 2 ** 24, of 4 bytes each."""
    hf_tokenizer = tokenizer.untrained()
    doublings = [normalizers.Replace("a", "aa")] * 18
    hf_tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(doublings)
    return hf_tokenizer


def test_a_normalizer_that_multiplies_its_text_is_stopped() -> None:
    with TokenizerProcess(amplifier()) as process:
        with pytest.raises(RecordRefused) as refused:
            process.call("prompt", "a" * 64)
        assert refused.value.message.code in ("memory", "time")
        assert process.call("prompt", "b") == tokenizer.encode_prompt(tokenizer.untrained(), "b")


def test_text_of_an_untrusted_tokenizer_gives_the_same_tokens_as_in_this_process(tmp_path: Path) -> None:
    directory = tmp_path / "tokenizer"
    tokenizer.save_pretrained(tokenizer.untrained(), directory)
    source = write_corpus(tmp_path / "corpus", ["In the beginning <|endoftext|>", "", "\u5929\u5730 \U0001f600"] * 3)
    files = []
    for hostile in (None, directory):
        entry = tokenized_text.tokenize_cached(
            [source], tokenizer.load(directory), "a", tmp_path / str(hostile is None), no_progress, hostile=hostile
        )
        files.append([(entry / name).read_bytes() for name in ("tokens.bin", "documents.bin", "meta.json")])
    assert files[0] == files[1]


def test_text_that_takes_a_tokenizer_too_much_is_named_by_the_failure_of_the_run(tmp_path: Path) -> None:
    directory = tmp_path / "tokenizer"
    tokenizer.save_pretrained(amplifier(), directory)
    sources = [write_corpus(tmp_path / "first", ["b", "b"]), write_corpus(tmp_path / "second", ["b", "a" * 64, "b"])]
    sources[1] = sources[1].model_copy(update={"id": "second"})
    with pytest.raises(Failure, match=r"record 2 of corpus second cannot be used: encoding takes more than"):
        tokenized_text.tokenize_cached(
            sources, tokenizer.load(directory), "a", tmp_path / "cache", no_progress, hostile=directory
        )


def test_a_tokenizer_that_hangs_costs_seconds_and_the_first_text_is_named(tmp_path: Path) -> None:
    """Texts that take it a minute each are few bytes of a batch whose other text takes it no time."""
    directory = tmp_path / "tokenizer"
    hf_tokenizer = tokenizer.untrained()
    search = normalizers.Replace(Regex("a*a*a*[bc]"), "")  # takes 3 s for the text below
    hf_tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([search] * 20)
    tokenizer.save_pretrained(hf_tokenizer, directory)
    source = write_corpus(tmp_path / "corpus", ["x y z " * 100_000, *["a" * 380 + "-b"] * 12])
    before = children_seconds()
    with pytest.raises(Failure, match=r"record 2 of corpus .* takes more than 1 s") as caught:
        tokenized_text.tokenize_cached(
            [source], tokenizer.load(directory), "a", tmp_path / "cache", no_progress, hostile=directory
        )
    assert caught.value.code == "record_refused"
    assert children_seconds() - before < 8


def test_a_process_that_reserved_room_for_few_encoders_starts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(64)))
    assert num_processes(100) == 8
    monkeypatch.setenv(process_pool.VARIABLE, "2")
    assert [num_processes(batches) for batches in (1, 100)] == [1, 2]


def children_seconds() -> float:
    """The computing time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def no_progress(done: int, total: int) -> None:
    """A progress callback that does nothing."""


def test_a_stopped_call_ends_with_its_process() -> None:
    hf_tokenizer = hostile_tokenizer()
    with TokenizerProcess(hf_tokenizer) as process:
        process.call("prompt", "warm")
        child = process._child
        with pytest.raises(CallStopped):
            process.call("chat", [{"role": "user", "content": "powers"}], is_stopped=lambda: True)
        assert child.returncode is not None
        assert process.call("prompt", "b") == tokenizer.encode_prompt(hf_tokenizer, "b")


@pytest.fixture(scope="module")
def plain_process() -> Any:
    hf_tokenizer = tokenizer.untrained()
    hf_tokenizer.chat_template = job_template("chatml", hf_tokenizer)
    with TokenizerProcess(hf_tokenizer) as process:
        yield process


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.text(max_size=200), answer=st.text(min_size=1, max_size=200))
def test_any_conversation_gives_the_same_tokens_as_in_this_process(
    plain_process: TokenizerProcess, content: str, answer: str
) -> None:
    record = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}
    hf_tokenizer = tokenizer.untrained()
    hf_tokenizer.chat_template = job_template("chatml", hf_tokenizer)
    try:
        expected: Any = RecordEncoder("chat", hf_tokenizer).segments(record)
    except RecordRefused as refused:
        expected = refused.message

    [outcome] = plain_process.segments("chat", [json.dumps(record)])

    assert (outcome.message if isinstance(outcome, RecordRefused) else outcome) == expected
