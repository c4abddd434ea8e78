"""The client against a whole installation: what docs/client.md shows, and watch and chat in a terminal."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from app.client import Client
from tests.app.client import environment, scripted_server
from tests.app.client.scripted_server import serving
from tests.stack import ROOT, Stack
from tests.terminal import CTRL_C, CTRL_D, Terminal
from tests.users import PASSWORD
from tests.waiting import until

SMALL = {
    "vocab_size": 512,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "sequence_length": 256,
    "train_batch_size": 4,
    "per_device_batch_size": 4,
    "max_steps": 20,
    "eval_steps": 10,
    "save_steps": 10,
}
BRAILLE = re.compile(r"[\u2801-\u28ff]")


def blocks(language: str) -> list[str]:
    """The code of docs/client.md in a language."""
    text = (ROOT / "docs/client.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a text, and the configuration directory in it."""
    directory = tmp_path_factory.mktemp("client")
    (directory / "book.txt").write_text("In the beginning God created the heaven and the earth.\n" * 400)
    return directory


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of `athanor` and `python` where nothing but the client is installed."""
    return environment.create(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def variables(home: Path, programs: Path) -> dict[str, str]:
    """The environment of a user."""
    path = f"{programs}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def logged_in(running_stack: Stack, home: Path, programs: Path, variables: dict[str, str]) -> dict[str, str]:
    """The environment of a user who has logged in with name and password, in a terminal."""
    terminal = Terminal([str(programs / "athanor"), "login", running_stack.base_url], variables, home)
    terminal.expect("Name")
    terminal.send("Alice\n")
    terminal.expect("Password: ")  # its space says that nothing is echoed from here on
    terminal.send(f"{PASSWORD}\n")
    terminal.expect("Logged in to http://[^ ]+ as Alice")
    assert terminal.wait() == 0
    assert PASSWORD not in terminal.text
    return variables


@pytest.fixture(scope="module")
def client(running_stack: Stack) -> Iterator[Client]:
    """Alice's program."""
    with Client(running_stack.base_url, running_stack.token) as program:
        yield program


