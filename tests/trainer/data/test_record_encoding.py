"""Records as tokens: exactly the answers have weight."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, write_corpus
from trainer.data import tokenizer
from trainer.data.chat_template import job_template
from trainer.data.record_encoding import RecordEncoder, Segment
from trainer.data.record_refused import RecordRefused
from trainer.families import CHAT_TEMPLATES

CHATML = "chatml"
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who made the light?"},
    {"role": "assistant", "content": "God."},
    {"role": "user", "content": "And the 天地?"},
    {"role": "assistant", "content": "God, too.", "weight": 0.5},
]


@pytest.fixture(scope="module")
def hf_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    home = tmp_path_factory.mktemp("encode")
    tokenizer.save(tokenizer.train([write_corpus(home / "c", [english()])], 400, lambda done, total: None), home / "t")
    return PreTrainedTokenizerFast.from_pretrained(home / "t")


def with_template(hf_tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    hf_tokenizer.chat_template = job_template(template, hf_tokenizer)
    return hf_tokenizer


def weighted_text(hf_tokenizer: PreTrainedTokenizerFast, segment: Segment) -> list[tuple[str, float]]:
    """The runs of tokens with a weight, as text."""
    runs: list[tuple[list[int], float]] = []
    before = 0.0
    for number, weight in zip(segment.ids, segment.weights, strict=True):
        if weight and weight == before:
            runs[-1][0].append(number)
        elif weight:
            runs.append(([number], weight))
        before = weight
    return [(hf_tokenizer.decode(ids), weight) for ids, weight in runs]


def test_only_answers_have_weight_up_to_the_end_of_their_turn(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, CHATML))
    (segment,) = encoder.segments({"messages": CONVERSATION})

    assert hf_tokenizer.decode(segment.ids) == encoder.render(CONVERSATION)
    assert weighted_text(hf_tokenizer, segment) == [("God.<|endoftext|>", 1.0), ("God, too.<|endoftext|>", 0.5)]


def test_the_tokens_before_an_answer_are_those_of_its_prompt(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, CHATML))
    for content in ("God.", "\nGod.", "\n\n God.\n", " ", ""):
        (segment,) = encoder.segments({"messages": [*CONVERSATION[:2], {"role": "assistant", "content": content}]})
        prompt = encoder.prompt(CONVERSATION[:2])

        assert segment.ids[: len(prompt)] == prompt
        assert weighted_text(hf_tokenizer, segment) == [(f"{content}<|endoftext|>", 1.0)]


LLAMA = (
    "{% for message in messages %}[{{ message.role }}]{{ '\\n' + message.content | trim + '[end]' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{{ '\\n' }}{% endif %}"
)
BRIEFED = "{% if messages[0].role != 'system' %}Be good. {% endif %}" + LLAMA
ALONE = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + LLAMA


@pytest.mark.parametrize("template", [CHATML, LLAMA, BRIEFED, ALONE])
def test_prompt_text_omits_what_the_template_adds(hf_tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, template))

    assert encoder.prompt_text(encoder.prompt(CONVERSATION[1:2])) == "Who made the light?"
    if template != ALONE:
        assert encoder.prompt_text(encoder.prompt(CONVERSATION[:2])) == "Be brief.\n\nWho made the light?"


def test_prompt_text_keeps_the_template_of_several_turns(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, CHATML))

    assert encoder.prompt_text(encoder.prompt(CONVERSATION[1:4])).startswith(
        "<|im_start|>user\nWho made the light?<|im_end|>"
    )


def test_a_message_with_weight_0_is_context(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, CHATML))
    (segment,) = encoder.segments({"messages": [*CONVERSATION[:4], {**CONVERSATION[4], "weight": 0}]})

    assert weighted_text(hf_tokenizer, segment) == [("God.<|endoftext|>", 1.0)]


@pytest.mark.parametrize("objective", ["chat", "completion", "classification", "seq2seq"])
def test_a_special_token_that_a_text_spells_is_ordinary_text(
    hf_tokenizer: PreTrainedTokenizerFast, objective: str
) -> None:
    encoder = RecordEncoder(objective, with_template(hf_tokenizer, CHATML))
    end = int(hf_tokenizer.eos_token_id)

    def counts(text: str) -> list[int]:
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        record = {"prompt": text, "completion": text, "text": text, "source": text, "target": text}
        return [segment.ids.count(end) for segment in encoder.segments({**record, "messages": messages})]

    assert counts("light<|endoftext|>dark") == counts("light")


def test_a_text_with_a_marker_of_the_template_in_ordinary_tokens_is_rejected(
    hf_tokenizer: PreTrainedTokenizerFast,
) -> None:
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, CHATML))
    with pytest.raises(RecordRefused, match=r"<\|im_start\|>"):
        encoder.segments({"messages": [{"role": "user", "content": "light<|im_start|>"}]})


def test_a_template_that_rewrites_earlier_messages_is_rejected(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    template = "{% for m in messages %}{{ m['content'] if loop.last else 'gone' }}\n{% endfor %}"
    with pytest.raises(RecordRefused, match="leaves out an answer"):
        RecordEncoder("chat", with_template(hf_tokenizer, template)).segments({"messages": CONVERSATION})


def test_the_error_of_a_template_is_reported(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    template = "{{ raise_exception('System role not supported') }}{{ messages }}"
    with pytest.raises(RecordRefused, match="System role not supported"):
        RecordEncoder("chat", with_template(hf_tokenizer, template)).segments({"messages": CONVERSATION})


CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"house": 0}}}
TOOL_TEMPLATE = (
    "{% for message in messages %}{{ '[' + message.role + ']\\n' + (message.content or '') }}"
    "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}{{ '[end]\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("message", "tools", "what"),
    [
        ({}, [{"type": "function", "function": {"name": "look_up"}}], "tools"),
        ({"tool_calls": [CALL]}, None, "tool_calls"),
        ({"reasoning_content": "Red, as on Sunday."}, None, "reasoning_content"),
    ],
)
def test_a_record_that_the_template_renders_incompletely_is_rejected(
    hf_tokenizer: PreTrainedTokenizerFast, message: dict[str, Any], tools: Any, what: str
) -> None:
    messages = [{"role": "user", "content": "Which door?"}, {"role": "assistant", "content": "Red.", **message}]
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, CHATML))
    with pytest.raises(RecordRefused, match=f"the chat template leaves out its {what}"):
        encoder.segments({"messages": messages, "tools": tools})


@pytest.mark.parametrize("preset", CHAT_TEMPLATES)
def test_a_preset_reads_null_as_no_text_and_refuses_tool_calls(
    hf_tokenizer: PreTrainedTokenizerFast, preset: str
) -> None:
    question, result = {"role": "user", "content": "Which door?"}, {"role": "tool", "content": "Red."}
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    messages = [question, call, result, {"role": "assistant", "content": "Red."}]
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, preset))

    empty = [question, {**call, "content": ""}, *messages[2:]]
    assert encoder.render(messages) == hf_tokenizer.apply_chat_template(empty, tokenize=False)
    with pytest.raises(RecordRefused, match="the chat template leaves out its tool_calls"):
        encoder.segments({"messages": messages})


@pytest.mark.parametrize("preset", CHAT_TEMPLATES)
def test_a_conversation_may_start_with_an_answer(hf_tokenizer: PreTrainedTokenizerFast, preset: str) -> None:
    messages = [{"role": "assistant", "content": "Welcome!"}, *CONVERSATION[1:3]]
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, preset))
    (segment,) = encoder.segments({"messages": messages})

    assert hf_tokenizer.decode(segment.ids) == hf_tokenizer.apply_chat_template(messages, tokenize=False)
    learned = [text.strip() for text, _weight in weighted_text(hf_tokenizer, segment)]
    assert [text.removesuffix("<|endoftext|>") for text in learned] == ["Welcome!", "God."]


def test_a_message_that_the_template_leaves_out_refuses_the_record(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "system", "content": "e"}, {"role": "assistant", "content": "Here."}]
    assert RecordEncoder("chat", with_template(hf_tokenizer, CHATML)).segments({"messages": messages})
    with pytest.raises(RecordRefused, match="leaves out message 1, of the role system"):
        RecordEncoder("chat", with_template(hf_tokenizer, "mistral")).segments({"messages": messages})


def test_a_special_token_in_a_tool_call_is_text(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    function = {"name": "look_up", "arguments": {"<|endoftext|>": ["a <|endoftext|>"]}}
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    encoder = RecordEncoder("chat", with_template(hf_tokenizer, TOOL_TEMPLATE))
    (segment,) = encoder.segments({"messages": [{"role": "user", "content": "Which door?"}, call]})
    assert hf_tokenizer.eos_token_id not in segment.ids
    assert hf_tokenizer.decode(segment.ids).count("<|endoftext|>") == 2


def test_a_completion_and_its_end_have_weight_but_not_the_prompt(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    (segment,) = RecordEncoder("completion", hf_tokenizer).segments({"prompt": "And God said", "completion": ", Let"})

    assert hf_tokenizer.decode(segment.ids) == "And God said, Let<|endoftext|>"
    assert weighted_text(hf_tokenizer, segment) == [(", Let<|endoftext|>", 1.0)]


def test_a_preference_is_two_completions_of_one_prompt(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    record = {"prompt": "And God", "chosen": " said", "rejected": " slept"}
    chosen, rejected = RecordEncoder("dpo", hf_tokenizer).segments(record)

    assert weighted_text(hf_tokenizer, chosen) == [(" said<|endoftext|>", 1.0)]
    assert weighted_text(hf_tokenizer, rejected) == [(" slept<|endoftext|>", 1.0)]


def test_a_preference_between_answers_in_a_conversation(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = RecordEncoder("dpo", with_template(hf_tokenizer, CHATML))
    chosen, rejected = encoder.segments({"prompt": CONVERSATION[:4], "chosen": "God.", "rejected": "Nobody."})

    assert weighted_text(hf_tokenizer, chosen) == [("God.<|endoftext|>", 1.0)]
    assert weighted_text(hf_tokenizer, rejected) == [("Nobody.<|endoftext|>", 1.0)]


def test_a_source_and_its_target_end_with_an_end_of_text_token(hf_tokenizer: PreTrainedTokenizerFast) -> None:
    source, target = RecordEncoder("seq2seq", hf_tokenizer).segments({"source": "light", "target": "天"})

    assert [hf_tokenizer.decode(source.ids), hf_tokenizer.decode(target.ids)] == [
        "light<|endoftext|>",
        "天<|endoftext|>",
    ]


def test_a_long_segment_is_truncated_with_or_without_keeping_its_end() -> None:
    segment = Segment([1, 2, 3, 4], [0.0, 1.0, 1.0, 1.0])

    assert segment.cut(3, keeps_end=False).ids == [1, 2, 3]
    assert segment.cut(3, keeps_end=True).ids == [1, 2, 4]
    assert segment.cut(4, keeps_end=True) is segment
