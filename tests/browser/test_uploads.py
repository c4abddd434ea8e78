"""Uploads in the browser, by the unchanged tus-js-client: folders, cuts, pauses, reloads, and versions of a corpus."""

import hashlib
import random
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import cutting_proxy
from tests.browser.conftest import Open, checked_page, until_started
from tests.stack import Stack
from tests.waiting import until

MINUTE = 60_000
NARROW = {"viewport": {"width": 390, "height": 800}}


def text_of(seed: int, num_bytes: int) -> bytes:
    return random.Random(seed).randbytes(num_bytes // 2).hex().encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    directory = tmp_path / "library"
    (directory / "old").mkdir(parents=True)
    (directory / "old/one.txt").write_text("First.")
    (directory / "two.jsonl").write_text('{"text": "Second."}\n')
    (directory / "cover.png").write_bytes(b"png")
    (directory / "empty.txt").write_bytes(b"")
    (directory / ".hidden.txt").write_text("hidden")
    return directory


def corpus_named(stack: Stack, name: str) -> Any:
    data = stack.client.get("/api/v1/corpora", params={"limit": 100}).json()["data"]
    return next((corpus for corpus in data if corpus["name"] == name), None)


@pytest.mark.parametrize("settings", [{}, NARROW], ids=["wide", "narrow"])
def test_a_folder_becomes_one_corpus(running_stack: Stack, open_page: Open, folder: Path, settings: Any) -> None:
    name = f"library {len(settings)}"
    with open_page("/corpora", **settings) as page:
        page.get_by_label("Name of the corpus", exact=True).fill(name)
        page.locator("[data-folder]").set_input_files(folder)
        left_out = page.locator("[data-left-out]")
        expect(left_out).to_contain_text("library/cover.png: Files of this type cannot be read.")
        expect(left_out).to_contain_text("library/empty.txt: The file is empty.")
        expect(left_out).not_to_contain_text("hidden")
        row = page.get_by_role("row").filter(has_text=name)
        expect(row.get_by_text("Ready")).to_be_visible(timeout=MINUTE)
        expect(row).to_contain_text("2 files")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        row.get_by_role("link").click()
        expect(page.locator("#files").get_by_role("row").filter(has_text="library/old/one.txt")).to_be_visible()
        expect(page.locator("#documents")).to_contain_text("First.")
        expect(page.locator("#documents")).to_contain_text("Second.")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_files_become_a_corpus_each(running_stack: Stack, open_page: Open, tmp_path: Path) -> None:
    paths = [tmp_path / f"each {n}.txt" for n in range(5)]
    for path in paths:
        path.write_text(path.stem)
    with open_page("/corpora") as page:
        page.get_by_label("a corpus each").check()
        page.locator("#file").set_input_files(paths)
        for path in paths:
            expect(page.get_by_role("row").filter(has_text=path.stem).get_by_text("Ready")).to_be_visible(
                timeout=MINUTE
            )
        expect(page.locator(".batch")).to_have_count(0)


def test_a_new_version_is_made_on_the_page_of_a_corpus(
    running_stack: Stack, open_page: Open, folder: Path, tmp_path: Path
) -> None:
    added = tmp_path / "three.txt"
    added.write_text("Third.")
    with open_page("/corpora") as page:
        page.get_by_label("Name of the corpus", exact=True).fill("growing")
        page.locator("[data-folder]").set_input_files(folder)
        page.get_by_role("row").filter(has_text="growing").get_by_role("link").click(timeout=MINUTE)
        first = page.url
        page.locator("#documents").wait_for(timeout=MINUTE)
        until_started(page)
        page.locator("#file").set_input_files(added)
        page.wait_for_function("first => location.href !== first", arg=first, timeout=MINUTE)
        expect(page.locator("#changes")).to_contain_text("three.txt")
        page.locator("#documents").wait_for(timeout=MINUTE)
        expect(page.get_by_text("Version 2, 3 files")).to_be_visible()
        page.get_by_role("checkbox", name="Remove: library/two.jsonl").check()
        page.get_by_role("button", name="Make a version without the chosen files").press("Enter")
        expect(page.get_by_text("Version 3, 2 files")).to_be_visible()
        expect(page.locator("#changes")).to_contain_text("library/two.jsonl")
        page.get_by_role("link", name="version 1", exact=True).click()
        expect(page.get_by_role("heading", name="Changes since version 1")).to_be_visible()


def open_through(proxy: cutting_proxy.CuttingProxy, chromium: Browser, state: Any) -> Any:
    return checked_page(chromium.new_context(locale="en", storage_state=state))


def opened(page: Page, url: str) -> Page:
    page.goto(url + "/corpora")
    until_started(page)
    return page


def test_an_upload_cut_at_twenty_random_points_arrives_unchanged(
    running_stack: Stack, chromium: Browser, login_state: Any, tmp_path: Path
) -> None:
    content = text_of(20, 24_000_000)
    path = tmp_path / "twenty cuts.txt"
    path.write_bytes(content)
    randomness = random.Random(20)
    limits = [300_000, *(randomness.randrange(150_000, 1_000_000) for _cut in range(19))]
    port = urlsplit(running_stack.base_url).port or 0
    with cutting_proxy.running(port, []) as proxy, open_through(proxy, chromium, login_state) as page:
        opened(page, proxy.url)
        proxy.cut_after(limits)
        page.locator("#file").set_input_files(path)
        corpus = until(lambda: corpus_named(running_stack, "twenty cuts"), 180, "the corpus")
        assert proxy.num_cuts == 20
        assert corpus["sha256"] == hashlib.sha256(content).hexdigest()


def test_an_upload_is_paused_and_resumed_after_a_reload(
    running_stack: Stack, chromium: Browser, login_state: Any, tmp_path: Path
) -> None:
    content = text_of(37, 20_000_000)
    path = tmp_path / "reloaded.txt"
    path.write_bytes(content)
    port = urlsplit(running_stack.base_url).port or 0
    with cutting_proxy.running(port, []) as proxy, open_through(proxy, chromium, login_state) as page:
        opened(page, proxy.url)
        proxy.close_gate_after(7_400_000)
        page.locator("#file").set_input_files(path)
        row = page.locator(".upload-row").filter(has_text="reloaded.txt")
        until(lambda: not proxy.gate.is_set(), 60, "37 % of the file")
        row.get_by_role("button", name="Pause: reloaded.txt").press("Enter")
        expect(row.locator("[data-status]")).to_contain_text("Paused at")
        proxy.gate.set()
        page.on("dialog", lambda dialog: dialog.accept())
        opened(page, proxy.url)
        notice = page.locator(".alert").filter(has_text="reloaded.txt")
        expect(notice).to_contain_text("Uploads that were interrupted: 1.")
        before = proxy.num_bytes
        page.locator("#file").set_input_files(path)
        corpus = until(lambda: corpus_named(running_stack, "reloaded"), 120, "the corpus")
        assert corpus["sha256"] == hashlib.sha256(content).hexdigest()
        assert proxy.num_bytes - before < 15_000_000
        expect(page.locator(".batch")).to_have_count(0)


def test_a_lost_connection_is_reported_with_the_way_out(
    running_stack: Stack, chromium: Browser, login_state: Any, tmp_path: Path
) -> None:
    path = tmp_path / "lost.txt"
    path.write_bytes(text_of(1, 8_000_000))
    with checked_page(chromium.new_context(locale="zh-CN", storage_state=login_state, **NARROW)) as page:
        opened(page, running_stack.base_url)
        page.clock.install()
        page.context.set_offline(True)
        page.locator("#file").set_input_files(path)
        row = page.locator(".upload-row").filter(has_text="lost.txt")
        for _retry in range(6):
            page.clock.run_for(11_000)
        expect(row.get_by_role("alert")).to_contain_text("已到达的部分会保留")
        expect(row.get_by_role("button", name="继续上传: lost.txt")).to_be_visible()
        page.context.set_offline(False)  # it resumes by itself
        until(lambda: corpus_named(running_stack, "lost"), 60, "the corpus")
