"""Sentences beside each other in templates and messages have a space between them in English and none in Chinese."""

import re

import pytest

from app.core.i18n import CATALOG, join_sentences, use_locale
from app.web.pages import templates

SPACE_AFTER_WIDE = re.compile(r"[。！？：；，] ")
SECOND = "This join token is not valid: it was used or revoked, or it is too old. Create a new one."


@pytest.mark.parametrize(
    "template",
    [
        '{{ _("There is nothing at this address.") }} {{ _(second) }}',
        '{{ _("There is nothing at this address.") }}\n{{ _(second) }}',
        '{{ _("There is nothing at this address.") }}\n{% if true %}\n{{ _(second) }}\n{% endif %}',
        '{{ _("There is nothing at this address.") }}{% if true %} {{ _(second) }}{% endif %}',
        '<b>{{ _("There is nothing at this address.") }}</b> <a href="/">{{ _(second) }}</a>',
        '<p title="{{ _("There is nothing at this address.") }} {{ second }}"></p>',
    ],
)
def test_a_space_after_a_sentence_is_that_of_the_language(template: str) -> None:
    compiled = templates.env.from_string(template)
    with use_locale("zh-CN"):
        chinese = compiled.render(second=SECOND)
        assert "。" in chinese
        assert not re.search(r"。(</b>)?\s+\S", chinese)
    english = compiled.render(second=SECOND)
    assert re.search(r"address\.(</b>)? (<a href=\"/\">)?This", english)


def test_other_spaces_stay() -> None:
    compiled = templates.env.from_string('{{ _("There is nothing at this address.") }}<i>{{ a }} {{ b }}</i> {{ a }} c')
    with use_locale("zh-CN"):
        assert compiled.render(a="。", b="b").endswith("<i>。 b</i> 。 c")


def test_messages_are_joined_as_sentences_of_the_language() -> None:
    assert join_sentences(["A.", "B."]) == "A. B."
    with use_locale("zh-CN"):
        assert join_sentences(["甲。", "乙。"]) == "甲。乙。"


def test_no_translation_has_a_space_after_wide_punctuation() -> None:
    assert SPACE_AFTER_WIDE.findall(CATALOG.read_text(encoding="utf-8")) == []
