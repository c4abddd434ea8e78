"""A server on loopback that speaks what the library of Weights & Biases 0.31 asks for: GraphQL and streams of files."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer(ThreadingHTTPServer):
    """Keeps the lines of each run's history at their offsets, and what else is told of runs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WandbHandler)
        self.histories: dict[str, list[str]] = {}
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.exit_codes: dict[str, int] = {}
        self.credentials: set[str] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def rows(self, run: str) -> list[dict[str, Any]]:
        """The history of a run."""
        return [json.loads(line) for line in self.histories[run]]

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of an answer to an operation of GraphQL."""
        project = {"id": "p", "name": "scribes", "entity": {"id": "e", "name": "team"}}
        if operation == "RunResumeStatus":
            is_known = variables["name"] in self.histories
            self.exit_codes.pop(variables["name"], None)  # a run that is resumed has not ended
            return {"model": {**project, "bucket": self._run(variables["name"], project) if is_known else None}}
        if operation == "UpsertBucket":
            is_new = variables["name"] not in self.histories
            self.histories.setdefault(variables["name"], [])
            told = {name: value for name, value in variables.items() if value}
            self.descriptions.setdefault(variables["name"], {}).update(told)
            return {"upsertBucket": {"bucket": self._run(variables["name"], project), "inserted": is_new}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        return {}

    def _run(self, name: str, project: dict[str, Any]) -> dict[str, Any]:
        lines = self.histories[name]
        config = self.descriptions.get(name, {}).get("config", "{}")
        texts = {"displayName": name, "description": "", "notes": "", "config": config, "summaryMetrics": "{}"}
        counts = {"historyLineCount": len(lines), "logLineCount": 0, "eventsLineCount": 0}
        tails = {"historyTail": json.dumps(lines[-1:]), "eventsTail": "[]"}
        run = {"id": "1", "name": name, "sweepName": None, "tags": [], "project": project}
        return run | texts | counts | tails | {"wandbConfig": json.dumps({"t": 1})}

    def take(self, run: str, stream: dict[str, Any]) -> None:
        """A piece of the stream of a run's files."""
        chunk = stream.get("files", {}).get("wandb-history.jsonl")
        if chunk is not None:
            lines = self.histories[run]
            assert chunk["offset"] <= len(lines), "a gap"
            lines[chunk["offset"] :] = chunk["content"]
        if stream.get("complete"):
            self.exit_codes[run] = stream["exitcode"]


class WandbHandler(BaseHTTPRequestHandler):
    server: WandbServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            self.server.credentials.add(self.headers["Authorization"])
            question = json.loads(body)
            answer = {"data": self.server.answer(question.get("operationName") or "", question.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.take(self.path.split("/")[-2], json.loads(body))
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
