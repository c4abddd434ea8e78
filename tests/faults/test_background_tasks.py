"""F70 to F75: faults while a corpus is parsed. A task is done once, and nothing is left of one that ended early."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests.faults.stack import Installation
from tests.row_table import Report
from tests.waiting import until

CONTENT = b'{"text": "Seven sheep went up the hill."}\n' * 150_000  # takes the parser about two seconds
PARSER = "worker.sandbox.corpus.parse"


class Parsing:
    """A corpus that is being parsed, and the processes that do so."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        parameters = {"filename": "many.jsonl", "name": "Many"}
        answer = installation.post("/api/v1/corpora", params=parameters, content=CONTENT).raise_for_status()
        self.id = str(answer.json()["id"])
        self.directory = installation.data / "corpora" / self.id

    def parsers(self) -> list[psutil.Process]:
        """The parsers of the corpus that run."""
        parsers = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if PARSER in process.cmdline() and str(self.directory) in process.cmdline():
                    parsers.append(process)
        return [process for process in parsers if process.status() != psutil.STATUS_ZOMBIE]

    def suspended_parser(self) -> psutil.Process:
        """The parser, as soon as it runs, suspended so that it does not end before the fault."""
        parser: psutil.Process = until(self.parsers, 30, "a parser")[0]
        parser.suspend()
        return parser

    def corpus(self) -> dict[str, Any]:
        """The corpus as the API answers it."""
        answer: dict[str, Any] = self.installation.get(f"/api/v1/corpora/{self.id}").raise_for_status().json()
        return answer

    def task(self) -> dict[str, Any]:
        """The row of the task."""
        return self.installation.rows("SELECT * FROM background_task WHERE corpus_id = %s", self.id)[0]

    def check_ready(self) -> None:
        """Wait until the corpus is ready; its counts are right, and nothing is left of earlier starts."""
        until(lambda: self.corpus()["state"] != "parsing", 60, "the end of parsing")
        corpus = self.corpus()
        assert (corpus["state"], corpus["num_documents"]) == ("ready", 150_000), corpus["problems"]
        assert self.task()["state"] == "succeeded"
        until(lambda: not self.parsers(), 10, "the end of all parsers")
        until(lambda: not list(self.directory.glob("*.bin.*")), 10, "the removal of unfinished files")


@pytest.fixture
def parsing(installation: Installation) -> Iterator[Callable[[], Parsing]]:
    """Uploads a corpus."""
    uploads: list[Parsing] = []

    def upload() -> Parsing:
        uploads.append(Parsing(installation))
        return uploads[-1]

    yield upload
    for parsing in uploads:
        for parser in parsing.parsers():
            with suppress(psutil.Error):
                parser.kill()


@pytest.mark.faults_core
@pytest.mark.row("F70", "kill -9 worker while it parses")
def test_a_killed_worker_costs_one_start(
    installation: Installation, parsing: Callable[[], Parsing], report: Report
) -> None:
    upload = parsing()
    upload.suspended_parser()
    installation.kill9("worker")
    for parser in upload.parsers():  # of the killed worker
        parser.kill()
    installation.restart("worker")
    upload.check_ready()
    assert (upload.task()["fence"], upload.task()["num_losses"]) == (2, 1)
    report("2 starts, 1 loss, ready")


@pytest.mark.row("F71", "kill -9 the parser")
def test_a_killed_parser_fails_the_corpus_with_a_reason(parsing: Callable[[], Parsing], report: Report) -> None:
    upload = parsing()
    upload.suspended_parser().kill()
    until(lambda: upload.corpus()["state"] == "failed", 30, "the failure")
    message = upload.corpus()["problems"][0]["message"]
    assert message.startswith("Parsing took too long or was stopped.")
    until(lambda: not list(upload.directory.glob("*.bin.*")), 10, "the removal of unfinished files")
    report(message)


@pytest.mark.row("F72", "FLUSHALL while a task waits")
def test_a_lost_notification_delays_a_task_by_a_heartbeat(
    installation: Installation, parsing: Callable[[], Parsing], report: Report
) -> None:
    installation.kill9("worker")
    upload = parsing()
    installation.flushall()
    installation.restart("worker")
    upload.check_ready()
    report("1 start, ready")


@pytest.mark.row("F73", "kill -9 postgres while it parses")
def test_parsing_survives_an_outage_of_the_database(
    installation: Installation, parsing: Callable[[], Parsing], report: Report
) -> None:
    upload = parsing()
    parser = upload.suspended_parser()
    installation.kill9("postgres")
    parser.resume()
    installation.restart("postgres")
    upload.check_ready()
    report(f"{upload.task()['fence']} starts, ready")


@pytest.mark.row("F74", "SIGSTOP the worker past its lease, SIGCONT while another one parses")
def test_a_suspended_worker_writes_nothing_after_it_wakes(
    installation: Installation, parsing: Callable[[], Parsing], report: Report
) -> None:
    upload = parsing()
    first = upload.suspended_parser()
    installation.suspend("worker")
    until(lambda: upload.task()["state"] == "queued", 30, "the expiry of the lease")
    first.kill()
    installation.add("worker of bob", "worker", node="bob").start()
    second = until(lambda: [p for p in upload.parsers() if p.pid != first.pid], 60, "the second start")[0]
    second.suspend()
    fence = upload.task()["fence"]
    installation.resume("worker")
    until(lambda: os.path.exists(f"/proc/{second.pid}") and not first.is_running(), 10, "the first worker to notice")
    assert (upload.task()["state"], upload.task()["fence"]) == ("running", fence)
    second.send_signal(signal.SIGCONT)
    upload.check_ready()
    assert upload.task()["node"] == "bob"
    report(f"{fence} starts, 0 rows after waking, ready")


@pytest.mark.row("F75", "the corpus is deleted while it is parsed")
def test_deleting_a_corpus_ends_its_parser(
    installation: Installation, parsing: Callable[[], Parsing], report: Report
) -> None:
    upload = parsing()
    parser = upload.suspended_parser()
    assert installation.client.delete(installation.url(f"/api/v1/corpora/{upload.id}")).status_code == 204
    parser.wait(2)
    assert installation.client.delete(installation.url(f"/api/v1/trash/{upload.id}")).status_code == 204
    until(lambda: not upload.directory.exists(), 10, "the removal of its files")
    report("the process ended within 2 s, no file left")
