"""Conversations through the API: branches, search, sharing, records, and that they are private."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.conversations import service

CONVERSATIONS = "/api/v1/conversations"


def create(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post(CONVERSATIONS, json=fields)
    assert answer.status_code == 201, answer.text
    row: dict[str, Any] = answer.json()
    return row


def say(
    client: TestClient, conversation: dict[str, Any], role: str, content: str, parent: Any = None, **more: Any
) -> Any:
    body = {"parent_id": parent["id"] if parent else None, "role": role, "content": content, **more}
    answer = client.post(f"{CONVERSATIONS}/{conversation['id']}/messages", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def chat(alice_api: TestClient) -> dict[str, Any]:
    """A conversation of Alice's with a question, two answers to it, and a second question below the first answer."""
    row = create(alice_api)
    question = say(alice_api, row, "user", "What is the capital of Italy?")
    answers = [
        say(
            alice_api,
            row,
            "assistant",
            text,
            question,
            model_id="m1",
            model_name="Furnace · step 20",
            settings={"temperature": 0.5, "system_prompt": system},
            seed=7,
            finish_reason="stop",
            num_tokens=3,
            tokens_per_second=20.5,
        )
        for text, system in (("Rome.", "Be brief."), ("It is Milan.", ""))
    ]
    second = say(alice_api, row, "user", "And of France?", answers[0])
    return {"row": row, "question": question, "answers": answers, "second": second}


def path(chat: dict[str, Any], *parts: str) -> str:
    return "/".join([CONVERSATIONS, chat["row"]["id"], *parts])


def test_messages_form_a_tree_and_keep_what_an_answer_was_generated_with(
    alice_api: TestClient, chat: dict[str, Any]
) -> None:
    detail = alice_api.get(path(chat)).json()

    parents = {message["content"]: message["parent_id"] for message in detail["messages"]}
    question, first = chat["question"]["id"], chat["answers"][0]["id"]
    assert parents == {
        "What is the capital of Italy?": None,
        "Rome.": question,
        "It is Milan.": question,
        "And of France?": first,
    }
    answer = detail["messages"][1]
    assert (answer["seed"], answer["finish_reason"], answer["tokens_per_second"]) == (7, "stop", 20.5)
    assert answer["settings"]["temperature"] == 0.5
    assert answer["model_name"] == "Furnace · step 20"


def test_the_first_question_becomes_the_title_until_it_is_renamed(alice_api: TestClient, chat: dict[str, Any]) -> None:
    assert alice_api.get(path(chat)).json()["title"] == "What is the capital of Italy?"
    assert alice_api.put(path(chat), json={"title": "  Capitals "}).json()["title"] == "Capitals"
    refused = alice_api.put(path(chat), json={"title": "x" * 121})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "title")


def test_a_question_follows_an_answer_and_an_answer_a_question(alice_api: TestClient, chat: dict[str, Any]) -> None:
    for role, parent in (("user", chat["question"]), ("assistant", chat["answers"][0]), ("assistant", None)):
        body = {"parent_id": parent and parent["id"], "role": role, "content": "No."}
        answer = alice_api.post(path(chat, "messages"), json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "parent_invalid")


def test_a_parent_is_a_message_of_the_same_conversation(alice_api: TestClient, chat: dict[str, Any]) -> None:
    other = create(alice_api)
    body = {"parent_id": chat["question"]["id"], "role": "assistant", "content": "Rome."}
    answer = alice_api.post(f"{CONVERSATIONS}/{other['id']}/messages", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "leaf_unknown")


def test_a_question_is_not_empty(alice_api: TestClient, chat: dict[str, Any]) -> None:
    answer = alice_api.post(path(chat, "messages"), json={"content": " \n"})
    assert (answer.status_code, answer.json()["code"]) == (422, "content_empty")


def test_what_a_model_wrote_is_stored_whatever_characters_it_has(alice_api: TestClient, chat: dict[str, Any]) -> None:
    answer = say(alice_api, chat["row"], "assistant", "a\u0000b\u0007\tc", chat["second"])
    assert answer["content"] == "a\ufffdb\ufffd\tc"
    refused = alice_api.post(path(chat, "messages"), json={"role": "user", "content": "a\u0007"})
    assert (refused.status_code, refused.json()["code"]) == (422, "character_invalid")


