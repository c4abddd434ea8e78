"""`athanor join`: what it refuses before it sends a token, what it stores, and what it says of what is unreachable."""

import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.checkpoints import signature
from app.client.nodes import NodeConfigurationInfo
from app.core import db, live, migrations, processes, storage
from app.core.settings import run_directory, settings
from app.launcher import cli, doctor, join
from tests import certificates
from tests.app.client.scripted_server import broken, problem, serving
from tests.stack import ROOT
from tests.terminal import Terminal

TOKEN = "ath_join_secret"
DEAD = "127.0.0.1:1"  # where nobody listens


@pytest.fixture(autouse=True)
def configuration_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty configuration directory; the environment and the settings are those of before afterwards."""
    for name in ("DATABASE_URL", "REDIS_URL", "ATHANOR_DATA", "ATHANOR_NODE_NAME"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    yield tmp_path / "configuration/athanor"
    monkeypatch.undo()
    for cached in (settings, live.valkey, db.engine):
        cached.cache_clear()


def configuration(**changed: Any) -> NodeConfigurationInfo:
    """What a panel answers, whose servers are those of the tests."""
    values = {
        "database_url": settings().database_url,
        "redis_url": settings().redis_url,
        "data": str(storage.data()),
        "key_sha256": signature.key_sha256(),
        "files": {},
    }
    return NodeConfigurationInfo(**{**values, **changed})


@pytest.mark.parametrize("url", ["http://panel.example.com:8000", "http://192.0.2.1", "http://0.0.0.0:8000"])
def test_plain_http_to_another_machine_is_refused_before_anything_is_sent(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(join.client, "join", lambda url, *_rest: sent.append(url))
    refused = CliRunner().invoke(cli.cli, ["join", url, TOKEN])
    assert (refused.exit_code, sent) == (1, [])
    assert "--allow-http" in refused.stderr
    with pytest.raises(AttributeError):  # of the answer: it was sent
        join.run(url, TOKEN, "gpu-2", allow_http=True)
    assert sent == [url]


@pytest.mark.parametrize("url", ["", "panel.example.com", "ftp://panel", "https://", "http://[", "https://[x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(join.CannotJoin, match=r"is not the address of a panel"):
        join.run(url, TOKEN, "gpu-2", allow_http=False)


def test_a_refusal_of_the_panel_is_said_and_nothing_is_stored(configuration_directory: Path) -> None:
    with serving(problem(403, "join_token_wrong")) as panel:
        result = CliRunner().invoke(cli.cli, ["join", panel.url, TOKEN, "--name", "gpu-2"])
    assert (result.exit_code, result.stderr) == (1, "A sentence.\n")
    (request,) = panel.requests
    body = {"token": TOKEN, "name": "gpu-2", "revision": migrations.newest()}
    assert (request.path, json.loads(request.body)) == ("/api/v1/nodes/join", body)
    assert not (configuration_directory / "node.json").exists()


def test_a_token_that_is_no_argument_is_read_from_standard_input() -> None:
    with serving(problem(403, "join_token_wrong")) as panel:
        CliRunner().invoke(cli.cli, ["join", panel.url], input=f"{TOKEN}\n")
        missing = CliRunner().invoke(cli.cli, ["join", panel.url], input="")
    assert [json.loads(request.body)["token"] for request in panel.requests] == [TOKEN]
    assert (missing.exit_code, "A join token is missing" in missing.stderr) == (1, True)


def test_a_terminal_is_asked_for_the_token_and_does_not_show_it() -> None:
    with serving(problem(403, "join_token_wrong")) as panel:
        command = [sys.executable, "-m", "app.launcher.cli", "join", panel.url]
        terminal = Terminal(command, {**os.environ, "LANG": "C.UTF-8"}, ROOT)
        terminal.expect("Join token: ")  # its space says that nothing is echoed from here on
        terminal.send(f" {TOKEN} \n")
        terminal.expect(r"A sentence\.")
        assert terminal.wait() == 1
    assert [json.loads(request.body)["token"] for request in panel.requests] == [TOKEN]
    assert TOKEN not in terminal.text


def test_https_needs_a_certificate_that_this_machine_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, tls = certificates.issue(tmp_path)
    with serving(problem(403, "join_token_wrong"), tls=tls) as panel:
        with pytest.raises(join.CannotJoin, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
            join.run(panel.url, TOKEN, "gpu-2", allow_http=True)
        assert panel.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        with pytest.raises(join.CannotJoin, match=r"A sentence\."):
            join.run(panel.url, TOKEN, "gpu-2", allow_http=False)
    assert [json.loads(request.body)["token"] for request in panel.requests] == [TOKEN]


def test_a_token_is_not_sent_where_nothing_can_be_stored(
    configuration_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(join.client, "join", lambda url, *_rest: sent.append(url))
    configuration_directory.parent.write_text("a file where a directory must be")
    refused = CliRunner().invoke(cli.cli, ["join", "https://panel.example.com", TOKEN])
    assert (refused.exit_code, sent) == (1, [])
    assert f"cannot be stored in {configuration_directory}: Not a directory." in refused.stderr


def test_a_token_is_sent_once_where_the_connection_breaks() -> None:
    with serving(broken) as panel, pytest.raises(join.CannotJoin, match=r"may be used now\. Create a new one"):
        join.run(panel.url, TOKEN, "gpu-2", allow_http=False)
    assert len(panel.requests) == 1
    with pytest.raises(join.CannotJoin, match="cannot be reached"):
        join.run(f"http://{DEAD}", TOKEN, "gpu-2", allow_http=False)


@pytest.mark.usefixtures("database")
def test_what_the_panel_answers_is_stored_for_this_user_alone(
    configuration_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration_directory.mkdir(parents=True)
    for name in ("node.json", "other"):
        (configuration_directory / name).write_text("old")
        (configuration_directory / name).chmod(0o644)
    files = {"database_sslrootcert.pem": "authority", "../../escaped.pem": "no"}
    url = f"{settings().database_url}&sslrootcert=database_sslrootcert.pem"
    monkeypatch.setattr(join.client, "join", lambda *_all: configuration(database_url=url, files=files))
    join.run("https://panel.example.com", TOKEN, "gpu-2", allow_http=False)

    authority = configuration_directory / "node/database_sslrootcert.pem"
    stored = json.loads((configuration_directory / "node.json").read_text())
    assert stored["DATABASE_URL"].endswith(f"&sslrootcert={str(authority).replace('/', '%2F')}")
    assert stored["key_sha256"] == signature.key_sha256()
    assert (stored["ATHANOR_NODE_NAME"], stored["REDIS_URL"]) == ("gpu-2", settings().redis_url)
    assert authority.read_text() == "authority"
    assert not list(configuration_directory.parent.parent.rglob("escaped.pem"))[1:]
    assert (configuration_directory / "node/escaped.pem").exists()
    for path in (configuration_directory / "node.json", configuration_directory / "node", authority):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.usefixtures("database")
def test_each_part_that_is_not_reached_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    unreachable = configuration(database_url=f"postgresql://x@{DEAD}/x", redis_url=f"redis://{DEAD}")
    monkeypatch.setattr(join.client, "join", lambda *_all: unreachable)
    monkeypatch.setenv("ATHANOR_DATA", str(tmp_path / "nowhere"))
    for cached in (live.valkey, db.engine):  # a new process has none
        cached.cache_clear()
    with pytest.raises(join.CannotJoin, match=r"joined as gpu-2, .* Then run `athanor doctor`, and `athanor worker`"):
        join.run("https://panel.example.com", TOKEN, "gpu-2", allow_http=False)
    database, broker, data = capsys.readouterr().out.splitlines()
    assert re.match(r"BAD .*The database cannot be reached: .*refused.* Check DATABASE_URL", database)
    assert re.match(r"BAD .*The broker cannot be reached: .*refused.* Check REDIS_URL", broker)
    assert re.match(rf"BAD .*{tmp_path}/nowhere is not the panel's data directory\. Mount", data)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.usefixtures("database")
def test_a_directory_of_another_installation_or_user_is_not_the_shared_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sha256 = signature.key_sha256()
    assert sha256 == hashlib.sha256((storage.data() / "keys/checkpoints.key").read_bytes()).hexdigest()
    assert doctor.data_directory(sha256).grade == "ok"
    other = doctor.data_directory("0" * 64)
    assert (other.grade, "is not the panel's data directory" in other.text) == ("bad", True)

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    foreign = doctor.data_directory(sha256)
    assert (foreign.grade, f"user ID {os.getuid()}: Permission denied" in foreign.text) == ("bad", True)


@pytest.mark.usefixtures("database")
def test_a_second_worker_beside_athanor_up_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    pid_file = run_directory() / "worker.pid"
    processes.write_pid(pid_file, os.getpid())
    try:
        grades = [finding.grade for finding in join._checks(configuration())]
    finally:
        pid_file.unlink()
    assert grades == ["ok", "ok", "ok", "bad"]


def test_a_node_uses_what_it_stored_unless_the_environment_names_a_database(
    configuration_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration_directory.mkdir(parents=True)
    stored = {"DATABASE_URL": "postgresql://stored/x", "ATHANOR_NODE_NAME": "stored", "ATHANOR_DATA": "/stored"}
    (configuration_directory / "node.json").write_text(json.dumps(stored))
    monkeypatch.setenv("DATABASE_URL", "postgresql://set/x")
    settings.cache_clear()
    join.use_configuration()
    assert not os.environ["ATHANOR_NODE_NAME"]

    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("ATHANOR_DATA", "/mounted")
    settings.cache_clear()
    join.use_configuration()
    assert (settings().database_url, settings().node_name) == ("postgresql://stored/x", "stored")
    assert settings().data == Path("/mounted")


@pytest.fixture
def node_file(configuration_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a node's configuration is stored, on a machine whose environment names no database."""
    configuration_directory.mkdir(parents=True)
    monkeypatch.delenv("DATABASE_URL")
    settings.cache_clear()
    return configuration_directory / "node.json"


