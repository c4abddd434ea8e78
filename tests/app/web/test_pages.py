"""What holds for all templates of pages."""

import re
from pathlib import Path

TEMPLATES = Path(__file__).parents[3] / "templates"
DELETING = re.compile(r'<form[^>]*action="[^"]*/(?:delete|remove|revoke|disconnect)"[^>]*>.*?</form>', re.DOTALL)
# Forms whose button opens a dialog, that ask on a page of their own, and logins, which can be made again.
ASKING = {
    "jobs/parts/actions.html": "data-dialog=|attrs=",
    "trash/confirm.html": 'name="confirmed"',
    "accounts/person.html": r'field\("confirmation"',
    "accounts/account.html": "sessions|identities",
}


def outside_dialogs(template: str) -> str:
    return re.sub(r"<dialog.*?</dialog>", "", template, flags=re.DOTALL)


def test_every_deletion_asks_first() -> None:
    num_dialogs = 0
    for path in TEMPLATES.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        num_dialogs += len(re.findall(r"<dialog|ui\.deletion\(", text))
        for form in DELETING.findall(outside_dialogs(text)):
            name = str(path.relative_to(TEMPLATES))
            assert name in ASKING, f"{name} deletes without a question: {form}"
            assert re.search(ASKING[name], form), f"{name} deletes without a question: {form}"
    assert num_dialogs > 10


def test_each_dialog_has_a_button_that_opens_it() -> None:
    for path in TEMPLATES.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"ui\.deletion\((.*?)\) \}\}", text, re.DOTALL):
            identifier = re.search(r'(?:id=|, )"((?:delete|remove|revoke|forget)-[a-z]*)', call)
            start = identifier[1] if identifier else "delete"
            opener = re.compile(rf'"data-dialog": "{start}|data-dialog="{start}')
            assert opener.search(text), f"{path.name}: nothing opens the dialog {start}"
