"""The recipe on the page of a corpus: in both languages, its preview, its results, and the way back."""

import html
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.corpora.cleaning import reasons
from app.corpora.cleaning.reasons import STEP_NAMES
from tests.app.corpora.cleaning.test_cleaning import RECIPE, TEXTS, cleaned, lines, texts
from tests.app.corpora.conftest import Upload
from tests.background import run_waiting


def page_of(client: TestClient, path: str, language: str = "en") -> str:
    answer = client.get(path, headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text[:2000]
    return html.unescape(answer.text)


@pytest.mark.parametrize(
    ("reason", "values", "said"),
    [
        ("lines_removed", {"n": 1}, "1 line removed"),
        ("lines_removed", {"n": 1200}, "1,200 lines removed"),
        ("words_few", {"n": 1, "limit": 3}, "1 word, at least 3"),
    ],
)
def test_a_reason_has_the_form_of_its_count(reason: str, values: dict[str, Any], said: str) -> None:
    assert reasons.sentence(reason, values) == said


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", ["How it was cleaned", "Documents left: 1 of 3 (33.3 %).", "6 characters, at least 20", "Undo"]),
        ("zh-CN", ["清洗过程", "3 篇文档中保留了 1 篇（33.3 %）。", "6 个字符，至少需 20 个", "撤销"]),
    ],
)
def test_the_page_shows_what_a_recipe_did(
    alice: TestClient, upload: Upload, language: str, sentences: list[str]
) -> None:
    parent = upload(alice, lines(TEXTS), f"page {language}.jsonl")
    corpus = cleaned(alice, parent["id"], *RECIPE)
    text = page_of(alice, f"/corpora/{corpus['id']}", language)
    for sentence in sentences:
        assert sentence in text
    assert text.count('name="step"') == len(STEP_NAMES)
    assert f"/corpora/{parent['id']}?recipe={corpus['id']}#clean" in text
    form = page_of(alice, f"/corpora/{parent['id']}?recipe={corpus['id']}", language)
    assert 'name="length.min_characters" id="clean-length-min_characters"' in form.replace(
        'id="clean-length-min_characters" name="length.min_characters"',
        'name="length.min_characters" id="clean-length-min_characters"',
    )
    assert 'value="length" checked' in form
    assert 'value="fix_unicode" checked' not in form


FORM: dict[str, Any] = {
    "step": ["length", "exact_duplicates"],
    "length.min_characters": "20",
    "length.max_characters": "",
    "length.min_words": "0",
    "length.max_words": "",
    "num_documents": "100",
}


def test_the_form_previews_and_then_cleans(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "form.jsonl")
    previewed = alice.post(f"/corpora/{parent['id']}/preview-cleaning", data=FORM)
    assert "Documents left: 1 of the first 3." in previewed.text
    assert 'value="length" checked' in previewed.text
    assert "The same text as document 1" in previewed.text
    answer = alice.post(f"/corpora/{parent['id']}/clean", data=FORM, follow_redirects=False)
    assert answer.status_code == 303
    assert "Cleaning form" in alice.get(answer.headers["Location"]).text
    run_waiting()
    assert texts(answer.headers["Location"].rpartition("/")[2]) == TEXTS[:1]
    undone = alice.post(f"/corpora/{parent['id']}/restore", follow_redirects=False)
    run_waiting()
    assert texts(undone.headers["Location"].rpartition("/")[2]) == TEXTS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length.min_characters": "many"}, "must be a whole number"),
        ({"length.max_characters": "3"}, "The least length is larger than the greatest."),
        ({"step": []}, "Choose at least one step."),
        ({"step": ["contamination"]}, "must have at least 1 entry"),
    ],
)
def test_a_wrong_setting_is_named_beside_the_form(
    alice: TestClient, upload: Upload, change: dict[str, Any], words: str
) -> None:
    parent = upload(alice, lines(TEXTS), "wrong.jsonl")
    for verb in ("clean", "preview-cleaning"):
        answer = alice.post(f"/corpora/{parent['id']}/{verb}", data={**FORM, **change})
        assert (answer.status_code, words in html.unescape(answer.text)) == (422, True)


def test_a_recipe_that_failed_can_run_again_from_its_page(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "failed.jsonl")
    corpus = cleaned(alice, parent["id"], {"name": "length", "min_characters": 1000})
    text = page_of(alice, f"/corpora/{corpus['id']}")
    assert "The recipe removes every document." in text
    assert "Run the recipe again" in text
    assert "Read again" not in text
