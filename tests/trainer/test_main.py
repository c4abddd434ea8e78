"""The trainer's command line, used without the panel."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import SMALL, checkpoint_of, english, make_run, series
from trainer import __main__ as command_line
from trainer.launch.environment import free_port
from trainer.planning.config_search import AUTO_FIELDS
from trainer.run_dir import RunDir, verify


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process; only for commands that do not train."""
    monkeypatch.setattr(sys, "argv", ["trainer", *arguments])
    return command_line.main()


def test_train_prepares_trains_and_publishes(
    tmp_path: Path, fork_server: GangForkServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = make_run(tmp_path, "plain", [english(20_000)], max_steps=10, save_steps=5)

    command = [sys.executable, "-m", "trainer", "train", str(run_dir.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)

    assert done.returncode == 0, done.stderr
    assert "step 10/10 loss" in done.stdout
    assert list(series(run_dir, "loss")) == list(range(1, 11))
    for step in (5, 10):
        assert verify(run_dir.checkpoint_path(step, 1))["step"] == step

    assert run("train", str(run_dir.path), monkeypatch=monkeypatch) == 64
    assert "--fence" in capsys.readouterr().err

    shutil.copy(run_dir.inputs_path(1), run_dir.path)
    halfway = str(run_dir.checkpoint_path(5, 1))
    resumed = fork_server.command("trainer", "train", str(run_dir.path), "--fence=2", f"--resume={halfway}").result()
    assert resumed.returncode == 0, resumed.stderr
    weights = [verify(run_dir.checkpoint_path(10, fence))["files"] for fence in (1, 2)]
    assert weights[0] == weights[1]


SHARED = {"max_steps": 5, "num_processes": 2}


@pytest.fixture(scope="module")
def on_one_machine(home: Path, fork_server: GangForkServer) -> RunDir:
    """A run of two processes with the variables that torchrun sets."""
    run_dir = make_run(home, "one-machine", [english(20_000)], **SHARED, zero_stage=2)
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        fork_server.command("trainer", "train", str(run_dir.path), RANK=rank, LOCAL_RANK=rank, **variables)
        for rank in ("0", "1")
    ]
    ended = [rank.result() for rank in ranks]
    assert [rank.returncode for rank in ended] == [0, 0], ended
    return run_dir


def test_two_ranks_of_one_machine_train_together(on_one_machine: RunDir) -> None:
    assert verify(on_one_machine.checkpoint_path(5, 1))["world_size"] == 2


def test_two_machines_with_a_shared_directory_train_together(tmp_path: Path, on_one_machine: RunDir) -> None:
    run_dir = make_run(tmp_path, "several", [english(20_000)], **SHARED, zero_stage=3)
    joined = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    launcher = [sys.executable, "-m", "torch.distributed.run", *joined]
    machines = [
        subprocess.Popen(
            [*launcher, f"--node-rank={number}", "-m", "trainer", "train", str(run_dir.path)],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [machine.communicate(timeout=400)[0] for machine in machines]

    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert verify(run_dir.checkpoint_path(5, 1))["world_size"] == 2
    assert series(run_dir, "loss") == pytest.approx(series(on_one_machine, "loss"), rel=1e-4)


def test_tokenize_prepares_a_run(tmp_path: Path, fork_server: GangForkServer) -> None:
    run_dir = make_run(tmp_path, "tokenize", [english(20_000)])

    done = fork_server.command("trainer", "tokenize", str(run_dir.path)).result()

    assert done.returncode == 0
    assert "bytes per token" in done.stdout
    assert (run_dir.tokenizer_path(1) / "tokenizer.json").is_file()
    assert not series(run_dir, "loss")


def test_generate_continues_a_prompt(
    trained: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("generate", str(checkpoint_of(trained, 150)), "--prompt", "And God", "--max-tokens", "8")

    assert run(*arguments, monkeypatch=monkeypatch) == 0
    first = capsys.readouterr().out
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == first
    assert len(first.strip()) > 3


def test_generate_applies_the_chat_template_to_a_message_or_a_conversation(
    trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(checkpoint_of(trained, 150), tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}God")
    command = ("generate", str(tmp_path / "chat"), "--max-tokens", "8", "--prompt")

    answers = []
    for prompt, chat in (("And", ["--chat"]), ('[{"role": "user", "content": "And"}]', ["--chat"]), ("And God", [])):
        assert run(*command, prompt, *chat, monkeypatch=monkeypatch) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] == answers[2]

    assert run(*command, "[1]", "--chat", monkeypatch=monkeypatch) == 64
    assert "JSON list of messages" in capsys.readouterr().err
    plain = ("generate", str(checkpoint_of(trained, 150)), "--prompt", "And", "--chat")
    assert run(*plain, monkeypatch=monkeypatch) == 64
    assert "no chat template" in capsys.readouterr().err


def test_plan_prints_the_cost_of_a_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(SMALL))

    assert run("plan", str(tmp_path / "spec.json"), monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["num_tokens"] == 20 * 8 * 32


def test_plan_chooses_auto_fields_for_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"recipe": "llama-7b", **dict.fromkeys(AUTO_FIELDS, "auto")}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    machine = ["--device=cuda", "--device-name=H100", "--num-devices=8", "--memory-bytes=80000000000"]

    assert run("plan", str(tmp_path / "spec.json"), *machine, monkeypatch=monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fits"]
    assert answer["chosen"].keys() == AUTO_FIELDS.keys()
    assert answer["chosen"]["zero_stage"] > 0
    assert run("plan", str(tmp_path / "spec.json"), monkeypatch=monkeypatch) == 64
    assert "per_device_batch_size is auto; give --memory-bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"max_steps": 0}', "max_steps must be at least 1"),
        ('{"color": "red"}', "color is not a field"),
        ("{", "Expecting property name"),
        ("{}", "--vocab-size"),
    ],
)
def test_an_invalid_spec_exits_with_64_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str, sentence: str
) -> None:
    (tmp_path / "spec.json").write_text(content)

    assert run("plan", str(tmp_path / "spec.json"), monkeypatch=monkeypatch) == 64
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "tokenize"])
def test_a_directory_without_a_run_exits_with_64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(command, str(tmp_path), monkeypatch=monkeypatch) == 64
    assert "spec.json does not exist" in capsys.readouterr().err


def test_planning_imports_no_torch() -> None:
    modules = "trainer.planning.plan, trainer.events, trainer.run_dir, trainer.spec"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_preparation_imports_no_torch() -> None:
    code = "import sys, trainer.launch.process, trainer.launch.gang; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
