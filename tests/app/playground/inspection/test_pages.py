"""The page that looks inside a model, and those of Learn: which models they offer, and to whom."""

import pytest
from starlette.testclient import TestClient

from tests.app.playground.inspection.conftest import Family

PAGES = ["/playground/inspect", *(f"/learn/{name}" for name in ("tokenize", "embed", "attend", "predict", "train"))]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_offers_own_models_with_what_they_allow(
    alice: TestClient, bob: TestClient, decoder: Family, path: str
) -> None:
    page = alice.get(path, params={"checkpoint": decoder.id})

    assert page.status_code == 200
    assert f'<option value="{decoder.id}" data-tasks="tokenize score attention neighbors embed"' in page.text
    assert decoder.id not in bob.get(path).text
    assert bob.get(path, params={"checkpoint": decoder.id}).status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_without_a_model_a_page_leads_to_a_first_job(bob: TestClient, path: str) -> None:
    page = bob.get(path)

    assert page.status_code == 200
    assert 'href="/jobs/new"' in page.text


def test_a_lesson_keeps_the_text_of_the_address(alice: TestClient, decoder: Family) -> None:
    assert "&lt;b&gt;mine&lt;/b&gt;" in alice.get("/learn/attend", params={"text": "<b>mine</b>"}).text
    assert alice.get("/learn/attend", params={"text": "x" * 2_001}).status_code == 422


def test_an_unknown_lesson_is_not_found(alice: TestClient) -> None:
    assert alice.get("/learn/nothing").status_code in (404, 422)


def test_the_list_leads_to_all_lessons(alice: TestClient) -> None:
    page = alice.get("/learn").text
    for name in PAGES[1:]:
        assert f'href="{name}"' in page
