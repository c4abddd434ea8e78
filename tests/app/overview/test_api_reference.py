"""The API reference tells of every call and of every field."""

from starlette.testclient import TestClient

from trainer.spec import TrainSpec


def test_every_call_stands_in_the_reference_with_a_curl_line(alice: TestClient) -> None:
    text = alice.get("/api/docs").text
    document = alice.get("/api/openapi.json").json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert f'id="{operation["operationId"]}"' in text, (method, path)
    assert text.count("curl ") >= sum(len(item) for item in document["paths"].values())


def test_examples_can_be_pasted(alice: TestClient) -> None:
    text = alice.get("/api/docs").text.replace("&#34;", '"').replace("&#39;", "'")
    assert 'curl "http://localhost/api/v1/jobs/$JOB_ID"' in text
    assert '-d \'{"recipe": "tiny"' in text
    assert 'curl -N "http://localhost/api/v1/jobs/$JOB_ID/events"' in text
    assert '--data-binary "@kjv.txt"' in text


def test_every_field_of_a_spec_is_explained(alice: TestClient) -> None:
    text = alice.get("/api/docs").text
    for name in TrainSpec.model_fields:
        assert f"<code>{name}</code>" in text
