"""A folder of files as people have them, in a browser: uploaded, mapped, cleaned, split, looked at, trained on."""

import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import SAMPLES, checked_page, until_started
from tests.stack import Stack
from tests.worker.sandbox.corpus.sample_files import docx, pdf

MINUTE = 60_000
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
VERSES = [line for line in (SAMPLES / "king-james-bible.txt").read_text().splitlines() if 60 < len(line) < 200]
ROWS = [verse for verse in VERSES[200:] if ";" in verse][:14]
PAGES = VERSES[:8]
PARAGRAPHS = ["To be answered by ruth@example.org.", *VERSES[100:106]]
MASKED = ["To be answered by <EMAIL>.", *VERSES[100:106]]
LINES = (SAMPLES / "song-lyrics.jsonl").read_text().splitlines()[:6]
POEMS = "\n\n".join(json.loads(line)["text"].strip() for line in LINES)
VALIDATION_FRACTION = 0.25
WORDS = {
    "en": {
        "failed": "Failed",
        "ready": "Ready",
        "columns": "Say what each column is",
        "used_as": "vers is used as",
        "text": "Text",
        "map": "Read with these columns",
        "decode": "Read as GB18030",
        "preview": "Preview",
        "clean": "Clean",
        "cleaned": "How it was cleaned",
        "removed": "1 removed",
        "train": "Train on this",
        "data": "Data",
        "training": "Training",
        "look": "Look at the samples",
        "exact": "All documents were read: the job will read exactly these samples at this step.",
        "next": "Next samples",
        "start": "Start",
        "batch": "Training batch",
        "succeeded": "Succeeded",
    },
    "zh-CN": {
        "failed": "失败",
        "ready": "就绪",
        "columns": "指定各列的含义",
        "used_as": "vers 用作",
        "text": "文本",
        "map": "按这些列读取",
        "decode": "按 GB18030",
        "preview": "预览",
        "clean": "清洗",
        "cleaned": "清洗过程",
        "removed": "移除 1 篇",
        "train": "用它训练",
        "data": "数据",
        "training": "训练",
        "look": "查看样本",
        "exact": "已读取全部文档",
        "next": "后面的样本",
        "start": "开始训练",
        "batch": "训练批次",
        "succeeded": "已完成",
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A PDF, a Word document, a table with semicolons that repeats a row, and a Chinese text in GBK."""
    directory = tmp_path / "archive"
    (directory / "notes").mkdir(parents=True)
    (directory / "letters.pdf").write_bytes(pdf(PAGES))
    (directory / "notes/memo.docx").write_bytes(docx(PARAGRAPHS))
    (directory / "poems.txt").write_bytes(POEMS.encode("gbk"))
    table = io.StringIO()
    rows = csv.writer(table, delimiter=";")
    rows.writerows([("Nr", "Vers", "Buch"), *((number, verse, "Genèse") for number, verse in enumerate(ROWS))])
    rows.writerow((99, ROWS[3], "Genèse"))
    (directory / "answers.csv").write_text(table.getvalue())
    return directory


def is_held_out(document: str) -> bool:
    """Whether a split by documents holds it out, as docs/corpora.md says: by the hash of its text."""
    digest = hashlib.blake2b(document.encode(), digest_size=8, key=b"athanor split").digest()
    return int.from_bytes(digest, "little") < VALIDATION_FRACTION * 2**64


@pytest.mark.parametrize("locale", WORDS)
def test_a_folder_is_mapped_cleaned_split_looked_at_and_trained_on(
    running_stack: Stack, chromium: Browser, login_state: Any, folder: Path, locale: str
) -> None:
    words, name = WORDS[locale], f"archive {locale}"
    context = chromium.new_context(locale=locale, storage_state=login_state, viewport=WIDE)
    with checked_page(context) as page:
        page.goto(running_stack.base_url + "/corpora")
        until_started(page)
        upload(page, words, folder, name)
        read_all_files(page, words)
        assert documents(running_stack, page) == [*ROWS, ROWS[3], *texts(PARAGRAPHS)]
        clean(page, words)
        assert documents(running_stack, page) == [*ROWS, *texts(MASKED)]
        expect(page.locator("#files")).to_contain_text(f"{name}.jsonl")
        page.get_by_role("link", name=words["train"]).click()
        plan(page, words)
        samples = look_at_samples(page, words)
        assert train(page, words) == samples


def texts(paragraphs: list[str]) -> list[str]:
    """The documents of the files beside the table, in the order of their names."""
    return ["\n\n".join(PAGES), "\n\n".join(paragraphs), POEMS]


def documents(stack: Stack, page: Page) -> list[str]:
    """All documents of the corpus on the page, from its text on the disk."""
    corpus_id = re.search(r"/corpora/(\w+)", page.url)[1]  # type: ignore[index]
    text = (stack.data / "corpora" / corpus_id / "text.bin").read_bytes()
    index = (stack.data / "corpora" / corpus_id / "index.bin").read_bytes()
    ends = [int.from_bytes(index[at : at + 8], "little") for at in range(0, len(index), 8)]
    return [text[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]


def fits(page: Page) -> None:
    """Check that a page is no wider than a phone, and leave it wide."""
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]


def upload(page: Page, words: dict[str, str], folder: Path, name: str) -> None:
    page.locator("#upload-name").fill(name)
    page.locator("[data-folder]").set_input_files(folder)
    row = page.get_by_role("row").filter(has_text=name)
    expect(row.get_by_text(words["failed"])).to_be_visible(timeout=MINUTE)
    row.get_by_role("link").first.click()


def read_all_files(page: Page, words: dict[str, str]) -> None:
    """Say which column is the text, then in which encoding the Chinese file is."""
    problems = page.locator("#problems")
    expect(problems).to_contain_text("archive/answers.csv")
    expect(problems).to_contain_text("archive/poems.txt")
    columns = page.locator("#columns")
    expect(columns.get_by_role("heading", name=words["columns"])).to_be_visible()
    expect(columns).to_contain_text(ROWS[0][:60])  # an example, to choose by
    offers = page.locator("#encoding")
    expect(offers).to_contain_text("archive/poems.txt")
    fits(page)
    columns.get_by_label(words["used_as"]).select_option(words["text"])
    columns.get_by_role("button", name=words["map"]).click()
    expect(problems).not_to_contain_text("answers.csv", timeout=MINUTE)
    first = offers.locator("form").first
    expect(first).to_contain_text(POEMS[:5])
    fits(page)
    first.get_by_role("button", name=words["decode"]).click()
    expect(page.locator("#documents")).to_contain_text(ROWS[0][:60], timeout=MINUTE)
    encodings = page.locator("#files tbody tr").filter(has_text="poems.txt")
    expect(encodings).to_contain_text("GB18030")
    expect(page.locator("#files tbody tr").filter(has_text="answers.csv")).to_contain_text("UTF-8")
    expect(page.locator("#unused-keys")).to_contain_text("buch")
    fits(page)


def clean(page: Page, words: dict[str, str]) -> None:
    form = page.locator("#clean")
    for box in form.locator("input[name=step]").all():
        box.set_checked(box.get_attribute("value") in ("exact_duplicates", "mask_personal_data"))
    form.get_by_role("button", name=words["preview"]).click()
    expect(page.locator("#preview")).to_contain_text(words["removed"])
    fits(page)
    before = page.url
    page.locator("#clean").get_by_role("button", name=words["clean"], exact=True).click()
    page.wait_for_function("before => location.href !== before", arg=before)
    expect(page.locator("#documents")).to_contain_text(ROWS[0][:60], timeout=MINUTE)
    cleaning = page.locator("#cleaning")
    expect(cleaning.get_by_role("heading", name=words["cleaned"])).to_be_visible()
    expect(cleaning).to_contain_text(words["removed"])
    fits(page)


def plan(page: Page, words: dict[str, str]) -> None:
    until_started(page)
    for title in ("data", "training"):
        page.locator("summary").filter(has_text=words[title]).first.click()
    page.locator("#job-form select[name=split]").select_option("document")
    values = {"validation_fraction": VALIDATION_FRACTION, "sequence_length": 128, "max_steps": 6}
    values |= {"train_batch_size": 8, "per_device_batch_size": 8, "warmup_steps": 2, "vocab_size": 600}
    for field, value in values.items():
        page.locator(f"#job-form [name={field}]").fill(str(value))
    expect(page.locator("[data-figures]:not(.stale)")).to_have_count(1)
    expect(page.locator("#job-form .error")).to_have_count(0)
    fits(page)


def look_at_samples(page: Page, words: dict[str, str]) -> list[str]:
    """The tokens of the first batch, sample by sample: of what is trained on, and nothing that is held out."""
    with page.context.expect_page() as opened:
        page.get_by_role("button", name=words["look"]).click()
    lens = opened.value
    expect(lens.get_by_text(words["exact"])).to_be_visible(timeout=MINUTE)
    samples = tokens(lens.locator(".tokens"))
    fits(lens)
    lens.close()
    assert len(samples) == 8
    shown = "\n".join(samples)
    for document in [*ROWS, *texts(MASKED)]:
        lines = [line for line in document.splitlines() if len(line) > 5]
        if is_held_out(document):
            assert not [line for line in lines if line in shown], document
    return samples


def tokens(paragraphs: Locator) -> list[str]:
    """The text of tokens: of those that make whole characters together these, in place of their bytes."""
    texts: list[str] = paragraphs.evaluate_all(
        """paragraphs => paragraphs.map((paragraph) => {
          const copy = paragraph.cloneNode(true);
          for (const cell of copy.querySelectorAll(".character")) cell.replaceWith(cell.dataset.characters);
          for (const bytes of copy.querySelectorAll("small")) bytes.remove(); // of a character that the sample cuts
          return copy.textContent;
        })"""
    )
    return texts


def train(page: Page, words: dict[str, str]) -> list[str]:
    """Train, and answer the tokens of the first batch that was trained on."""
    page.get_by_role("button", name=words["start"], exact=True).click()
    expect(page.locator("[data-badge]")).to_have_text(words["succeeded"], timeout=2 * MINUTE)
    page.goto(page.url.partition("?")[0] + "/batches?step=1")
    expect(page.get_by_role("heading", name=words["batch"])).to_be_visible(timeout=MINUTE)
    return tokens(page.locator(".tokens"))
