"""Chat, completion and DPO runs learn, and resume bit-identically."""

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer import chat_fixtures
from tests.trainer.bases import start_from
from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import checkpoint_of, of_kind, series
from trainer.data.chat_template import preset
from trainer.data.tokenized_records import TokenizedRecords
from trainer.datasets.prepare import read
from trainer.run_dir import RunDir, verify

STEPS, SAVED = 120, 60
LEARNS = {"objective": "chat", "learning_rate": 0.003, "max_steps": STEPS, "eval_steps": SAVED, "save_steps": SAVED}
SHORT = {"max_steps": 16, "eval_steps": 8, "save_steps": 8}


@pytest.fixture(scope="module")
def vocabulary(home: Path) -> str:
    return chat_fixtures.make_tokenizer(home)


def chat_run(home: Path, name: str, vocabulary: str, **fields: Any) -> RunDir:
    return chat_fixtures.make_records_run(home, name, "chat", chat_fixtures.chats(), vocabulary, **{**LEARNS, **fields})


def run(fork_server: GangForkServer, run_dir: RunDir) -> RunDir:
    assert fork_server.run(run_dir, run_dir.spec().num_processes) == 0, run_dir.log_path.read_text()
    return run_dir


def resumed(fork_server: GangForkServer, again: RunDir, before: RunDir, step: int) -> RunDir:
    """A new run that resumes from the checkpoint of another."""
    inputs = again.inputs(1).model_copy(update={"resume": str(checkpoint_of(before, step))})
    again.create(again.spec(), inputs, fence=1)
    return run(fork_server, again)


def weights(run_dir: RunDir, step: int) -> str:
    entries = verify(checkpoint_of(run_dir, step))["files"]
    return str(next(entry["sha256"] for entry in entries if entry["name"] == "model.safetensors"))


@pytest.fixture(scope="module")
def chatted(fork_server: GangForkServer, home: Path, vocabulary: str) -> RunDir:
    """A run on conversations, to its end."""
    return run(fork_server, chat_run(home, "chatted", vocabulary))


