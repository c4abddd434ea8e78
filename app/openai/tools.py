"""Tools under /v1: what a request offers and requires, and the calls in its messages and answers."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.core.errors import bad_field
from app.core.i18n import _

NAME = r"^[a-zA-Z0-9_.-]{1,64}$"


class ToolFunction(BaseModel):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=NAME)]
    description: Annotated[str | None, Field(max_length=10_000)] = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # whether the arguments of each call have to be valid for the parameters


class Tool(BaseModel):
    """A tool: functions are the only ones here."""

    type: Literal["function"]
    function: ToolFunction

    def for_template(self) -> dict[str, Any]:
        """The tool as chat templates read it."""
        return {"type": "function", "function": _described(self.function)}


class CalledFunction(BaseModel):
    """A function that was called. The arguments are a JSON text."""

    name: Annotated[str, Field(max_length=200)]
    arguments: str = "{}"


class CalledTool(BaseModel):
    """A call in a message of the conversation."""

    id: Annotated[str | None, Field(max_length=200)] = None
    type: Literal["function"] = "function"
    function: CalledFunction

    def for_template(self) -> dict[str, Any]:
        """The call as chat templates read it: with an object as arguments, if they are one."""
        try:
            arguments = json.loads(self.function.arguments)
        except (ValueError, RecursionError):
            arguments = self.function.arguments
        function = {"name": self.function.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


def _described(function: ToolFunction) -> dict[str, Any]:
    return function.model_dump(exclude_none=True, exclude={"strict"})


def tool_fields(tools: Sequence[Tool], choice: Any) -> dict[str, Any]:
    """The fields of GenerationTask for the tools of a request and its `tool_choice`. Raises PanelError."""
    functions = [_described(tool.function) for tool in tools]
    name = _chosen_name(choice)
    if name is not None:
        functions = [function for function in functions if function["name"] == name]
    if (name is not None or choice == "required") and not functions:
        raise bad_field("tool_choice", "request_invalid", _("tool_choice requires a tool that tools does not contain."))
    is_required = name is not None or choice == "required"
    offered = [] if choice == "none" else [tool.for_template() for tool in tools]
    is_strict = bool(offered) and not is_required and any(tool.function.strict for tool in tools)
    return {
        "tools": offered or None,
        "required_functions": functions if is_required else [],
        "strict_functions": [_strict(tool.function) for tool in tools] if is_strict else [],
    }


def _strict(function: ToolFunction) -> dict[str, Any]:
    """What each call of a function has to be: without `strict` with any arguments."""
    return _described(function) if function.strict else {"name": function.name}


def _chosen_name(choice: Any) -> str | None:
    """The function that has to be called; None for a mode. Raises PanelError for anything else."""
    if choice in (None, "none", "auto", "required"):
        return None
    function = choice.get("function", choice) if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        message = _("tool_choice must be none, auto, required or a function of tools.")
        raise bad_field("tool_choice", "request_invalid", message)
    return name


def tool_call(call_id: str, call: dict[str, Any]) -> dict[str, Any]:
    """A generated call as OpenAI writes it."""
    return {"id": call_id, "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
