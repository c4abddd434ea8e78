"""Sentences for people with their values kept apart, so that they can be translated. Pydantic only."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


class Message(BaseModel):
    """An English sentence: `template` with {placeholders} for `values`, `code` is its key in a table of templates.

    The suffix of a value's name says its unit: _bytes, _seconds, _flops.
    """

    code: str
    template: str
    values: dict[str, Any] = {}

    def __str__(self) -> str:
        return self.template.format(**self.values)


def message(templates: Mapping[str, str], code: str, **values: Any) -> Message:
    """The message `code` of a table. Raises KeyError for an unknown code."""
    return Message(code=code, template=templates[code], values=values)
