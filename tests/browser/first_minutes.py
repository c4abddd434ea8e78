"""The first ten minutes of somebody who has read nothing: from a link to a model that answers by their own records.

`python -m tests.browser.first_minutes DIRECTORY` starts an installation there and prints, for each language, a line of
JSON: how many clicks and fields it took, and the seconds of each part. It asserts that the answer is right. The first
user follows the link of the terminal, the second one an invitation; both use the same processes.
"""

import json
import random
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

from app.core.i18n import _, use_locale
from tests import chromium, stack
from tests.browser.conftest import checked_page, until_started
from tests.users import PASSWORD

MINUTE = 60_000
NUM_RECORDS = 40
STEPS, LENGTH = 200, 128  # with fewer, answers are not always right
ANSWER = ".turn.assistant [data-content]"
ANSWERS = {
    "en": {
        "When do you open?": "We open at seven in the morning.",
        "Do you bake rye bread?": "Yes, rye bread is ready at ten.",
        "How much is a roll?": "A roll is forty cents.",
        "Is there coffee?": "Yes, small and large cups.",
        "Where are you?": "Next to the old mill.",
        "Do you sell cake?": "Only on Saturdays.",
        "Can I pay by card?": "Yes, from five euros on.",
        "Who bakes here?": "Maria and her two sons.",
    },
    "zh-CN": {
        "你们几点开门？": "我们早上七点开门。",
        "有黑麦面包吗？": "有，十点出炉。",
        "一个小面包多少钱？": "一个小面包四角。",
        "有咖啡吗？": "有，分大杯和小杯。",
        "你们在哪里？": "在老磨坊旁边。",
        "卖蛋糕吗？": "只在周六卖。",
        "可以刷卡吗？": "可以，五元起。",
        "谁来烤面包？": "玛丽亚和她的两个儿子。",
    },
}


@dataclass
class Visitor:
    """Somebody at a page, whose actions and time are counted."""

    page: Page
    num_clicks: int = 0
    num_fields: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    begin: float = field(default_factory=time.monotonic)

    def click(self, target: Locator) -> None:
        """Press what is there."""
        target.click()
        self.num_clicks += 1

    def fill(self, label: str, text: str) -> None:
        """Write into the field with this label."""
        self.page.get_by_label(label, exact=True).fill(text)
        self.num_fields += 1

    def note(self, part: str) -> None:
        """A part is over."""
        now = time.monotonic()
        self.seconds[part] = round(now - self.begin, 1)
        self.begin = now


def write_records(directory: Path, language: str) -> Path:
    """Conversations of one or two questions, as somebody would collect them."""
    chance = random.Random(language)
    pairs = list(ANSWERS[language].items())
    lines = []
    for number in range(NUM_RECORDS):
        messages = []
        for question, answer in chance.sample(pairs, 2 if number % 5 == 4 else 1):
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False))
    path = directory / f"bakery-{language}.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def live_through(page: Page, link: str, name: str, records: Path, question: str, steps: int = STEPS) -> Visitor:
    """Follow the link, bring the records, train, and ask until there is an answer, right or wrong."""
    page.set_default_timeout(MINUTE)
    visitor = Visitor(page)
    page.goto(link)
    visitor.fill(_("Name"), name)
    visitor.fill(_("Password"), PASSWORD)
    visitor.click(page.get_by_role("button", name=_("Create the account")))
    visitor.click(page.get_by_role("link", name=_("Upload a corpus")))
    until_started(page)
    page.locator("#file").set_input_files(records)  # what the button of the system's dialog does
    visitor.num_clicks += 1
    row = page.get_by_role("row").filter(has_text=records.stem)
    expect(row.get_by_text(_("Ready"))).to_be_visible()
    visitor.click(row.get_by_role("link").first)
    visitor.click(page.get_by_role("link", name=_("Train on this")))
    until_started(page)
    visitor.note("from the link to the form")
    visitor.click(page.locator(".goal").filter(has_text=_("Answer in conversation")))
    for fold, label, value in ((_("Data"), _("Sequence length"), LENGTH), (_("Training"), _("Steps"), steps)):
        visitor.click(page.locator("summary").filter(has_text=re.compile(rf"^\s*{fold}\s")))
        visitor.fill(label, str(value))
    expect(page.locator("[data-figures]:not(.stale)")).to_have_count(1)
    visitor.click(page.get_by_role("button", name=_("Start"), exact=True))
    page.wait_for_url(re.compile("/jobs/[0-9a-z]+$"))
    visitor.note("from the form to Start")
    talk = page.get_by_role("link", name=_("Talk to it"))
    expect(talk).to_be_visible(timeout=8 * MINUTE)
    visitor.note("from Start to the model")
    visitor.click(talk)
    until_started(page)
    visitor.fill(_("Your message"), question)
    visitor.click(page.get_by_role("button", name=_("Send"), exact=True))
    expect(page.locator(".turn.assistant [data-meta]")).to_contain_text("·", timeout=2 * MINUTE)  # its figures
    visitor.note("from the model to its answer")
    return visitor


def main(directory: Path) -> None:
    """Start an installation in a directory; one user after another does all of it."""
    expect.set_options(timeout=MINUTE)
    path = chromium.find()
    begin = time.monotonic()
    with stack.running(directory) as installation, sync_playwright() as playwright:
        start_seconds = round(time.monotonic() - begin, 1)
        browser = playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        link = installation.link
        for language, name in zip(ANSWERS, ("Alice", "Bob"), strict=True):
            records = write_records(directory, language)
            with use_locale(language), checked_page(browser.new_context(locale=language)) as page:
                question, answer = next(iter(ANSWERS[language].items()))
                visitor = live_through(page, link, name, records, question)
                expect(page.locator(ANSWER)).to_have_text(answer)
                if name == "Alice":
                    origin = installation.base_url
                    answered = page.request.post(f"{origin}/api/v1/invitations", data={}, headers={"Origin": origin})
                    link = answered.json()["link"]
            figures = {"clicks": visitor.num_clicks, "fields": visitor.num_fields, "seconds": visitor.seconds}
            sys.stdout.write(
                json.dumps({"language": language, **figures, "seconds of athanor up": start_seconds}) + "\n"
            )
            sys.stdout.flush()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
