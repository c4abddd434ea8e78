"""Spaces after sentences in templates: English has one there, Chinese none, as its full stop is as wide as both."""

import re
from collections.abc import Iterator

from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream

from app.core import i18n

NAME = "sentence_space"
_SENTENCE = re.compile(r"[.!?:]$")
_INLINE_END = re.compile(r"^(?:</\w+>)*")
_SPACE = re.compile(r"((?:</\w+>)*)\s+")


class SentenceSpace:
    """What stands between two sentences in the reader's language."""

    def __html__(self) -> str:
        return i18n.sentence_space()


class SentenceSpaces(Extension):
    """Replaces the white space of a template after `{{ _("A sentence.") }}` by that of the reader's language."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        """The tokens of a template, with a variable in place of each such space."""
        is_inside = is_after = False  # a variable; a sentence
        for token in stream:
            if token.type == "variable_begin":
                is_inside, is_after = True, False
            elif token.type == "variable_end":
                is_inside = False
            elif is_inside and token.type == "string":
                is_after = is_after or bool(_SENTENCE.search(token.value))
            elif token.type == "data" and is_after:
                yield from self._without_space(token)
                is_after = not _INLINE_END.sub("", token.value).strip()
                continue
            yield token

    def _without_space(self, data: Token) -> Iterator[Token]:
        space = _SPACE.match(data.value)
        if space is None:
            yield data
            return
        if space[1]:
            yield Token(data.lineno, "data", space[1])
        for kind, value in (("variable_begin", "{{"), ("name", NAME), ("variable_end", "}}")):
            yield Token(data.lineno, kind, value)
        if rest := data.value[space.end() :]:
            yield Token(data.lineno, "data", rest)
