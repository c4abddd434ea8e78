"""Records as tokens: what is learnt of each is exactly what its answers are."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, write_corpus
from trainer.data import tokenizer
from trainer.data.record_encoding import CHAT_TEMPLATE, RecordEncoder, Segment, SpecialTokenInText
from trainer.failure import Failure

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who made the light?"},
    {"role": "assistant", "content": "God."},
    {"role": "user", "content": "And the 天地?"},
    {"role": "assistant", "content": "God, too.", "weight": 0.5},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    home = tmp_path_factory.mktemp("encode")
    tokenizer.save(tokenizer.train([write_corpus(home / "c", [english()])], 400, lambda done, total: None), home / "t")
    return PreTrainedTokenizerFast.from_pretrained(home / "t")


def with_template(made: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    made.chat_template = template
    return made


def learnt(made: PreTrainedTokenizerFast, segment: Segment) -> list[tuple[str, float]]:
    """The runs of tokens with a weight, as text."""
    runs: list[tuple[list[int], float]] = []
    before = 0.0
    for number, weight in zip(segment.ids, segment.weights, strict=True):
        if weight and weight == before:
            runs[-1][0].append(number)
        elif weight:
            runs.append(([number], weight))
        before = weight
    return [(made.decode(ids), weight) for ids, weight in runs]


def test_only_answers_count_each_to_the_end_of_its_turn(made: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("chat", with_template(made, CHAT_TEMPLATE))
    (segment,) = encoder.segments({"messages": TALK})

    assert made.decode(segment.ids) == encoder.render(TALK)
    assert learnt(made, segment) == [("God.<|endoftext|>", 1.0), ("God, too.<|endoftext|>", 0.5)]


def test_an_answer_is_learnt_behind_the_very_tokens_that_ask_for_it(made: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("chat", with_template(made, CHAT_TEMPLATE))
    for said in ("God.", "\nGod.", "\n\n God.\n", " ", ""):
        (segment,) = encoder.segments({"messages": [*TALK[:2], {"role": "assistant", "content": said}]})
        asked = encoder.prompt(TALK[:2])

        assert segment.ids[: len(asked)] == asked
        assert learnt(made, segment) == [(f"{said}<|endoftext|>", 1.0)]


LLAMA = (
    "{% for message in messages %}[{{ message.role }}]{{ '\\n' + message.content | trim + '[end]' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{{ '\\n' }}{% endif %}"
)
BRIEFED = "{% if messages[0].role != 'system' %}Be good. {% endif %}" + LLAMA
ALONE = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + LLAMA


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, LLAMA, BRIEFED, ALONE])
def test_a_prompt_is_shown_without_what_the_template_writes_around_it(
    made: PreTrainedTokenizerFast, template: str
) -> None:
    encoder = RecordEncoder("chat", with_template(made, template))

    assert encoder.prompt_text(encoder.prompt(TALK[1:2])) == "Who made the light?"
    if template != ALONE:
        assert encoder.prompt_text(encoder.prompt(TALK[:2])) == "Be brief.\n\nWho made the light?"


def test_the_template_shows_where_there_were_answers_before(made: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("chat", with_template(made, CHAT_TEMPLATE))

    assert encoder.prompt_text(encoder.prompt(TALK[1:4])).startswith("<|im_start|>user\nWho made the light?<|im_end|>")


def test_a_message_without_weight_is_only_read(made: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("chat", with_template(made, CHAT_TEMPLATE))
    (segment,) = encoder.segments({"messages": [*TALK[:4], {**TALK[4], "weight": 0}]})

    assert learnt(made, segment) == [("God.<|endoftext|>", 1.0)]


@pytest.mark.parametrize("kind", ["chat", "completion", "classification"])
@pytest.mark.parametrize("mark", ["<|endoftext|>", "<|im_start|>"])
def test_a_text_that_spells_a_special_token_is_no_new_speaker(
    made: PreTrainedTokenizerFast, kind: str, mark: str
) -> None:
    encoder = RecordEncoder(kind, with_template(made, CHAT_TEMPLATE))
    evil = f"light{mark}"
    record: dict[str, Any] = {"prompt": evil, "completion": "a", "text": evil}
    with pytest.raises(SpecialTokenInText):
        encoder.segments({**record, "messages": [{"role": "user", "content": evil}]})


def test_a_template_that_takes_back_what_it_wrote_is_refused(made: PreTrainedTokenizerFast) -> None:
    template = "{% for m in messages %}{{ m['content'] if loop.last else 'gone' }}\n{% endfor %}"
    with pytest.raises(Failure, match="chat template cannot be used: what comes later changes"):
        RecordEncoder("chat", with_template(made, template)).segments({"messages": TALK})


def test_a_template_that_fails_says_why(made: PreTrainedTokenizerFast) -> None:
    template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(Failure, match="System role not supported"):
        RecordEncoder("chat", with_template(made, template)).segments({"messages": TALK})


def test_of_a_completion_the_prompt_is_read_and_the_end_is_learnt(made: PreTrainedTokenizerFast) -> None:
    (segment,) = RecordEncoder("completion", made).segments({"prompt": "And God said", "completion": ", Let"})

    assert made.decode(segment.ids) == "And God said, Let<|endoftext|>"
    assert learnt(made, segment) == [(", Let<|endoftext|>", 1.0)]


def test_a_preference_is_two_completions_of_one_prompt(made: PreTrainedTokenizerFast) -> None:
    record = {"prompt": "And God", "chosen": " said", "rejected": " slept"}
    chosen, rejected = RecordEncoder("dpo", made).segments(record)

    assert learnt(made, chosen) == [(" said<|endoftext|>", 1.0)]
    assert learnt(made, rejected) == [(" slept<|endoftext|>", 1.0)]


def test_a_preference_between_answers_in_a_conversation(made: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("dpo", with_template(made, CHAT_TEMPLATE))
    chosen, rejected = encoder.segments({"prompt": TALK[:4], "chosen": "God.", "rejected": "Nobody."})

    assert learnt(made, chosen) == [("God.<|endoftext|>", 1.0)]
    assert learnt(made, rejected) == [("Nobody.<|endoftext|>", 1.0)]


def test_a_source_and_its_target_are_read_whole(made: PreTrainedTokenizerFast) -> None:
    source, target = RecordEncoder("seq2seq", made).segments({"source": "light", "target": "天"})

    assert [made.decode(source.ids), made.decode(target.ids)] == ["light<|endoftext|>", "天<|endoftext|>"]


def test_what_is_too_long_loses_its_middle_or_its_end() -> None:
    segment = Segment([1, 2, 3, 4], [0.0, 1.0, 1.0, 1.0])

    assert segment.cut(3, keeps_end=False).ids == [1, 2, 3]
    assert segment.cut(3, keeps_end=True).ids == [1, 2, 4]
    assert segment.cut(4, keeps_end=True) is segment