def test_a_model_learns_the_answers_of_conversations(chatted: RunDir) -> None:
    """Far better, on held-out conversations, than a guess without the question."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(chatted.tokenizer_path(1))
    answers = [m["content"] for talk in chat_fixtures.chats() for m in talk["messages"] if m["role"] == "assistant"]
    losses = series(chatted, "eval_loss")

    assert losses[0] > math.log(250)
    assert losses[STEPS] < 0.25 * chat_fixtures.blind_loss(tokenizer, answers)


def test_the_same_prompt_is_answered_at_every_evaluation(chatted: RunDir) -> None:
    samples = of_kind(chatted, "sample")
    assert [sample.step for sample in samples] == [0, 0, SAVED, SAVED, STEPS, STEPS]
    for split in ("validation", "train"):
        before, *_rest, after = (sample for sample in samples if sample.split == split)
        thing = next(thing for thing in chat_fixtures.THINGS if thing in after.prompt)
        assert before.prompt == after.prompt in [question.format(thing) for question in chat_fixtures.QUESTIONS]
        assert before.text != chat_fixtures.FACTS[thing] == after.text


def test_one_prompt_is_held_out_and_the_other_one_is_taught(chatted: RunDir) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(chatted.tokenizer_path(1))
    records = TokenizedRecords(Path(read(chatted, 1).tokens), chatted.spec())
    texts = {"validation": records.validation, "train": records.train}
    for sample in of_kind(chatted, "sample")[:2]:
        first = tokenizer.decode(records.segments(int(texts[sample.split][0]))[0][0])
        assert sample.prompt in first


def test_a_checkpoint_keeps_the_chat_template(chatted: RunDir) -> None:
    opened = PreTrainedTokenizerFast.from_pretrained(checkpoint_of(chatted, STEPS))

    assert opened.chat_template == preset("chatml", opened)


def test_a_template_of_the_job_is_used_and_a_rejected_sample_does_not_end_the_run(
    fork_server: GangForkServer, home: Path, vocabulary: str
) -> None:
    template = (
        "{% for m in messages %}{% if m.content == 'boom' %}{{ raise_exception('no boom') }}{% endif %}"
        "{{ m.role + ': ' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    fields = {**SHORT, "chat_template": template, "sample_prompt": "boom"}
    run_dir = run(fork_server, chat_run(home, "own-template", vocabulary, **fields))

    assert of_kind(run_dir, "sample") == []
    assert "no sample: no boom" in run_dir.log_path.read_text()
    assert PreTrainedTokenizerFast.from_pretrained(checkpoint_of(run_dir, 16)).chat_template == template


def test_resumed_packed_conversations_have_the_same_bits(
    fork_server: GangForkServer, home: Path, vocabulary: str, chatted: RunDir
) -> None:
    again = resumed(fork_server, chat_run(home, "chatted-again", vocabulary), chatted, SAVED)

    after = {step: loss for step, loss in series(chatted, "loss").items() if step > SAVED}
    assert series(again, "loss") == after
    assert weights(again, STEPS) == weights(chatted, STEPS)


def test_two_ranks_learn_like_one_and_resume_with_the_same_bits(
    fork_server: GangForkServer, home: Path, vocabulary: str
) -> None:
    one = run(fork_server, chat_run(home, "chat-1", vocabulary, **SHORT))
    two = run(fork_server, chat_run(home, "chat-2", vocabulary, num_processes=2, **SHORT))
    again = resumed(fork_server, chat_run(home, "chat-2-again", vocabulary, num_processes=2, **SHORT), two, 8)

    for name in ("loss", "eval_loss"):
        assert series(two, name) == pytest.approx(series(one, name), rel=1e-4)
    assert weights(again, 16) == weights(two, 16)


def test_a_model_learns_completions(fork_server: GangForkServer, home: Path, vocabulary: str) -> None:
    records = chat_fixtures.completions()
    steps = {"objective": "completion", "learning_rate": 0.01, "max_steps": 40, "eval_steps": 40, "save_steps": 1000}
    run_dir = run(
        fork_server, chat_fixtures.make_records_run(home, "completed", "completion", records, vocabulary, **steps)
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run_dir.tokenizer_path(1))
    before, taught_before, after, taught_after = of_kind(run_dir, "sample")

    blind = chat_fixtures.blind_loss(tokenizer, [record["completion"] for record in records])
    assert series(run_dir, "eval_loss")[40] < 0.25 * blind
    assert before.prompt == after.prompt != taught_before.prompt == taught_after.prompt
    assert after.text == next(r["completion"] for r in records if r["prompt"] == after.prompt)


def dpo_run(home: Path, name: str, base: RunDir, **fields: Any) -> RunDir:
    given = {"objective": "dpo", "base_model": "base", "learning_rate": 0.001, **SHORT, **fields}
    run_dir = chat_fixtures.make_records_run(
        home, name, "preference", chat_fixtures.preferences(), str(base.tokenizer_path(1)), **given
    )
    return start_from(run_dir, checkpoint_of(base, STEPS))


@pytest.fixture(scope="module")
def preferred(fork_server: GangForkServer, home: Path, chatted: RunDir) -> dict[str, RunDir]:
    """Runs on preferences by what they train."""
    rates = {"full": 0.001, "lora": 0.003}
    return {
        tuning: run(fork_server, dpo_run(home, f"dpo-{tuning}", chatted, tuning=tuning, learning_rate=rate))
        for tuning, rate in rates.items()
    }


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_chat_model_learns_preferences_and_resumes_with_the_same_bits(
    fork_server: GangForkServer, home: Path, chatted: RunDir, preferred: dict[str, RunDir], tuning: str
) -> None:
    whole = preferred[tuning]
    rate = whole.spec().learning_rate
    again = resumed(
        fork_server, dpo_run(home, f"dpo-{tuning}-again", chatted, tuning=tuning, learning_rate=rate), whole, 8
    )

    assert series(whole, "eval_loss")[0] == pytest.approx(math.log(2), rel=1e-5)
    assert series(whole, "eval_loss")[16] < 0.7 * math.log(2)
    assert series(whole, "eval_reward_accuracy")[16] > 0.9
    assert series(whole, "eval_reward_margin")[16] > 0.5
    first, *_rest, last = (sample for sample in of_kind(whole, "sample") if sample.split == "validation")
    assert first.prompt == last.prompt
    assert first.text != last.text
    for name in ("loss", "eval_loss", "eval_reward_margin"):
        after = {step: value for step, value in series(whole, name).items() if step > 8}
        assert series(again, name) == after
    assert weights(again, 16) == weights(whole, 16)


def test_two_ranks_that_shard_model_and_reference_learn_the_same_preferences(
    fork_server: GangForkServer, home: Path, chatted: RunDir, preferred: dict[str, RunDir]
) -> None:
    shape = {"num_processes": 2, "zero_stage": 3, "max_steps": 5, "eval_steps": 5, "save_steps": 5}
    two = run(fork_server, dpo_run(home, "dpo-two", chatted, **shape))

    one = {step: loss for step, loss in series(preferred["full"], "loss").items() if step <= 5}
    assert series(two, "loss") == pytest.approx(one, rel=1e-4)
    assert series(two, "eval_reward_margin")[5] > 0.1
