"""The table of what models cannot be used for."""

import pytest

from trainer.families import FAMILIES, NEEDED_TOKENS
from trainer.limits import MESSAGES, Limit, Traits, limit, limits

WRITES = Traits(model_type="llama", has_chat_template=True)
GGUF = Limit(code="gguf_setting", values={"setting": "hidden_act", "value": "relu"})


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        (WRITES, {}),
        (Traits(model_type="llama"), {}),  # what is unknown forbids nothing
        (Traits(model_type="gpt2", has_chat_template=False), {"messages": "chat_template_missing"}),
        (
            WRITES.model_copy(update={"template_error": "x"}),
            {"messages": "chat_template_unusable", "chat": "chat_template_unusable"},
        ),
        (WRITES.model_copy(update={"gguf_limit": GGUF}), {"gguf": "gguf_setting"}),
        (
            WRITES.model_copy(update={"is_classifier": True}),
            {
                "generate": "checkpoint_mute",
                "messages": "checkpoint_mute",
                "evaluate": "evaluation_unfit",
                "gguf": "gguf_family",
            },
        ),
        (
            Traits(model_type="bert", missing_tokens=["mask_token", "<extra_id_0>"]),
            {
                "generate": "checkpoint_mute",
                "messages": "checkpoint_mute",
                "evaluate": "evaluation_unfit",
                "gguf": "gguf_family",
                "masked": "tokens_missing",
            },
        ),
        (
            Traits(model_type="t5", missing_tokens=["mask_token", "<extra_id_0>"]),
            {
                "messages": "messages_unfit",
                "evaluate": "evaluation_unfit",
                "gguf": "gguf_family",
                "span_corruption": "tokens_missing",
            },
        ),
    ],
)
def test_each_trait_forbids_its_uses(traits: Traits, expected: dict[str, str]) -> None:
    assert {use: reason.code for use, reason in limits(traits).items()} == expected


def test_every_reason_is_a_whole_sentence() -> None:
    reasons = [reason for family in FAMILIES["classification"] for reason in limits(Traits(model_type=family)).values()]
    for reason in [*reasons, GGUF]:
        assert "{" not in str(reason)
        assert str(reason).endswith(".")
    assert set(NEEDED_TOKENS) <= set(FAMILIES)
    assert {reason.code for reason in reasons} <= set(MESSAGES)


def test_only_what_continues_texts_scores_documents() -> None:
    traits = [WRITES, Traits(model_type="bert"), Traits(model_type="t5"), Traits(model_type="gpt2", is_classifier=True)]
    codes = [reason.code if (reason := limit(each, "perplexity")) else None for each in traits]
    assert codes == [None, "perplexity_unfit", "perplexity_unfit", "perplexity_unfit"]


def test_a_classifier_is_called_one() -> None:
    reason = limit(Traits(model_type="qwen2", is_classifier=True), "generate")

    assert str(reason) == "A qwen2 classifier cannot continue a prompt. Choose another model."


def test_an_encoder_decoder_turns_texts_and_holds_no_conversations() -> None:
    traits = Traits(model_type="t5")

    assert (traits.turns_text, traits.writes_text, limit(traits, "generate")) == (True, False, None)
    assert str(limit(traits, "messages")).startswith(
        "A t5 turns one text into another; it does not answer conversations."
    )