def test_deleting_a_message_deletes_what_follows_and_moves_columns_before_it(
    alice_api: TestClient, chat: dict[str, Any]
) -> None:
    columns = [
        {"model_id": "m1", "leaf_id": chat["second"]["id"]},
        {"model_id": "m2", "leaf_id": chat["answers"][1]["id"]},
    ]
    assert alice_api.put(path(chat), json={"columns": columns}).json()["columns"] == columns

    answer = alice_api.delete(path(chat, "messages", chat["answers"][0]["id"]))

    leaves = [column["leaf_id"] for column in answer.json()["columns"]]
    assert leaves == [chat["question"]["id"], chat["answers"][1]["id"]]
    contents = [message["content"] for message in alice_api.get(path(chat)).json()["messages"]]
    assert contents == ["What is the capital of Italy?", "It is Milan."]


def test_a_column_shows_only_messages_of_its_conversation(alice_api: TestClient, chat: dict[str, Any]) -> None:
    refused = alice_api.put(path(chat), json={"columns": [{"model_id": "m1", "leaf_id": "0000000000000000"}]})
    assert (refused.status_code, refused.json()["code"]) == (422, "leaf_unknown")


def test_a_conversation_has_a_limited_number_of_messages(
    alice_api: TestClient, chat: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_MESSAGES", 4)
    answer = alice_api.post(path(chat, "messages"), json={"role": "user", "content": "More?"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conversation_full")


# ---- lists ----------------------------------------------------------------------------------------------------------


def titles(client: TestClient, **params: Any) -> list[str]:
    return [row["title"] for row in client.get(CONVERSATIONS, params=params).json()["data"]]


def test_the_conversation_that_changed_last_is_listed_first(bob_api: TestClient) -> None:
    rows = [create(bob_api, title=title) for title in ("one", "two", "three")]
    say(bob_api, rows[0], "user", "Still there?")
    assert titles(bob_api)[:3] == ["one", "three", "two"]
    first = bob_api.get(CONVERSATIONS, params={"limit": 2}).json()
    assert [row["title"] for row in first["data"]] == ["one", "three"]
    assert titles(bob_api, after=first["next"])[0] == "two"


def test_a_search_looks_into_titles_and_messages(alice_api: TestClient, chat: dict[str, Any]) -> None:
    create(alice_api, title="100 % of Milan")
    create(alice_api, title="100 of them")

    matches = alice_api.get(CONVERSATIONS, params={"q": "mILAN"}).json()["data"]

    assert matches[0]["title"] == "100 % of Milan"
    excerpts = {row["id"]: row["excerpt"] for row in matches}
    assert excerpts[chat["row"]["id"]] == "It is Milan."
    assert titles(alice_api, q="0 %") == ["100 % of Milan"]
    assert titles(alice_api, q="no such text") == []


def test_the_list_of_the_page_has_the_same_entries(alice: TestClient, chat: dict[str, Any]) -> None:
    page = alice.get("/conversations", params={"q": "milan", "current": chat["row"]["id"]}).text
    assert f'conversation={chat["row"]["id"]}" aria-current="page"' in page
    assert "It is Milan." in page
    assert "No conversation contains this text." in alice.get("/conversations?q=nonsense").text


# ---- ownership, sharing, records ------------------------------------------------------------------------------------


def test_a_conversation_of_another_user_is_not_found(bob_api: TestClient, chat: dict[str, Any]) -> None:
    message = chat["question"]["id"]
    for method, address, body in (
        ("GET", path(chat), None),
        ("PUT", path(chat), {"title": "Mine"}),
        ("DELETE", path(chat), None),
        ("POST", path(chat, "messages"), {"role": "user", "content": "Hello"}),
        ("DELETE", path(chat, "messages", message), None),
        ("GET", path(chat, f"record?leaf={message}"), None),
        ("POST", path(chat, "share"), None),
        ("POST", path(chat, "unshare"), None),
    ):
        assert bob_api.request(method, address, json=body).status_code == 404, f"{method} {address}"
    assert "Italy" not in bob_api.get(CONVERSATIONS, params={"q": "Italy"}).text


def test_a_shared_conversation_is_read_by_its_link_until_it_is_private_again(
    alice_api: TestClient, bob: TestClient, visitor: TestClient, chat: dict[str, Any]
) -> None:
    columns = [{"model_id": "m1", "leaf_id": chat["answers"][1]["id"]}]
    alice_api.put(path(chat), json={"columns": columns, "system_prompt": "Answer <b>wrongly</b>."})
    key = alice_api.post(path(chat, "share")).json()["share_key"]
    assert alice_api.post(path(chat, "share")).json()["share_key"] == key
    assert re.fullmatch(r"[\w-]{40,}", key)

    page = bob.get(f"/shared/{key}")

    assert page.status_code == 200
    assert "It is Milan." in page.text
    assert "Rome." not in page.text  # another branch than the one that its author looks at
    assert "Answer &lt;b&gt;wrongly&lt;/b&gt;." in page.text
    assert "Alice" not in page.text
    assert visitor.get(f"/shared/{key}").headers["location"].startswith("/login")
    assert bob.get(path(chat)).status_code == 404
    alice_api.post(path(chat, "unshare"))
    assert bob.get(f"/shared/{key}").status_code == 404
    assert alice_api.post(path(chat, "share")).json()["share_key"] != key


def test_a_branch_is_exported_as_a_record_under_the_system_prompt_of_its_answer(
    alice_api: TestClient, chat: dict[str, Any]
) -> None:
    turns = [{"role": "user", "content": "What is the capital of Italy?"}]
    expected = {
        chat["answers"][0]["id"]: [
            {"role": "system", "content": "Be brief."},
            *turns,
            {"role": "assistant", "content": "Rome."},
        ],
        chat["answers"][1]["id"]: [*turns, {"role": "assistant", "content": "It is Milan."}],
    }
    expected[chat["second"]["id"]] = expected[chat["answers"][0]["id"]]  # a question without an answer is left out
    for leaf, messages in expected.items():
        assert alice_api.get(path(chat, f"record?leaf={leaf}")).json() == {"messages": messages}
    alice_api.put(path(chat), json={"columns": [{"model_id": "m1", "leaf_id": chat["second"]["id"]}]})
    by_column = alice_api.get(path(chat, "record")).json()["messages"]
    assert by_column == expected[chat["second"]["id"]]
    refused = alice_api.get(path(chat, f"record?leaf={chat['question']['id']}"))
    assert (refused.status_code, refused.json()["code"]) == (422, "record_empty")


def test_a_deleted_conversation_is_gone_with_its_messages(alice_api: TestClient, chat: dict[str, Any]) -> None:
    assert alice_api.delete(path(chat)).status_code == 204
    assert alice_api.get(path(chat)).status_code == 404
    assert chat["row"]["id"] not in alice_api.get(CONVERSATIONS, params={"q": "It is Milan"}).text


# ---- the tokens of answers ------------------------------------------------------------------------------------------

ROME = '[["Ro",[[3,"Ro",-0.25,[[3,"Ro",-0.25],[4," A",-1.5]]]]],["me.",[]]]'


def test_an_answer_keeps_the_probabilities_of_its_tokens(
    alice_api: TestClient, alice: TestClient, bob: TestClient, chat: dict[str, Any]
) -> None:
    answer = say(alice_api, chat["row"], "assistant", "Rome.", chat["question"], tokens=ROME)

    assert answer["tokens"] == ROME
    stored = {row["id"]: row["tokens"] for row in alice_api.get(path(chat)).json()["messages"]}
    assert (stored[answer["id"]], stored[chat["answers"][0]["id"]]) == (ROME, "")
    alice_api.put(path(chat), json={"columns": [{"model_id": "m1", "leaf_id": answer["id"]}]})
    key = alice_api.post(path(chat, "share")).json()["share_key"]
    page = bob.get(f"/shared/{key}").text
    assert page.count('data-module="token-colors"') == 1
    assert "&#34;Ro&#34;,-0.25" in page


@pytest.mark.parametrize(
    "tokens", ["x", "[]", "{}", '[["Rome.",[[1,"Rome.",null,[]]]]]', '[["Rome.",[[1,"Rome."]]]]', '[["Milan.",[]]]']
)
def test_tokens_of_another_form_or_text_are_refused(alice_api: TestClient, chat: dict[str, Any], tokens: str) -> None:
    body = {"parent_id": chat["question"]["id"], "role": "assistant", "content": "Rome.", "tokens": tokens}
    refused = alice_api.post(path(chat, "messages"), json=body)

    assert (refused.status_code, refused.json()["code"]) == (422, "tokens_invalid")
    assert refused.json()["errors"][0]["field"] == "tokens"


def test_a_conversation_keeps_the_tokens_of_its_newest_answers(
    alice_api: TestClient, chat: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_TOKENS_LENGTH", 2 * len(ROME))
    answers = [say(alice_api, chat["row"], "assistant", "Rome.", chat["question"], tokens=ROME) for _n in range(3)]

    stored = {row["id"]: row["tokens"] for row in alice_api.get(path(chat)).json()["messages"]}
    assert [stored[answer["id"]] for answer in answers] == ["", ROME, ROME]
