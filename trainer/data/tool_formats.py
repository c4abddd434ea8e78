"""In which format a model writes the tool calls of an answer, by its chat template. Standard library only."""

import re
from collections.abc import Mapping
from typing import Literal

# hermes: <tool_call>{"name", "arguments"}</tool_call>, also that of Qwen; qwen_coder: <tool_call> with XML inside, also
# that of Qwen3.5; mistral: [TOOL_CALLS][{"name", "arguments"}]; mistral_args: [TOOL_CALLS]name[ARGS]{...}, of its
# tokenizers since version 11; llama: {"name", "parameters"}
ToolFormat = Literal["hermes", "qwen_coder", "mistral", "mistral_args", "llama"]

# Tokens between which calls are written. Where they are special, they are no text to a tokenizer.
MARKS = ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]", "<|python_tag|>")

_LLAMA = re.compile(r"\{\s*\\*[\"']name\\*[\"']:.{0,200}?\\*[\"']parameters\\*[\"']:", re.DOTALL)


def tool_format(template: str | None) -> ToolFormat | None:
    """The format that a chat template asks for; None if it is none of these."""
    if not template or "tools" not in template:
        return None
    if "<tool_call>" in template:
        return "qwen_coder" if "<function=" in template else "hermes"
    if "[TOOL_CALLS]" in template:
        return "mistral_args" if "[ARGS]" in template else "mistral"
    return "llama" if _LLAMA.search(template) else None


def special_marks(special_tokens: Mapping[str, int]) -> dict[str, int]:
    """The marks of tool calls that are special tokens, with their IDs."""
    return {mark: special_tokens[mark] for mark in MARKS if mark in special_tokens}
