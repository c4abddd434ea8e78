"""Names from users have one form, and no characters that nobody can see."""

import unicodedata

import pytest

from app.core import names
from app.core.errors import PanelError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("  Alice\n", "Alice"),
        (unicodedata.normalize("NFD", "Zoë"), "Zoë"),
        ("Zhang\u3000San", "Zhang San"),
        ("张三", "张三"),
        ("run ❤\ufe0f 1", "run ❤\ufe0f 1"),
    ],
)
def test_a_name_is_stored_trimmed_and_composed(text: str, name: str) -> None:
    assert names.checked_name(text, max_length=40) == name


@pytest.mark.parametrize(
    "character",
    ["\0", "\n", "\x1b", "\x85", "\u202e", "\u2066", "\u200b", "\u200d", "\u2028", "\ufeff", "\u3164", "\ud800"],
)
def test_what_cannot_be_seen_is_refused_with_its_position(character: str) -> None:
    with pytest.raises(PanelError) as refused:
        names.checked_name(f" a{character}b", max_length=40)
    assert refused.value.code == "character_invalid"
    assert refused.value.fields[0].field == "name"
    assert f"(U+{ord(character):04X}) at position 3" in refused.value.message


def test_a_name_has_limits_after_it_is_composed() -> None:
    assert len(names.checked_name("e\u0301" * 40, max_length=40)) == 40
    for text, code in (("x" * 41, "name_too_long"), (" \n ", "name_missing")):
        with pytest.raises(PanelError) as refused:
            names.checked_name(text, max_length=40)
        assert refused.value.code == code


def test_names_that_people_take_for_the_same_have_one_key() -> None:
    written = ["Zoë", "zoe\u0308", "ZOË ", "zoË"]
    assert {names.comparison_key(name) for name in written} == {"zoë"}
    assert names.comparison_key("STRASSE") == names.comparison_key("Straße")
    assert names.comparison_key("Zoe") != names.comparison_key("Zoë")


def test_texts_may_have_line_breaks_but_no_control_characters() -> None:
    names.check_text("sample_prompt", "one\n\ttwo\r\n \u200d")
    for text in ("a\0", "\x1b[31m", "a\x85b", "\udc00"):
        with pytest.raises(PanelError, match="sample_prompt contains"):
            names.check_text("sample_prompt", text)
