"""A server on loopback that speaks SwanLab's protocol, as its library 0.10.3 was recorded to use it."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# The requests that the library sent, and the fields of their bodies; {} is an ID.
RECORDED = {
    "POST /api/login/api_key": set(),
    "GET /api/project/team/scribes": set(),
    "POST /api/projects/team": {"name", "visibility"},
    "POST /api/project/team/scribes/experiment": {"name", "description", "createdAt", "colors", "labels", "cuid"},
    "GET /api/house/metrics/summaries/project-1/{}": set(),
    "PUT /api/project/team/scribes/runs/{}/profile": {"config"},
    "POST /api/projects/team/scribes/series": {"series"},
    "POST /api/house/metrics": {"type", "projectId", "experimentId", "metrics"},
    "POST /api/house/experiments/{}/heartbeat": {"flagId"},
    "PUT /api/project/team/scribes/runs/{}/state": {"state", "finishedAt", "from"},
}
POINT = {"key", "index", "data", "create_time"}
SERIES = {"key", "type", "sectionName"}


class SwanLabServer(ThreadingHTTPServer):
    """Keeps the points of each experiment in the order in which they arrive; fails where it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SwanLabHandler)
        self.points: dict[str, list[dict[str, Any]]] = {}
        self.series: list[str] = []
        self.config: dict[str, Any] = {}
        self.experiment: dict[str, Any] = {}
        self.state = ""
        self.has_project = False
        self.drops_answers = False  # takes points, and answers with an error
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def curve(self, experiment: str, name: str) -> list[tuple[int, float]]:
        """The steps and values of a series."""
        return [(point["index"], point["data"]) for point in self.points[experiment] if point["key"] == name]

    def answer(self, request: str, experiment: str, body: Any) -> tuple[int, Any]:
        """Status and body of an answer."""
        if request.startswith("GET /api/project/"):
            project = {"cuid": "project-1", "name": "scribes", "path": "/@team/scribes", "version": 1}
            return (200, {**project, "group": {"username": "team"}}) if self.has_project else (404, {})
        if request == "POST /api/projects/team":
            self.has_project = True
        if request.endswith("/experiment"):
            is_new = body["cuid"] not in self.points
            self.points.setdefault(body["cuid"], [])
            self.experiment, self.state = body, "RUNNING"
            answer = {"cuid": body["cuid"], "slug": body["cuid"], "createdAt": body["createdAt"]}
            return 201 if is_new else 200, answer
        if "/summaries/" in request:
            last = {point["key"]: point["index"] for point in self.points[experiment]}
            return 200, {"scalar": [{"key": key, "step": step} for key, step in last.items()]}
        if request == "POST /api/house/metrics":
            assert all(point.keys() == POINT and point["key"] in self.series for point in body["metrics"])
            self.points[body["experimentId"]] += body["metrics"]
            return (502, "gateway") if self.drops_answers else (200, {})
        if request.endswith("/series"):
            assert all(series.keys() == SERIES for series in body["series"])
            self.series += [series["key"] for series in body["series"]]
        self.config = body["config"] if request.endswith("/profile") else self.config
        self.state = body["state"] if request.endswith("/state") else self.state
        return 200, {}


class SwanLabHandler(BaseHTTPRequestHandler):
    server: SwanLabServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
        ids = re.findall(r"/(?:runs|project-1|experiments)/(\w+)", self.path)
        path = self.path.partition("?")[0].replace(ids[0], "{}") if ids else self.path
        request = f"{self.command} {path}"
        is_known = request in RECORDED and body.keys() <= RECORDED[request]
        is_logged_in = request.endswith("/api_key") or self.headers["Cookie"] == "sid=session-1"
        status, answer = 400, f"not recorded: {request} {sorted(body)}"
        if request.endswith("/api_key"):
            is_key = self.headers["Authorization"] == "opensesame"
            status, answer = (200, {"sid": "session-1", "userInfo": {"username": "team"}}) if is_key else (401, {})
        elif is_known and is_logged_in:
            status, answer = self.server.answer(request, ids[0] if ids else "", body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST
    do_PUT = do_POST

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
