"""The embedded servers: they keep what they were given, are taken over when they run, and rise from a hard kill."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from app.launcher.embedded import Address, Postgres, ServerFailed, Valkey


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data with spaces")


@pytest.fixture(scope="module")
def postgres(home: Path) -> Iterator[Postgres]:
    server = Postgres(Address(home / "postgres", home / "p"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def valkey(home: Path) -> Iterator[Valkey]:
    server = Valkey(Address(home / "valkey", home / "v"))
    yield server
    server.stop()


def pid(server: Postgres | Valkey) -> int:
    process = server.process()
    assert process is not None
    return process.pid


def test_a_second_start_adopts_the_running_server(home: Path, postgres: Postgres, valkey: Valkey) -> None:
    for server in (postgres, valkey):
        server.start()
    others = (Postgres(Address(home / "postgres", home / "p")), Valkey(Address(home / "valkey", home / "v")))
    for server, other in zip((postgres, valkey), others, strict=True):
        other.start()
        assert pid(other) == pid(server)


def test_data_survives_a_kill_and_a_stop(postgres: Postgres, valkey: Valkey) -> None:
    """That of PostgreSQL; Valkey is only there again (decision 0068)."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('平安')")
    for server in (postgres, valkey):
        process = server.process()
        assert process is not None
        process.kill()
        process.wait(10)
        server.start()
        assert pid(server) != process.pid
        server.stop()
        assert server.process() is None
        server.start()
    with psycopg.connect(postgres.url()) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("平安",)]
    assert valkey.answers()


def test_a_pid_file_of_an_unrelated_process_is_ignored(postgres: Postgres) -> None:
    postgres.stop()
    unrelated = subprocess.Popen(["sleep", "60"])
    try:
        note = postgres.directory / postgres.pid_file
        note.write_text(f"{unrelated.pid}\n{postgres.directory}\n0\n5432\n\n\n\n")
        assert postgres.process() is None
        postgres.start()
        assert pid(postgres) != unrelated.pid
        assert unrelated.poll() is None, "it was not touched"
    finally:
        unrelated.kill()
        unrelated.wait()


def test_an_interrupted_first_start_is_repeated(tmp_path: Path) -> None:
    server = Postgres(Address(tmp_path / "postgres", tmp_path / "p"))
    (tmp_path / "postgres" / "base").mkdir(parents=True)
    (tmp_path / "postgres" / "half").write_text("x")
    server.start()
    server.stop()


def test_a_server_that_cannot_start_reports_the_reason(tmp_path: Path) -> None:
    server = Valkey(Address(tmp_path / "valkey", tmp_path / "s"))
    server.socket.mkdir(parents=True)
    with pytest.raises(ServerFailed, match="Valkey did not start"):
        server.start()


def test_valkey_writes_nothing_to_disk(valkey: Valkey) -> None:
    """It would wait for a busy disk, with everything that waits for it, and prompts would stay behind in its file."""
    log_of_an_older_version = valkey.directory / "appendonlydir"
    log_of_an_older_version.mkdir(parents=True)
    valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        client.set("prompt", "a secret")
        assert client.config_get("appendonly").popitem()[1] in (b"no", "no")
    valkey.stop()
    assert [path.name for path in valkey.directory.iterdir() if b"a secret" in path.read_bytes()] == []
    assert not log_of_an_older_version.exists()


def test_only_its_own_user_can_connect_to_a_server(postgres: Postgres, valkey: Valkey) -> None:
    postgres.start()
    valkey.start()
    for directory in (postgres.directory, postgres.sockets, valkey.directory, valkey.sockets):
        assert directory.stat().st_mode & 0o066 == 0, directory
    with psycopg.connect(postgres.url()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("port") == {b"port": b"0"} or client.config_get("port") == {"port": "0"}
    assert valkey.socket.stat().st_mode & 0o077 == 0


def test_the_servers_inherit_no_secrets(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.stop()
    monkeypatch.setenv("ATHANOR_CANARY", "secret")
    postgres.start()
    environment = Path(f"/proc/{pid(postgres)}/environ")
    if os.path.exists(environment):
        assert b"CANARY" not in environment.read_bytes()
