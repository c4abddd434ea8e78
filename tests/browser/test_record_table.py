"""Records are written by keyboard, kept over a reload, and saved as a corpus."""

import json

import httpx
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.stack import Stack
from tests.waiting import until

PASTE = """(cell) => {
  const data = new DataTransfer();
  data.setData("text/plain", "Hot?\\tCold.\\r\\nBig?\\tSmall.\\r\\n");
  cell.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""


def test_conversations_are_written_by_keyboard_and_saved(open_page: Open, running_stack: Stack) -> None:
    with open_page("/corpora/write?kind=chat") as page:
        page.get_by_label("Question 1").fill("Near?")
        page.keyboard.press("Tab")
        page.keyboard.type('Far. "Very"')
        page.keyboard.press("Control+Enter")
        page.keyboard.type("Up?")
        expect(page.locator("[data-count]")).to_have_text("1 complete record")
        page.wait_for_function("() => Object.values({...localStorage}).some((text) => text.includes('Up?'))")
        page.reload()
        expect(page.get_by_label("Question 2")).to_have_value("Up?")
        page.get_by_label("Name", exact=True).fill("Opposites")
        page.get_by_role("button", name="Save as a corpus").click()
        expect(page.get_by_role("alert")).to_have_text("Record 2: Answer is empty.")
        expect(page.get_by_label("Answer 2")).to_be_focused()
        page.get_by_label("Answer 2").fill("Down.")
        page.get_by_role("button", name="Add a record").click()
        page.get_by_label("Question 3").evaluate(PASTE)
        page.get_by_role("button", name="Save as a corpus").click()
        page.wait_for_url(lambda url: "/corpora/write" not in url)
        corpus_id = page.url.rpartition("/")[2]
    client: httpx.Client = running_stack.client
    until(lambda: client.get(f"/api/v1/corpora/{corpus_id}").json()["state"] == "ready", 60, "the corpus")
    corpus = client.get(f"/api/v1/corpora/{corpus_id}").json()
    assert (corpus["name"], corpus["kind"], corpus["num_documents"]) == ("Opposites", "chat", 4)
    documents = client.get(f"/api/v1/corpora/{corpus_id}/documents").json()["data"]
    messages = json.loads(documents[0]["text"])["messages"]
    assert [message["content"] for message in messages] == ["Near?", 'Far. "Very"']
    assert "Small." in documents[3]["text"]


def test_every_kind_has_its_columns(open_page: Open, running_stack: Stack) -> None:
    with open_page("/corpora/write?kind=preference") as page:
        for title, text in (("Prompt", "Warm?"), ("Better answer", "Cool."), ("Worse answer", "Yes.")):
            page.get_by_label(f"{title} 1").fill(text)
        page.get_by_label("Name", exact=True).fill("Preferences")
        page.get_by_role("button", name="Save as a corpus").click()
        page.wait_for_url(lambda url: "/corpora/write" not in url)
        corpus_id = page.url.rpartition("/")[2]
    client = running_stack.client
    until(lambda: client.get(f"/api/v1/corpora/{corpus_id}").json()["state"] == "ready", 60, "the corpus")
    assert client.get(f"/api/v1/corpora/{corpus_id}").json()["kind"] == "preference"


def test_a_draft_stays_until_its_corpus_is_ready(open_page: Open, running_stack: Stack) -> None:
    client = running_stack.client

    def save(state: str) -> None:
        page.get_by_role("button", name="Save as a corpus").click()
        page.wait_for_url(lambda url: "/corpora/write" not in url)
        path = f"/api/v1/corpora/{page.url.rpartition('/')[2]}"
        until(lambda: client.get(path).json()["state"] == state, 60, state)
        page.goto(f"{running_stack.base_url}/corpora/write?kind=questions")

    with open_page("/corpora/write?kind=questions") as page:
        page.get_by_label("Question 1").fill("When?")
        page.get_by_label("Right answer 1").fill("([0-9")
        page.get_by_label("Check 1").select_option("regex")
        page.get_by_label("Name", exact=True).fill("Years")
        save("failed")
        expect(page.get_by_label("Right answer 1")).to_have_value("([0-9")
        expect(page.get_by_label("Check 1")).to_have_value("regex")
        page.get_by_label("Right answer 1").fill("[0-9]{4}")
        page.get_by_label("Name", exact=True).fill("Years")
        save("ready")
        expect(page.get_by_label("Right answer 1")).to_have_value("")
