"""The client's own sentences exist in Chinese, with the same placeholders."""

import string
from pathlib import Path

from babel.messages.extract import extract_from_dir

from app.client.chinese import CHINESE

CLIENT = Path(__file__).parents[3] / "app" / "client"


def sentences() -> set[str]:
    """Every text that the client's functions translate."""
    extracted = extract_from_dir(str(CLIENT), [("**.py", "python")], keywords={"_": None})
    return {message for _file, _line, message, _comments, _context in extracted if isinstance(message, str)}


def test_every_sentence_is_translated_and_every_translation_is_used() -> None:
    assert len(sentences()) > 10
    assert CHINESE.keys() == sentences()


def test_translations_have_the_same_placeholders() -> None:
    formatter = string.Formatter()

    def names(text: str) -> set[str]:
        return {name for _literal, name, _format, _conversion in formatter.parse(text) if name is not None}

    assert [english for english, chinese in CHINESE.items() if names(english) != names(chinese)] == []
