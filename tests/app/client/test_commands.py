"""Commands of deployments and conversations: what they send, what they print, and how they end."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from app.background_tasks.schemas import TaskAnswer
from app.base_models.schemas import ModelAnswer
from app.checkpoints.schemas import CheckpointAnswer
from app.client.commands.root import commands
from app.corpora.schemas import CorpusAnswer
from app.jobs.schemas import JobAnswer
from app.tokenizers.schemas import TokenizerAnswer
from tests.app.client.scripted_server import Answer, ReceivedRequest, answer, problem, serving

WHEN = {"created_at": "2026-01-01T12:00:00Z", "updated_at": "2026-01-01T12:00:00Z"}
DEPLOYMENT = {
    **WHEN,
    "id": "d1",
    "name": "Oracle",
    "model": "k1",
    "is_mine": True,
    "state": "ready",
    "replicas": [{"node": "ada", "state": "ready", "is_current": True, "message": None, "loading_percent": None}],
    "num_replicas": 1,
    "nodes": [],
    "removed_nodes": [],
    "access": "owner",
    "users": [],
    "requests_per_minute": None,
    "last_day": {"requests": 7},
}
LOADING = {**DEPLOYMENT, "state": "loading"}
REPLICA = {
    "node": "ada",
    "state": "failed",
    "is_current": True,
    "message": "There is no room.",
    "loading_percent": None,
}
FAILED = {**DEPLOYMENT, "state": "failed", "replicas": [REPLICA, {**REPLICA, "node": "bea"}]}
LISTED = answer(200, {"data": [{**DEPLOYMENT, "id": "d0", "name": "Other"}, DEPLOYMENT], "next": None})


def message(id: str, parent_id: str | None, role: str, content: str) -> dict[str, Any]:
    names = ("model_id", "model_name", "seed", "finish_reason", "num_tokens", "tokens_per_second")
    fields: dict[str, Any] = dict.fromkeys(names)
    fields |= {"id": id, "parent_id": parent_id, "role": role, "content": content, "settings": {}, "tokens": "kept"}
    return {**fields, **WHEN}


MESSAGES = [
    message("m1", None, "user", "What melts lead?"),
    message("m2", "m1", "assistant", "Heat."),
    message("m3", "m1", "assistant", "Fire.\x1b[2J"),
]
CONVERSATION = {
    **WHEN,
    "id": "c1",
    "title": "Metals",
    "system_prompt": "Be brief.",
    "columns": [],
    "share_key": None,
    "excerpt": "melts",
}


def run(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, answers: list[Answer], code: int = 0
) -> tuple[str, list[ReceivedRequest]]:
    """What a command prints, and the requests that it sends."""
    with serving(*answers) as server:
        monkeypatch.setenv("ATHANOR_URL", server.url)
        monkeypatch.setenv("ATHANOR_TOKEN", "ath_test")
        result = CliRunner().invoke(commands, arguments)
        assert result.exit_code == code, result.output
        return result.output, server.requests


def sent(requests: list[ReceivedRequest]) -> list[str]:
    return [f"{request.method} {request.path.removeprefix('/api/v1')}" for request in requests]


def test_a_model_is_deployed_with_its_settings_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--replicas", "2", "--nodes", "ada", "--nodes", "bea", "--users", "Bob", "--requests-per-minute", "60"]
    answers = [answer(201, LOADING), answer(200, LOADING), answer(200, DEPLOYMENT)]
    printed, requests = run(monkeypatch, "deploy", "k1", "--name", "Oracle", *options, "--wait", answers=answers)
    assert sent(requests) == ["POST /deployments", "GET /deployments/d1", "GET /deployments/d1"]
    assert json.loads(requests[0].body) == {
        "name": "Oracle",
        "model": "k1",
        "num_replicas": 2,
        "nodes": ["ada", "bea"],
        "users": ["Bob"],
        "access": "users",
        "requests_per_minute": 60,
    }
    assert "ada: ready\n" in printed


def test_without_options_the_server_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    _printed, requests = run(monkeypatch, "deploy", "k1", "--name", "Oracle", answers=[answer(201, LOADING)])
    assert [json.loads(request.body) for request in requests] == [{"name": "Oracle", "model": "k1"}]


def test_a_deployment_that_cannot_be_loaded_says_why_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [answer(201, LOADING), answer(200, FAILED)]
    printed, _requests = run(monkeypatch, "deploy", "k1", "--name", "Oracle", "--wait", answers=answers, code=1)
    assert printed == "Oracle cannot be loaded: There is no room.\n"


def test_deployments_are_listed_without_a_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    printed, _requests = run(monkeypatch, "deployments", answers=[LISTED])
    assert printed.splitlines()[1] == "Oracle\tready\tk1\towner\t–"
    refused, _requests = run(monkeypatch, "deployments", answers=[problem(401, "token_invalid")], code=3)
    assert "athanor login" in refused


def test_a_deployment_is_moved_counted_and_removed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = [LISTED, answer(200, DEPLOYMENT)]
    _printed, requests = run(monkeypatch, "deployments", "move", "oracle", "k2", answers=moved)
    assert sent(requests) == ["GET /deployments?limit=50", "PUT /deployments/d1"]
    assert json.loads(requests[1].body) == {"model": "k2"}
    hour = {"hour": "2026-01-01T12:00:00Z", "requests": 2, "tokens": 9}
    counted = [LISTED, answer(200, {"data": [hour], "next": None})]
    printed, requests = run(monkeypatch, "deployments", "usage", "oracle", "--hours", "3", answers=counted)
    assert sent(requests)[1] == "GET /deployments/d1/usage?hours=3"
    assert printed.split("\t")[1:5] == ["2", "0", "0", "9"]
    printed, requests = run(monkeypatch, "undeploy", "ORACLE", answers=[LISTED, answer(204)])
    assert (sent(requests)[1], printed) == ("DELETE /deployments/d1", "Deleted: Oracle\n")


def test_an_unknown_name_is_refused_by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [LISTED, problem(404, "not_found")]
    printed, requests = run(monkeypatch, "undeploy", "nothing", answers=answers, code=1)
    assert (sent(requests)[1], printed) == ("GET /deployments/nothing", "A sentence.\n")


def test_a_branch_of_a_conversation_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = {**CONVERSATION, "messages": MESSAGES}
    column = {**newest, "columns": [{"model_id": "k1", "leaf_id": "m2"}]}
    cases: list[tuple[dict[str, Any], list[str], str]] = [
        (newest, [], "Fire.\ufffd[2J"),
        (column, [], "Heat."),
        (newest, ["--leaf", "m2"], "Heat."),
    ]
    for stored, options, last in cases:
        printed, _requests = run(monkeypatch, "conversations", "show", "c1", *options, answers=[answer(200, stored)])
        parts = printed.rstrip("\n").split("\n\n")
        assert parts == ["Metals", "system: Be brief.", "user: What melts lead?", f"assistant: {last}"]


def test_a_conversation_is_searched_exported_as_one_line_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = answer(200, {"data": [CONVERSATION], "next": None})
    printed, requests = run(monkeypatch, "conversations", "list", "--search", "MELTS", answers=[listed])
    assert (printed, sent(requests)) == ("c1\tMetals\tmelts\n", ["GET /conversations?q=MELTS&limit=50"])
    record = {"messages": [{"role": "user", "content": "Why?\nSay."}, {"role": "assistant", "content": "起初"}]}
    printed, requests = run(monkeypatch, "conversations", "export", "c1", "--leaf", "m2", answers=[answer(200, record)])
    assert sent(requests) == ["GET /conversations/c1/record?leaf=m2"]
    assert [json.loads(line) for line in printed.splitlines()] == [record]
    printed, requests = run(monkeypatch, "conversations", "delete", "c1", answers=[answer(204)])
    assert (sent(requests), printed) == (["DELETE /conversations/c1"], "Deleted: c1\n")


@pytest.mark.parametrize(("format", "ending"), [("csv", "csv"), ("parquet", "parquet"), ("tensorboard", "tfevents")])
def test_the_curves_of_a_job_are_written_to_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, format: str, ending: str
) -> None:
    target = tmp_path / "curves"
    arguments = ("jobs", "metrics", "j1", str(target), "--format", format)
    printed, requests = run(monkeypatch, *arguments, answers=[answer(200, b"1,2")])
    assert (sent(requests), printed) == ([f"GET /jobs/j1/metrics.{ending}"], f"{target}\n")
    assert target.read_bytes() == b"1,2"


def test_curves_that_break_off_leave_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cut = answer(200, b"1,2", content_length="99")
    run(monkeypatch, "jobs", "metrics", "j1", str(tmp_path / "curves"), answers=[cut], code=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group", ["corpora", "tokenizers", "models", "jobs", "checkpoints"])
def test_lists_are_searched_and_narrowed_to_a_tag(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    nothing = answer(200, {"data": [], "next": None})
    _printed, requests = run(monkeypatch, group, "list", "--search", "gen", "--tag", "verse", answers=[nothing])
    query = parse_qs(urlsplit(sent(requests)[0].removeprefix("GET ")).query)
    assert (query["q"], query["tag"]) == (["gen"], ["verse"])


EXAMPLES = {"corpora": CorpusAnswer, "tokenizers": TokenizerAnswer, "models": ModelAnswer}


@pytest.mark.parametrize("group", EXAMPLES)
def test_an_entry_of_a_list_is_renamed(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    (example,) = EXAMPLES[group].model_json_schema()["examples"]
    renamed = answer(200, {**example, "id": "r1", "name": "Genesis"})
    printed, requests = run(monkeypatch, group, "rename", "r1", "Genesis", answers=[renamed])
    assert sent(requests) == [f"PATCH /{group}/r1"]
    assert printed.split() == ["id", "r1", "name", "Genesis"]


@pytest.mark.parametrize(
    ("group", "shape"), [*EXAMPLES.items(), ("jobs", JobAnswer), ("checkpoints", CheckpointAnswer)]
)
def test_an_entry_of_a_list_is_labeled(monkeypatch: pytest.MonkeyPatch, group: str, shape: Any) -> None:
    (example,) = shape.model_json_schema()["examples"]
    labeled = answer(200, {**example, "id": "r1", "name": "Genesis", "tags": ["verse", "old"], "notes": "why"})
    arguments = ("label", "r1", "--name", "Genesis", "--tag", "verse", "--tag", "old")
    printed, requests = run(monkeypatch, group, *arguments, answers=[labeled])
    assert sent(requests) == [f"PATCH /{group}/r1"]
    assert json.loads(requests[0].body) == {"name": "Genesis", "tags": ["verse", "old"]}
    assert "Genesis" in printed
    assert "why" in printed
    _printed, requests = run(monkeypatch, group, "label", "r1", "--tag", "", answers=[labeled])
    assert json.loads(requests[0].body) == {"tags": []}


@pytest.mark.parametrize("group", [*EXAMPLES, "jobs", "checkpoints"])
def test_several_entries_are_changed_and_one_that_is_not_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    rows = [
        {"id": "r1", "is_changed": True, "code": None, "message": None},
        {"id": "r2", "is_changed": False, "code": "not_found", "message": "It is not there."},
    ]
    outcome = answer(200, {"action": "tag", "num_changed": 1, "data": rows})
    arguments = ("change", "tag", "r1", "r2", "--tag", "verse")
    printed, requests = run(monkeypatch, group, *arguments, answers=[outcome], code=1)
    assert sent(requests) == [f"POST /{group}/bulk"]
    assert json.loads(requests[0].body) == {"action": "tag", "ids": ["r1", "r2"], "tag": "verse"}
    assert "It is not there." in printed
    both = answer(200, {"action": "tag", "num_changed": 1, "data": rows[:1]})
    run(monkeypatch, group, "change", "tag", "r1", "--tag", "verse", answers=[both])


def test_an_archive_is_imported_and_its_job_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (task,) = TaskAnswer.model_json_schema()["examples"]
    queued = {**task, "id": "t1", "kind": "job_import", "state": "queued", "result": None}
    (job,) = JobAnswer.model_json_schema()["examples"]
    file = tmp_path / "run.tar"
    file.write_bytes(b"an archive")
    done = answer(200, {**queued, "state": "succeeded", "result": {"job_id": "t1"}})
    answers = [answer(202, queued), done, answer(200, {**job, "id": "t1"})]
    printed, requests = run(monkeypatch, "jobs", "import", str(file), "--wait", answers=answers)
    assert sent(requests) == ["POST /jobs/import?filename=run.tar", "GET /tasks/t1", "GET /jobs/t1"]
    assert requests[0].body == b"an archive"
    assert printed.split()[:2] == ["id", "t1"]


def test_a_job_is_forwarded_to_a_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"title": "MLflow", "target": "x", "url": None, "forwarded_at": None, "error": None, "failed_at": None}
    states = [{"tracker": "mlflow", "state": state, "step": 7, **texts} for state in ("forwarding", "off")]
    listed, stopped = (answer(200, {"data": [state], "next": None}) for state in states)
    printed, requests = run(monkeypatch, "jobs", "forward", "j1", answers=[listed])
    assert (printed.split(), sent(requests)) == (["mlflow", "forwarding", "7", "–"], ["GET /jobs/j1/forwardings"])
    printed, requests = run(monkeypatch, "jobs", "forward", "j1", "mlflow", "--stop", answers=[stopped])
    assert (printed.split(), sent(requests)) == (["mlflow", "off", "7", "–"], ["PATCH /jobs/j1/forwardings"])
    assert json.loads(requests[0].body) == {"trackers": {"mlflow": False}}


def test_the_lines_of_a_log_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"offset": 7, "text": "ERROR [red]no[/red] \x1b memory", "level": "error"}
    answers = [answer(200, {"data": [], "next": "7"}), answer(200, {"data": [line], "next": None})]
    printed, requests = run(monkeypatch, "jobs", "log", "j1", "--search", "no", "--level", "error", answers=answers)
    assert printed == "ERROR [red]no[/red] \N{REPLACEMENT CHARACTER} memory\n"
    asked = "GET /jobs/j1/log/lines?search=no&level=error&limit=50"
    assert sent(requests) == [asked, f"{asked}&after=7"]


def test_a_node_is_removed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    printed, requests = run(monkeypatch, "nodes", "remove", "gpu 2", answers=[answer(204)])
    assert (printed, sent(requests)) == ("Deleted: gpu 2\n", ["DELETE /nodes/gpu%202"])
    refused = problem(409, "node_online")
    printed, _requests = run(monkeypatch, "nodes", "remove", "gpu-2", answers=[refused], code=1)
    assert "A sentence." in printed


def test_health_names_each_part_and_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"kind": "broker", "name": "Broker", "description": "It responds.", "at": None, "unneeded_bytes": 0}
    parts = [{**part, "state": "good", "remedy": None}, {**part, "state": "wait", "remedy": "Restart it."}]
    answers = [answer(204), answer(200, {"parts": parts})]
    printed, requests = run(monkeypatch, "health", "--free-cache", answers=answers)
    assert sent(requests) == ["DELETE /cache", "GET /health"]
    assert printed == "good  Broker: It responds.\nwait  Broker: It responds. Restart it.\n"


def test_sentences_are_joined_as_the_language_does(monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"kind": "broker", "name": "消息代理", "state": "wait", "at": None, "unneeded_bytes": 0}
    parts = [{**part, "description": "没有响应。", "remedy": "请重新启动。"}]
    monkeypatch.setattr("app.client.language.language", lambda: "zh-CN")
    printed, _requests = run(monkeypatch, "health", answers=[answer(200, {"parts": parts})])
    assert printed == "wait  消息代理: 没有响应。请重新启动。\n"