def run(arguments: list[str], variables: dict[str, str], home: Path, expected: int = 0) -> str:
    """What a command writes to standard output."""
    result = subprocess.run(arguments, cwd=home, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == expected, result.stdout + result.stderr
    return result.stdout


def test_the_token_of_a_login_is_the_users_own_file(logged_in: dict[str, str], home: Path) -> None:
    (stored,) = (home / "config/athanor").iterdir()
    assert stored.stat().st_mode & 0o777 == 0o600
    assert json.loads(stored.read_text())["token"].startswith("ath_")


def test_the_documented_commands_train_a_model_and_download_it(
    logged_in: dict[str, str], home: Path, client: Client
) -> None:
    (script,) = blocks("sh")
    shown = run(["bash", "-euo", "pipefail", "-c", script], logged_in, home)
    assert re.search(r"^succeeded +step 40 of 40 +loss \d", shown, re.MULTILINE)
    assert {"first-model/model.gguf"} <= set(shown.split())
    job = next(client.jobs.list())
    assert (job.name, job.state, job.spec["max_steps"]) == ("first", "succeeded", 40)
    (export,) = client.tasks.list(kinds=["export"])
    for file in export.files:
        assert hashlib.sha256((home / "first-model" / file.name).read_bytes()).hexdigest() == file.sha256


def test_the_documented_program_runs(logged_in: dict[str, str], home: Path, programs: Path) -> None:
    (program,) = blocks("python")
    shown = run([str(programs / "python"), "-c", program], logged_in, home)
    assert re.search(r"^spec_invalid max_steps .*max_steps", shown, re.MULTILINE)
    assert re.search(r"^first 40 \d\.\d+$", shown, re.MULTILINE)


def test_a_pull_continues_the_download_and_starts_no_second_export(
    logged_in: dict[str, str], home: Path, programs: Path, client: Client
) -> None:
    whole = (home / "first-model/model.gguf").read_bytes()
    part = home / "first-model/model.gguf.part"
    part.write_bytes(whole[: len(whole) // 2])
    (home / "first-model/model.gguf").unlink()
    (export,) = client.tasks.list(kinds=["export"])
    command = [
        str(programs / "athanor"),
        "pull",
        str(export.checkpoint_id),
        "first-model",
        "--format",
        "gguf",
        "--json",
    ]
    assert "first-model/model.gguf" in json.loads(run(command, logged_in, home))
    assert (home / "first-model/model.gguf").read_bytes() == whole
    assert len(list(client.tasks.list(kinds=["export"]))) == 1


def test_a_checkpoint_arrives_as_it_was_saved(client: Client, tmp_path: Path) -> None:
    checkpoint = next(client.checkpoints.list())
    client.checkpoints.download(checkpoint.id, tmp_path)
    manifest = json.loads((tmp_path / "MANIFEST.json").read_text())
    assert "model.safetensors" in {file["name"] for file in manifest["files"]}
    for file in manifest["files"]:
        assert hashlib.sha256((tmp_path / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    assert list(tmp_path.glob("*.part")) == []


def test_a_terminal_shows_a_job_live_with_its_curve(logged_in: dict[str, str], home: Path, programs: Path) -> None:
    (home / "job.json").write_text(json.dumps({"recipe": "tiny", "corpora": ["00smalltalk"], **SMALL}))
    command = [str(programs / "athanor"), "submit", "--spec", "job.json", "--set", "recipe=chat", "--name", "talk"]
    terminal = Terminal([*command, "--watch"], logged_in, home)
    terminal.expect("queued|starting|running")
    terminal.expect("step 20 of 20", 240)
    terminal.expect("succeeded")
    assert terminal.wait() == 0
    assert BRAILLE.search(terminal.text)


def test_programs_get_every_event_as_json(
    logged_in: dict[str, str], home: Path, programs: Path, client: Client
) -> None:
    job = next(client.jobs.list())
    lines = run([str(programs / "athanor"), "watch", job.id, "--json"], logged_in, home).splitlines()
    events = [json.loads(line) for line in lines]
    curve = next(event["data"] for event in events if event["event"] in ("curve", "points"))
    assert curve["series"]["loss"]["steps"] == list(range(1, 21))
    assert {"job", "attempts", "checkpoints", "history", "log"} <= {event["event"] for event in events}
    assert [event["data"]["state"] for event in events if event["event"] == "job"] == ["succeeded"]


def test_a_conversation_in_a_terminal(logged_in: dict[str, str], home: Path, programs: Path, client: Client) -> None:
    talk = next(job for job in client.jobs.list() if job.name == "talk")
    model = next(client.checkpoints.list(talk.id))
    command = [str(programs / "athanor"), "chat", model.id, "--max-tokens", "8", "--seed", "1", "--json"]
    terminal = Terminal(command, logged_in, home)
    for line in ("Hi", "Why?"):
        terminal.expect("> ")
        terminal.send(f"{line}\n")
    terminal.expect("> ")
    terminal.send(CTRL_D)
    terminal.expect('"messages"')
    assert terminal.wait() == 0
    messages = json.loads(terminal.text[terminal.text.rindex('{\r\n  "messages"') :])["messages"]
    assert [message["content"] for message in messages if message["role"] == "user"] == ["Hi", "Why?"]
    expected = client.generate(model.id, messages=messages[:1], max_tokens=8, seed=1).text
    assert messages[1] == {"role": "assistant", "content": expected}


def test_conversations_are_read_exported_and_deleted(
    logged_in: dict[str, str], home: Path, programs: Path, client: Client
) -> None:
    talk = client.conversations.create(title="Metals", system_prompt="Be brief.")
    question = client.conversations.add_message(talk.id, "user", "What melts lead?")
    answers = [
        client.conversations.add_message(talk.id, "assistant", text, parent_id=question.id)
        for text in ("Heat.", "Fire.")
    ]
    athanor = str(programs / "athanor")
    listed = run([athanor, "conversations", "list", "--search", "MELTS"], logged_in, home)
    assert listed == f"{talk.id}\tMetals\tWhat melts lead?\n"
    shown = run([athanor, "conversations", "show", talk.id], logged_in, home)
    assert shown.split("\n\n") == ["Metals", "system: Be brief.", "user: What melts lead?", "assistant: Fire.\n"]
    command = [athanor, "conversations", "export", talk.id, "--leaf", answers[0].id]
    record = json.loads(run(command, logged_in, home))
    assert [message["content"] for message in record["messages"]] == ["Be brief.", "What melts lead?", "Heat."]
    run([athanor, "conversations", "delete", talk.id], logged_in, home)
    assert list(client.conversations.list()) == []


def test_a_deployment_is_called_by_its_name(
    logged_in: dict[str, str], home: Path, programs: Path, client: Client
) -> None:
    athanor, model = str(programs / "athanor"), next(client.checkpoints.list()).id
    options = ["--access", "everyone", "--nodes", next(client.nodes()).name, "--wait", "--json"]
    deployed = json.loads(run([athanor, "deploy", model, "--name", "Oracle", *options], logged_in, home))
    assert (deployed["state"], deployed["model"], deployed["access"]) == ("ready", model, "everyone")
    by_name, by_id = (client.generate(name, "In", max_tokens=5, seed=1).text for name in ("oracle", model))
    assert by_name == by_id
    (hour,) = until(lambda: list(client.deployments.usage(deployed["id"])), what="the count of the call")
    assert (hour.requests, hour.tokens) == (1, 5)
    assert run([athanor, "deployments"], logged_in, home).split("\t")[:3] == ["Oracle", "ready", model]
    run([athanor, "undeploy", "oracle"], logged_in, home)
    assert list(client.deployments.list()) == []


def unfinished(stopped: list[bool]) -> Any:
    """An answer that begins to write a text and then waits until its reader leaves."""

    def send(request: BaseHTTPRequestHandler) -> None:
        scripted_server.begin_events(request)
        for _n in range(3):
            request.wfile.write(b'event: piece\ndata: {"text": "gold ", "num_tokens": 1}\n\n')
        stopped.append(request.connection.recv(1) == b"")
        request.close_connection = True

    return send


def test_ctrl_c_stops_the_answer_only(variables: dict[str, str], home: Path, programs: Path) -> None:
    stopped: list[bool] = []
    done = {"finish_reason": "stop", "num_tokens": 1, "num_prompt_tokens": 1, "tokens_per_second": 1.0, "seed": 1}
    short = scripted_server.events(("1", "piece", {"text": "Lead."}), ("2", "done", done))
    with serving(unfinished(stopped), short) as server:
        address = {"ATHANOR_URL": server.url, "ATHANOR_TOKEN": "ath_test"}
        terminal = Terminal([str(programs / "athanor"), "chat", "model"], {**variables, **address}, home)
        terminal.expect("> ")
        terminal.send("What is gold?\n")
        terminal.expect("gold gold ")
        terminal.send(CTRL_C)
        terminal.expect("Stopped")
        until(lambda: stopped == [True], what="the end of the request")
        terminal.expect("> ")
        terminal.send("And lead?\n")
        terminal.expect(r"Lead\.")
        terminal.expect("> ")
        terminal.send(CTRL_D)
        assert terminal.wait() == 0
        conversation = json.loads(server.requests[1].body)["messages"]
        assert [message["role"] for message in conversation] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["jobs", "show", "nothing"], 1, "."),
        (["jobs", "list", "--state", "sleeping"], 1, "sleeping"),
        (["submit", "--set", "max_steps"], 1, "FIELD=VALUE"),
        (["watch", "nothing"], 1, "."),
        (["undeploy", "nothing"], 1, "."),
        (["deploy", "nothing", "--name", "x", "--users", "Nobody"], 1, "."),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_errors_have_a_sentence_and_an_exit_code(
    logged_in: dict[str, str], home: Path, programs: Path, arguments: list[str], code: int, sentence: str
) -> None:
    command = [programs / "athanor", *arguments]
    result = subprocess.run(command, cwd=home, env=logged_in, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (code, "")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_token_and_an_absent_server_have_exit_codes_of_their_own(
    logged_in: dict[str, str], home: Path, programs: Path
) -> None:
    command = [programs / "athanor", "jobs", "list", "--json"]
    wrong = subprocess.run(
        command, cwd=home, env={**logged_in, "ATHANOR_TOKEN": "ath_wrong"}, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 3
    assert json.loads(wrong.stderr)["error"]["code"] == "token_invalid"
    address = {"ATHANOR_URL": "http://127.0.0.1:9", "ATHANOR_TOKEN": "ath_test"}
    absent = subprocess.run(
        command, cwd=home, env={**logged_in, **address}, capture_output=True, text=True, check=False
    )
    assert absent.returncode == 4
    assert "http://127.0.0.1:9" in json.loads(absent.stderr)["error"]["message"]


def test_the_servers_command_line_has_the_clients_commands(logged_in: dict[str, str]) -> None:
    command = [sys.executable, "-m", "app.launcher.cli", "whoami"]
    assert "Alice" in run(command, {**logged_in, "PYTHONPATH": str(ROOT)}, ROOT)
