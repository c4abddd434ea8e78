"""Model endpoints through the API: which addresses are allowed, and that a key is never answered."""

import pytest
from starlette.testclient import TestClient

from app.core import db
from app.core.settings import settings
from app.core.synthetic_models import ModelEndpoint

KEY = "sk-a-key-that-nobody-else-may-see"
BODY = {
    "name": "teacher",
    "base_url": "https://93.184.216.34/v1/",
    "model": "large",
    "api_key": KEY,
    "input_price": 0.5,
}
ADDRESS = "/api/v1/model-endpoints"


def test_an_endpoint_is_stored_and_its_key_never_answered(alice: TestClient) -> None:
    added = alice.post(ADDRESS, json=BODY)
    assert added.status_code == 201, added.text
    endpoint = added.json()
    assert (endpoint["base_url"], endpoint["key_hint"]) == ("https://93.184.216.34/v1", "…-see")
    assert (endpoint["input_price"], endpoint["output_price"]) == (0.5, None)
    place = f"{ADDRESS}/{endpoint['id']}"
    without_key = {**BODY, "name": "other", "api_key": None}
    for answer in (added, alice.get(ADDRESS), alice.get(place), alice.put(place, json=without_key)):
        assert KEY not in answer.text
    with db.transaction() as session:
        row = session.get_one(ModelEndpoint, endpoint["id"])
    assert (row.name, row.api_key) == ("other", KEY)
    assert alice.delete(place).status_code == 204
    assert alice.get(place).status_code == 404


def test_a_key_is_not_sent_to_another_address(alice: TestClient) -> None:
    place = f"{ADDRESS}/{alice.post(ADDRESS, json=BODY).json()['id']}"
    moved = {**BODY, "base_url": "https://93.184.216.35/v1"}
    refused = alice.put(place, json={**moved, "api_key": None})
    assert (refused.status_code, refused.json()["code"]) == (422, "api_key_missing")
    assert alice.get(place).json()["base_url"] == "https://93.184.216.34/v1"
    assert alice.put(place, json=moved).status_code == 200


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"base_url": "http://93.184.216.34/v1"}, "base_url", "url_refused"),
        ({"base_url": "https://127.0.0.1:8000/v1"}, "base_url", "url_refused"),
        ({"base_url": "https://169.254.169.254/latest"}, "base_url", "url_refused"),
        ({"base_url": "ftp://93.184.216.34/v1"}, "base_url", "url_invalid"),
        ({"base_url": "https://93.184.216.34/v1?key=a"}, "base_url", "url_invalid"),
        ({"api_key": "two\nlines"}, "api_key", "api_key_invalid"),
        ({"name": " "}, "name", "name_missing"),
        ({"input_price": -1}, "input_price", "request_invalid"),
    ],
)
def test_bad_fields_are_refused(alice: TestClient, fields: dict[str, object], field: str, code: str) -> None:
    answer = alice.post(ADDRESS, json={**BODY, **fields})
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_the_same_model_at_the_same_address_is_listed_once(alice: TestClient) -> None:
    first = alice.post(ADDRESS, json={**BODY, "model": "small"}).json()
    answer = alice.post(ADDRESS, json={**BODY, "model": "small", "name": "again", "base_url": f"{first['base_url']}//"})
    assert (answer.status_code, answer.json()["code"]) == (422, "endpoint_exists"), answer.text
    assert "“teacher”" in answer.json()["title"]
    second = alice.post(ADDRESS, json={**BODY, "model": "tiny"}).json()
    changed = alice.put(f"{ADDRESS}/{second['id']}", json={**BODY, "model": "small"})
    assert (changed.status_code, changed.json()["code"]) == (422, "endpoint_exists")
    assert alice.put(f"{ADDRESS}/{second['id']}", json={**BODY, "model": "tiny", "name": "new"}).status_code == 200


def test_the_operator_can_list_hosts(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {**BODY, "base_url": "http://localhost:11434/v1"}
    monkeypatch.setenv("ATHANOR_WEBHOOK_HOSTS", "localhost")  # of another use
    settings.cache_clear()
    assert alice.post(ADDRESS, json=body).json()["code"] == "url_refused"
    monkeypatch.setenv("ATHANOR_ENDPOINT_HOSTS", "localhost")
    settings.cache_clear()
    assert alice.post(ADDRESS, json=body).status_code == 201
    monkeypatch.undo()
    settings.cache_clear()


def test_a_user_has_a_limited_number(bob: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.synthetic.endpoints.MAX_ENDPOINTS", 1)
    assert bob.post(ADDRESS, json=BODY).status_code == 201
    assert bob.post(ADDRESS, json=BODY).json()["code"] == "endpoints_many"
