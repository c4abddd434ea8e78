"""Pictures of pages for people to look at: every page, in two themes, two languages and four widths.

`python -m tests.browser.pictures DIRECTORY [NAME...]` starts an installation, fills it with an ended job, a
hyperparameter search, a deployment and a node that is offline, and writes DIRECTORY/NAME-WIDTH-THEME-LANGUAGE.png of
each page, or of those that are named. With --readme it takes those that README.md shows instead, at 1280 by 860.
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import psycopg
from playwright.sync_api import Browser, Page, TimeoutError, expect, sync_playwright

from bench.support.installation import trainers_of
from tests import chromium, stack
from tests.browser.conftest import SMALL, finished_job, newest_checkpoint, until_started
from tests.stack import Stack
from tests.waiting import until

SLOW = 120_000  # milliseconds: a model may have to be opened, beside other work
WIDTHS, THEMES, LANGUAGES = (390, 768, 1440, 2560), ("light", "dark"), ("en", "zh-CN")
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "new-job": "/jobs/new?corpus=00kingjamesbible",
    "presets": "/jobs/presets",
    "queue": "/jobs/queue",
    "job": "/jobs/{job}",
    "job-settings": "/jobs/{job}/edit",
    "search": "/jobs/compare?search={search}",
    "importance": "/jobs/searches/{search}/importance",
    "batch": "/jobs/{job}/batches?step=2",
    "corpora": "/corpora",
    "corpus": "/corpora/00kingjamesbible",
    "records": "/corpora/00smalltalk",
    "write": "/corpora/write?kind=classification",
    "synthetic": "/synthetic",
    "tokenizers": "/tokenizers",
    "models": "/models",
    "checkpoints": "/checkpoints",
    "checkpoint": "/checkpoints/{checkpoint}",
    "lineage": "/lineage/{checkpoint}",
    "tasks": "/tasks",
    "talk": "/playground?checkpoint={checkpoint}",
    "chat": "/playground?tab=chat",
    "time-lapse": "/playground/time-lapse/{job}",
    "look-inside": "/playground/inspect?checkpoint={checkpoint}",
    "deployments": "/deployments",
    "deployment": "/deployments/{deployment}",
    "evaluate": "/evaluations",
    "learn": "/learn/attend?checkpoint={checkpoint}",
    "learn-embed": "/learn/embed?checkpoint={checkpoint}",
    "nodes": "/nodes",
    "usage": "/usage",
    "remove-node": "/nodes",
    "health": "/health",
    "audit-log": "/audit-log",
    "account": "/account",
    "people": "/account/people",
    "notices": "/account/notices",
    "trash": "/trash",
    "nowhere": "/nowhere",
}
CHAT = {"max_steps": 400, "eval_steps": 50, "sequence_length": 256, "train_batch_size": 16, "per_device_batch_size": 8}
CAPITALS = {"Italy": "Rome", "France": "Paris", "Spain": "Madrid", "Japan": "Tokyo", "Norway": "Oslo", "Egypt": "Cairo"}
QUESTIONS = {
    **{f"What is the capital of {country}?": city for country, city in CAPITALS.items()},
    "Which word means the opposite of hot?": "cold",
    "Which word means the opposite of big?": "small",
    "Which word means the opposite of day?": "night",
    "Which word means the opposite of old?": "young",
    "Which word means the opposite of early?": "late",
    "Which word means the opposite of open?": "closed",
}
SEARCHES = "/api/v1/hyperparameter-searches"
NODE = """INSERT INTO node (name, num_cpus, memory_bytes, gpus, slots, started_at, last_seen_at, telemetry)
VALUES ('spare', 8, 34359738368, '[]', 1, now() - interval '2 days', now() - interval '1 day', '{}')"""


def fill(installation: Stack) -> dict[str, str]:
    """What the pages show; answers the IDs for the {placeholders} in PAGES."""
    client = installation.client
    corpora = ["00kingjamesbible"]
    job = finished_job(installation, name="first light", corpora=corpora, max_steps=60, save_steps=30)
    checkpoint = newest_checkpoint(installation, job)
    client.post("/api/v1/deployments", json={"name": "scribe", "model": checkpoint}).raise_for_status()
    spec = {**SMALL, "corpora": corpora, "sequence_length": 32, "max_steps": 10, "warmup_steps": 2}
    grid = {"learning_rate": [1e-4, 1e-3, 1e-2, 3e-2], "hidden_size": [32, 64, 128]}
    body = {"name": "rates and widths", "spec": spec, "grid": grid}
    search = client.post(SEARCHES, json=body).raise_for_status().json()["id"]
    until(lambda: client.get(f"{SEARCHES}/{search}").json()["num_open"] == 0, 600, "the end of the search")
    directory = (installation.data / "postgres/postmaster.pid").read_text().splitlines()[4]  # of its socket
    with psycopg.connect(host=directory, user="postgres", dbname="athanor") as connection:
        connection.execute(NODE)
    deployment = client.get("/api/v1/deployments").json()["data"][0]["id"]
    return {"job": job, "checkpoint": checkpoint, "search": search, "deployment": deployment}


def open_page(browser: Browser, installation: Stack, path: str, **settings: Any) -> Page:
    """A page as Alice sees it."""
    headers = {"Authorization": f"Bearer {installation.token}"}
    page = browser.new_context(extra_http_headers=headers, reduced_motion="reduce", **settings).new_page()
    page.goto(installation.base_url + path)
    until_started(page)
    with suppress(TimeoutError):  # streams of pages never end
        page.wait_for_load_state("networkidle", timeout=2_000)
    return page


def take(
    browser: Browser, installation: Stack, ids: dict[str, str], directory: Path, names: Iterable[str] = PAGES
) -> None:
    """Write a picture of each of these pages in each theme, language and width."""
    for name, width, theme, language in product(names, WIDTHS, THEMES, LANGUAGES):
        settings = {"locale": language, "color_scheme": theme, "viewport": {"width": width, "height": 900}}
        page = open_page(browser, installation, PAGES[name].format(**ids), **settings)
        if name == "remove-node":
            page.locator("[data-dialog='remove-spare']").click()
        page.screenshot(path=directory / f"{name}-{width}-{theme}-{language}.png", full_page=name != "remove-node")
        page.context.close()


def take_for_readme(browser: Browser, installation: Stack, directory: Path) -> None:
    """Write the pictures that README.md and docs/evaluation.md show."""
    settings = {"locale": "en", "color_scheme": "light", "viewport": {"width": 1280, "height": 860}}
    page = open_page(browser, installation, "/jobs/new?corpus=00kingjamesbible", **settings)
    expect(page.locator("[data-figures]:not(.stale)")).to_have_count(1)
    expect(page.locator("[data-plot] canvas")).to_have_count(1)
    page.screenshot(path=directory / "new-job.png")
    page.context.close()
    picture_killed_job(browser, installation, directory / "job.png", **settings)

    job_id = finished_job(
        installation, 1800, recipe="chat", name="Small talk", corpora=["00smalltalk"], save_steps=100, **CHAT
    )
    saved = installation.client.get("/api/v1/checkpoints", params={"job": job_id}).raise_for_status().json()["data"]
    picture_conversation(browser, installation, saved[0]["id"], directory / "playground.png", **settings)
    picture_evaluation(
        browser, installation, [saved[0]["id"], saved[-1]["id"]], directory / "evaluations.png", **settings
    )


def picture_conversation(browser: Browser, installation: Stack, checkpoint: str, path: Path, **settings: Any) -> None:
    """Two questions, and what a model answers."""
    page = open_page(browser, installation, f"/playground?tab=chat&checkpoint={checkpoint}", **settings)
    for number, question in enumerate(("What is the capital of Italy?", "What is the capital of France?"), 1):
        page.get_by_label("Your message").fill(question)
        page.get_by_label("Your message").press("Enter")
        answers = page.locator(".turn.assistant")
        expect(answers).to_have_count(number)
        expect(answers.last.locator("[data-meta]")).to_contain_text("tokens/s")
    page.screenshot(path=path)
    page.context.close()


def picture_evaluation(
    browser: Browser, installation: Stack, checkpoints: list[str], path: Path, **settings: Any
) -> None:
    """How many questions two checkpoints answer rightly."""
    client = installation.client
    lines = [json.dumps({"question": q, "answer": a, "check": "contains"}) for q, a in QUESTIONS.items()]
    parameters = {"filename": "capitals and opposites.jsonl", "kind": "questions"}
    corpus = client.post("/api/v1/corpora", params=parameters, content="\n".join(lines)).raise_for_status().json()["id"]
    until(lambda: client.get(f"/api/v1/corpora/{corpus}").json()["state"] == "ready", 120, "the questions")
    for checkpoint in checkpoints:
        body = {"checkpoint": checkpoint, "corpora": [corpus]}
        task = client.post("/api/v1/evaluations", json=body).raise_for_status().json()["id"]
        until(
            lambda task=task: client.get(f"/api/v1/tasks/{task}").json()["state"] == "succeeded", 600, "an evaluation"
        )
    page = open_page(browser, installation, "/evaluations", **settings)
    page.screenshot(path=path)
    page.context.close()


def picture_killed_job(browser: Browser, installation: Stack, path: Path, **settings: Any) -> None:
    """A job that lost its processes."""
    client = installation.client
    job = client.post("/api/v1/jobs", json={"recipe": "tiny", "corpora": ["00kingjamesbible"], "name": "king james"})
    job_id = job.raise_for_status().json()["id"]

    def step() -> int:
        return int(client.get(f"/api/v1/jobs/{job_id}").raise_for_status().json()["step"])

    until(lambda: step() > 250, 1200, "training")  # a checkpoint is at 200
    for process in trainers_of(job_id):
        process.kill()
    until(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["state"] == "succeeded", 1200, "the end of the job")
    page = open_page(browser, installation, f"/jobs/{job_id}", **settings)
    expect(page.locator("[data-stream]")).to_have_text("Ended")
    expect(page.locator("[data-chart=loss] [data-readout] .key").first).to_be_visible()
    page.screenshot(path=path)
    page.context.close()


def main(directory: Path, names: list[str]) -> None:
    """Start an installation, fill it, take the pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    path = chromium.find()
    expect.set_options(timeout=SLOW)
    with (
        tempfile.TemporaryDirectory(prefix="athanor-pictures-") as home,
        stack.running(Path(home)) as installation,
        sync_playwright() as playwright,
    ):
        installation.sign_up("Alice")
        browser = playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        if "--readme" in names:
            take_for_readme(browser, installation, directory)
        else:
            take(browser, installation, fill(installation), directory, names or PAGES)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