def test_numbers_are_values_too(node_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHANOR_NODE_SLOTS", "")
    node_file.write_text('{"ATHANOR_NODE_SLOTS": 2}')
    assert join.use_configuration() == ""
    assert settings().node_slots == 2


@pytest.mark.parametrize("content", ['{"DATABASE_URL": ', "[]", "\xff", None])
def test_a_file_that_is_no_object_ends_with_a_sentence(
    content: str | None, node_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is None:
        node_file.mkdir()
    else:
        node_file.write_text(content, encoding="latin-1")
    with pytest.raises(cli.typer.Exit):
        join.use_configuration()
    assert "node.json cannot be read as JSON: " in capsys.readouterr().err


def test_a_worker_starts_with_the_data_directory_of_its_panel_only(
    node_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "mounted"
    stored = {"DATABASE_URL": f"postgresql://x@{DEAD}/x", "REDIS_URL": f"redis://{DEAD}", "ATHANOR_DATA": str(data)}
    sha256 = hashlib.sha256(b"k" * signature.KEY_BYTES).hexdigest()
    node_file.write_text(json.dumps({**stored, "key_sha256": sha256}))
    monkeypatch.delenv("ATHANOR_DATA")
    monkeypatch.setattr(cli, "without_secrets", lambda *_names: None)
    started: list[str] = []
    monkeypatch.setattr(cli, "replace_process", lambda *arguments: started.append(arguments[1]))

    def invoke(command: str) -> tuple[int, str]:
        for name in stored:
            os.environ.pop(name, None)
        for cached in (settings, live.valkey, db.engine):
            cached.cache_clear()
        result = CliRunner().invoke(cli.cli, [command])
        return result.exit_code, result.output

    wrong = f"{data} is not the panel's data directory"
    assert (invoke("worker")[0], wrong in invoke("worker")[1], wrong in invoke("doctor")[1]) == (2, True, True)
    assert not data.exists()
    (data / "keys").mkdir(parents=True)
    (data / "keys/checkpoints.key").write_bytes(b"k" * signature.KEY_BYTES)
    assert f"{data} is the panel's data directory" in invoke("doctor")[1]
    assert not started
    assert (invoke("worker")[0], started) == (0, ["celery"])
