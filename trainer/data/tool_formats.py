"""In which format a model writes the tool calls of an answer, by its chat template. Standard library only."""

import re
from typing import Literal

# hermes: <tool_call>{"name", "arguments"}</tool_call>, also that of Qwen; mistral: [TOOL_CALLS][{"name", "arguments"}];
# llama: {"name", "parameters"}
ToolFormat = Literal["hermes", "mistral", "llama"]

_XML_CALL = "<function="  # within <tool_call>, in Qwen3-Coder
_LLAMA = re.compile(r"\{\s*\\*[\"']name\\*[\"']:.{0,200}?\\*[\"']parameters\\*[\"']:", re.DOTALL)


def tool_format(template: str | None) -> ToolFormat | None:
    """The format that a chat template asks for; None if it is none of these."""
    if not template or "tools" not in template:
        return None
    if "<tool_call>" in template:
        return None if _XML_CALL in template else "hermes"
    if "[TOOL_CALLS]" in template:
        return "mistral"
    return "llama" if _LLAMA.search(template) else None
