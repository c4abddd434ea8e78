"""What a model cannot be used for, and why. Pydantic only.

`limit` is the one place that decides: imports, pages and whatever starts something with a model ask it.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from trainer.families import DECODERS, ENCODER_DECODERS, ENCODERS, FAMILIES, GGUF_MODEL_TYPES, NEEDED_TOKENS

# A sentence for each reason, with the values of its Limit.
MESSAGES = {
    "checkpoint_mute": "A {model_type} cannot continue a prompt. Choose another model.",
    "messages_unfit": "A {model_type} turns one text into another; it does not answer conversations. Send prompt in "
    "place of messages.",
    "score_unfit": "A {model_type} does not predict the tokens of a text, so it cannot score one. Choose a model that "
    "continues texts, or a BERT or RoBERTa trained on text.",
    "source_unfit": "A {model_type} reads no source text. Leave out source, or choose an encoder-decoder such as T5.",
    "perplexity_unfit": "A {model_type} cannot score documents, because it does not predict a text token by token from "
    "its beginning. Choose a model that continues texts.",
    "fill_mask_unfit": "A {model_type} has not learned to fill masks. Choose a BERT or RoBERTa trained on text.",
    "classify_unfit": "A {model_type} has no labels to choose from. Choose a model that was trained to classify.",
    "evaluation_unfit": "A {model_type} cannot be evaluated here, because it does not continue texts. Jobs that "
    "fine-tune it measure it on held-out records.",
    "chat_template_missing": "This model has no chat template. Send prompt in place of messages, or fine-tune it on "
    "conversations first.",
    "chat_template_unusable": "The chat template of this model cannot be used: {why}. Choose another chat template for "
    "a job, and send prompt in place of messages to try the model.",
    "tokens_missing": "The tokenizer of this model has no {tokens}, which the objective {objective} needs. Choose "
    "another objective or another base model.",
    "adapter_missing": "This checkpoint has no adapter: its job trained all weights.",
    "gguf_family": "GGUF supports generative decoders only ({families}); this is a {model_type}.",
    "gguf_setting": "GGUF cannot express this model: its {setting} is {value}. Export it as safetensors.",
    "gguf_positions": "llama.cpp does not read positions that are scaled by {scaling} for {model_type}, so this model "
    "cannot be written to GGUF. Export it as safetensors.",
    "gguf_tokenizer": "Only byte-level BPE and the BPE of SentencePiece can be written to GGUF, and the tokenizer of "
    "this model is neither. Export it as safetensors.",
}


# What can be seen inside a model. Each has a route of this name.
INSPECTIONS = ("tokenize", "score", "attention", "neighbors", "fill_mask", "classify", "embed")


class Limit(BaseModel):
    """Why a model cannot be used for something: a key of MESSAGES, and the values of its sentence."""

    model_config = ConfigDict(frozen=True)

    code: str
    values: dict[str, Any] = {}

    def __str__(self) -> str:
        return MESSAGES[self.code].format(**self.values)


class Traits(BaseModel):
    """What decides about a model's uses. What is unknown forbids nothing."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_type: str | None = None
    is_classifier: bool = False  # gives labels instead of text
    has_chat_template: bool | None = None
    template_error: str | None = None  # why the chat template cannot render a question with its answer
    missing_tokens: list[str] = []  # of NEEDED_TOKENS
    gguf_limit: Limit | None = None  # of settings and tokenizer, which models trained from this one inherit

    @property
    def kind(self) -> str:
        """The family, and whether it is a classifier."""
        return f"{self.model_type} classifier" if self.is_classifier else str(self.model_type)

    @property
    def writes_text(self) -> bool:
        """Whether it continues a text."""
        return self.model_type in DECODERS and not self.is_classifier

    @property
    def turns_text(self) -> bool:
        """Whether it writes a text in answer to a source text: an encoder-decoder."""
        return self.model_type in ENCODER_DECODERS and not self.is_classifier


def limit(traits: Traits, use: str) -> Limit | None:
    """Why a model cannot be used for "generate", "messages" (a conversation), "evaluate", "perplexity" (of documents),
    "gguf", an objective, or one of INSPECTIONS.
    """
    if use in INSPECTIONS:
        return _inspection_limit(traits, use)
    if use in FAMILIES:
        return _objective_limit(traits, use)
    if traits.turns_text and use in ("generate", "messages"):
        return None if use == "generate" else Limit(code="messages_unfit", values={"model_type": traits.kind})
    if not traits.writes_text:
        codes = {"evaluate": "evaluation_unfit", "perplexity": "perplexity_unfit", "gguf": "gguf_family"}
        families = {"families": ", ".join(GGUF_MODEL_TYPES)} if use == "gguf" else {}
        return Limit(code=codes.get(use, "checkpoint_mute"), values={"model_type": traits.kind, **families})
    if use == "gguf":
        return traits.gguf_limit
    if use == "messages":
        return Limit(code="chat_template_missing") if traits.has_chat_template is False else _template_limit(traits)
    return None


def _inspection_limit(traits: Traits, inspection: str) -> Limit | None:
    fills = traits.model_type in ENCODERS and not traits.is_classifier
    scores = traits.writes_text or traits.turns_text or fills
    fit = {"score": scores, "fill_mask": fills, "classify": traits.is_classifier}
    if not fit.get(inspection, True):
        return Limit(code=f"{inspection}_unfit", values={"model_type": traits.kind})
    if fills and inspection in ("fill_mask", "score") and "mask_token" in traits.missing_tokens:
        return Limit(code="tokens_missing", values={"tokens": "mask_token", "objective": "masked"})
    return None


def _objective_limit(traits: Traits, objective: str) -> Limit | None:
    missing = [name for name in NEEDED_TOKENS.get(objective, ()) if name in traits.missing_tokens]
    if missing:
        return Limit(code="tokens_missing", values={"tokens": ", ".join(missing), "objective": objective})
    return _template_limit(traits) if objective == "chat" else None


def _template_limit(traits: Traits) -> Limit | None:
    return (
        Limit(code="chat_template_unusable", values={"why": traits.template_error}) if traits.template_error else None
    )


def limits(traits: Traits) -> dict[str, Limit]:
    """Why, by use, a model cannot be used for something, without the objectives of other families."""
    objectives = [name for name, families in FAMILIES.items() if traits.model_type in families]
    reasons = {use: limit(traits, use) for use in ("generate", "messages", "evaluate", "gguf", *objectives)}
    return {use: reason for use, reason in reasons.items() if reason is not None}
