"""Failure codes of generations: the HTTP status and the sentence of each."""

from typing import Any

from app.base_models import limits
from app.core.errors import FieldError, PanelError
from app.core.formatting import file_size
from app.core.i18n import Plural, _
from trainer.limits import MESSAGES, Limit

_STATUS = {
    "checkpoint_gone": 409,
    "checkpoint_broken": 409,
    "checkpoint_corrupt": 409,
    "checkpoint_mute": 422,
    "messages_unfit": 422,
    "prompt_too_long": 422,
    "chat_template_missing": 422,
    "chat_template_unusable": 422,
    "messages_refused": 422,
    "prompt_refused": 422,
    "token_unknown": 422,
    "schema_refused": 422,
    "tools_refused": 422,
    "tool_format_unknown": 422,
    "text_too_long": 422,
    "text_refused": 422,
    "mask_missing": 422,
    "layer_unknown": 422,
    "position_unknown": 422,
    "score_unfit": 422,
    "source_unfit": 422,
    "source_too_long": 422,
    "fill_mask_unfit": 422,
    "classify_unfit": 422,
    "tokens_missing": 422,
    "memory_exceeded": 422,
    "memory_short": 503,
    "line_full": 503,
    "line_slow": 503,
    "no_worker": 503,
    "nodes_away": 503,
    "broker_away": 503,
    "request_lost": 503,
    "worker_lost": 503,
    "inference_lost": 503,
    "inference_failed": 422,
}

_FIELDS = {
    "prompt_too_long": "prompt",
    "prompt_refused": "prompt",
    "messages_refused": "messages",
    "messages_unfit": "messages",
    "chat_template_missing": "messages",
    "chat_template_unusable": "messages",
    "token_unknown": "logit_bias",
    "schema_refused": "json_schema",
    "tools_refused": "tools",
    "tool_format_unknown": "tool_choice",
    "text_too_long": "text",
    "text_refused": "text",
    "mask_missing": "text",
    "layer_unknown": "layer",
    "position_unknown": "position",
    "score_unfit": "checkpoint",
    "source_unfit": "source",
    "source_too_long": "source",
    "fill_mask_unfit": "checkpoint",
    "classify_unfit": "checkpoint",
    "tokens_missing": "checkpoint",
}

_SHARED = (
    *("checkpoint_gone", "checkpoint_broken", "checkpoint_corrupt", "memory_exceeded", "memory_short", "line_full"),
    *("line_slow", "no_worker", "nodes_away", "broker_away", "request_lost", "worker_lost", "inference_lost"),
    "inference_failed",
)
GENERATION_CODES = (
    *_SHARED,
    *("checkpoint_mute", "prompt_too_long", "prompt_refused", "token_unknown", "schema_refused", "tools_refused"),
    *("tool_format_unknown", "messages_refused", "messages_unfit", "chat_template_missing", "chat_template_unusable"),
)
INSPECTION_CODES = (*_SHARED, "text_too_long", "text_refused")


def codes() -> tuple[str, ...]:
    """All failure codes."""
    return tuple(_STATUS)


def sentence(code: str, values: dict[str, Any]) -> str:
    """What happened and what to do about it, in the reader's language. `values` are those of the message."""
    if code in MESSAGES:
        return limits.sentence(Limit(code=code, values=values))
    names = ("num_tokens", "token", "number", "limit", "limit_bytes", "free", "needed", "id", "why")
    formatted = {name: values.get(name) for name in names}
    formatted["free"] = file_size(formatted["free"])
    formatted["needed"] = file_size(formatted["needed"])
    formatted["limit_bytes"] = file_size(formatted["limit_bytes"])
    sentences = {
        "checkpoint_gone": _("The files of this checkpoint are gone. Choose another one."),
        "checkpoint_broken": _("The files of this checkpoint cannot be read. Choose another one."),
        "checkpoint_corrupt": _("The files of this checkpoint are damaged. Choose another one."),
        "prompt_too_long": _(
            "The prompt has {num_tokens} tokens; the limit of this model is {limit}. Shorten it.", **formatted
        ),
        "messages_refused": _("The chat template of this model refuses these messages: {why}.", **formatted),
        "prompt_refused": _("The tokenizer of this model refuses this prompt: {why}.", **formatted),
        "token_unknown": _(
            "The model has no token {token}: its vocabulary has {limit} tokens, counted from 0.", **formatted
        ),
        "schema_refused": _("The JSON schema cannot be used here: {why}. Simplify it.", **formatted),
        "tools_refused": _("The chat template of this model leaves out tools. Send none, or choose another model."),
        "tool_format_unknown": _(
            "The chat template of this model does not say how it calls a tool, so that no call can be required. Leave "
            "out tool_choice."
        ),
        "text_too_long": _("The text has {num_tokens} tokens; the limit here is {limit}. Shorten it.", **formatted),
        "source_too_long": _(
            "Tokens of the source text: {num_tokens}; the limit here is {limit}. Shorten it.", **formatted
        ),
        "text_refused": _("The tokenizer of this model refuses this text: {why}.", **formatted),
        "mask_missing": _("The text has no mask. Write [MASK] where a word is missing."),
        "layer_unknown": _(
            Plural(
                "The model has no layer {number}: it has {limit} layer, counted from 0.",
                "The model has no layer {number}: it has {limit} layers, counted from 0.",
                "limit",
            ),
            **formatted,
        ),
        "position_unknown": _(
            Plural(
                "The text has no token {number}: it has {limit} token, counted from 0.",
                "The text has no token {number}: it has {limit} tokens, counted from 0.",
                "limit",
            ),
            **formatted,
        ),
        "memory_exceeded": _(
            "This generation needed more memory than the {limit_bytes} that the process may use. Shorten the prompt, "
            "or choose a smaller model.",
            **formatted,
        ),
        "memory_short": _(
            "The node has {free} of memory left, this model needs {needed}. Wait until jobs are done, "
            "or choose a smaller model.",
            **formatted,
        ),
        "line_full": _("Too many people are waiting for text. Try again in a minute."),
        "line_slow": _("No generation slot became free in time. Try again in a minute."),
        "no_worker": _("No worker is running. Start one with `athanor worker`, then try again."),
        "nodes_away": _(
            "No node that may serve this deployment is online. Try again in a moment, or have its owner choose other "
            "nodes."
        ),
        "broker_away": _("The broker (Valkey) cannot be reached. Jobs keep running; try again in a moment."),
        "request_lost": _("The broker lost this request, perhaps in a restart. Send it again."),
        "worker_lost": _("The worker that was writing stopped answering. Try again."),
        "inference_lost": _("The inference process ended. Try again: a new one starts automatically."),
        "inference_failed": _(
            "This model cannot continue the prompt: {why}. Choose another checkpoint; the worker's log has details, ID "
            "{id}.",
            **formatted,
        ),
    }
    return sentences[code]


def error(code: str, values: dict[str, Any]) -> PanelError:
    """The failure as an error response, for requests without a stream."""
    field = _FIELDS.get(code, "checkpoint" if code.startswith("checkpoint_") else None)
    message = sentence(code, values)
    headers = {"Retry-After": "5"} if _STATUS[code] == 503 else {}
    return PanelError(_STATUS[code], code, message, [FieldError(field, message)] if field else [], headers)
