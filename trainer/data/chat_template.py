"""Chat templates: presets, rendering, and the tokens that end an answer. Imports transformers, never torch."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from trainer.failure import Failure
from trainer.families import DEFAULT_CHAT_TEMPLATE

# Presets render the content of messages, which is null beside tool calls. Tool calls they leave out, for which
# record_encoding.py refuses a record.
# In a preset, END is what ends an answer: the token named with it where the tokenizer has that, else the end-of-text
# token.
_CHATML = """\
{%- for message in messages -%}
{%- set content = message['content'] or '' -%}
{{- '<|im_start|>' + message['role'] + '\\n' + content -}}
{{- (END if message['role'] == 'assistant' else '<|im_end|>') + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_LLAMA_3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- set content = message['content'] or '' -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + content | trim -}}
{{- END if message['role'] == 'assistant' else '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""
_INST = """\
{{- bos_token -}}
{%- set system = namespace(text='') -%}
{%- for message in messages -%}
{%- set content = message['content'] or '' -%}
{%- if message['role'] == 'system' -%}{%- set system.text = content + '\\n\\n' -%}
{%- elif message['role'] == 'assistant' -%}{{- ' ' + content | trim + END -}}
{%- else -%}{{- '[INST] ' + system.text + content + ' [/INST]' -}}{%- set system.text = '' -%}
{%- endif -%}
{%- endfor -%}
"""
_ZEPHYR = """\
{%- for message in messages -%}
{%- set content = message['content'] or '' -%}
{{- '<|' + message['role'] + '|>\\n' + content + END + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""
_PLAIN = """\
{%- for message in messages -%}
{%- set content = message['content'] or '' -%}
{{- message['role'] | capitalize + ': ' + content -}}
{{- END if message['role'] == 'assistant' else '\\n\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant: ' -}}{%- endif -%}
"""
PRESETS = {
    "chatml": (_CHATML, "<|im_end|>"),
    "llama-3": (_LLAMA_3, "<|eot_id|>"),
    "mistral": (_INST, "</s>"),
    "zephyr": (_ZEPHYR, "</s>"),
    "plain": (_PLAIN, ""),
}
_BOS = "{{- bos_token -}}\n"
_PLACEHOLDER = "\ue000"
MAX_ADDED_CHARACTERS = 1 << 20  # in a rendered conversation, beyond twice what its messages and tools hold

ChatMessage = Mapping[str, Any]


class RenderedTooLong(Failure):
    """A chat template writes more than `limit` characters."""

    def __init__(self, limit: int) -> None:
        super().__init__("chat_template_unusable", why=f"it writes more than {limit} characters")
        self.limit = limit


def preset(name: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """The template of a preset for a tokenizer, which may lack its tokens: they are ordinary text then.

    Raises KeyError for an unknown name.
    """
    template, end = PRESETS[name]
    if tokenizer.bos_token is None:
        template = template.removeprefix(_BOS)
    return template.replace("END", repr(end) if end in tokenizer.get_added_vocab() else "eos_token")


def job_template(text: str | None, tokenizer: PreTrainedTokenizerFast) -> str:
    """The template of a job: a preset's by name or Jinja text, else the tokenizer's own, else ChatML."""
    if text is None:
        own = default_template(tokenizer)
        return preset(DEFAULT_CHAT_TEMPLATE, tokenizer) if own is None else own
    return preset(text, tokenizer) if text in PRESETS else text


def default_template(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The tokenizer's chat template: of several named ones that called default, or the only one."""
    template: str | dict[str, str] | None = tokenizer.chat_template
    if not isinstance(template, dict):
        return template
    return template.get("default") or (next(iter(template.values())) if len(template) == 1 else None)


def render(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[ChatMessage],
    tools: list[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Apply the tokenizer's chat template to a conversation.

    Raises Failure if the template cannot render it or writes far more than it was given, and MemoryError.
    """
    try:
        text = str(
            tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                chat_template=default_template(tokenizer),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        )
    except MemoryError:
        raise
    except Exception as error:  # a template may raise anything, and transformers adds its own
        raise Failure("chat_template_unusable", why=str(error)[:200] or type(error).__name__) from None
    if len(text) > MAX_ADDED_CHARACTERS:
        limit = MAX_ADDED_CHARACTERS + 2 * len(json.dumps([messages, tools], ensure_ascii=False))
        if len(text) > limit:
            raise RenderedTooLong(limit)
    return text


def text_after_answer(tokenizer: PreTrainedTokenizerFast) -> str:
    """What the chat template puts after an answer; empty if it cannot render one, or leaves it out."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PLACEHOLDER}]
    try:
        before, _, after = render(tokenizer, messages).rpartition(_PLACEHOLDER)
    except Failure:
        return ""
    return after if before else ""


def end_of_turn_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The token that the chat template puts after an answer; None if it puts text there, or without a template."""
    if default_template(tokenizer) is None:
        return None
    tokens = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    pattern = rf"\s*({'|'.join(map(re.escape, tokens))})"
    match = re.match(pattern, text_after_answer(tokenizer)) if tokens else None
    return tokenizer.get_added_vocab()[match[1]] if match else None


def tokenizer_stop_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The tokens that end a text by the tokenizer's files: end of text, and the end of a turn in its template."""
    return [number for number in (tokenizer.eos_token_id, end_of_turn_id(tokenizer)) if number is not None]


def stop_token_ids(model: Any, tokenizer_ids: Iterable[int]) -> list[int]:
    """The tokens that end a text of this model: those its files name, and those of its tokenizer."""
    settings = (getattr(model, "generation_config", None), model.config)
    ids: set[int | None] = set(tokenizer_ids)
    for named in (getattr(setting, "eos_token_id", None) for setting in settings):
        ids |= set(named) if isinstance(named, list | tuple) else {named}
    return sorted(number for number in ids if number is not None)


def set_stop_tokens(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the tokens that end a text into the model's generation configuration, which is saved with its weights."""
    config = getattr(model, "generation_config", None)
    if config is not None:
        ids = stop_token_ids(model, tokenizer_stop_ids(tokenizer))
        config.eos_token_id = ids[0] if len(ids) == 1 else ids
