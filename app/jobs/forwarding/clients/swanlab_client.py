"""Forwards to SwanLab, by the JSON over HTTP that its own library (0.10) speaks.

SwanLab keeps one value for each series and step, in ascending order. When this process meets a job for the first time,
after a start or an error, it asks for the last step of each series that SwanLab has, and sends what follows.
"""

import os
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx2

from app.jobs.forwarding.clients.errors import TrackerError

TIMEOUT_SECONDS = 20.0
STATES = {"succeeded": "FINISHED", "failed": "CRASHED", "cancelled": "ABORTED"}
COLORS = ["#528d59", "#528d59"]  # of the curves, in light and dark


class SwanLabRun:
    """The experiment of a job at SwanLab, and the last step of each of its series."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.project = _project()
        self.address = f"/project/{self.project['group']['username']}/{self.project['name']}"
        body = {
            "cuid": job["id"],
            "name": job["name"],
            "description": job["notes"],
            "labels": [{"name": tag} for tag in job["tags"]],
            "createdAt": _instant(job["started"] or job["created"]),
            "colors": COLORS,
        }
        answer = _send("POST", f"{self.address}/experiment", {name: value for name, value in body.items() if value})
        experiment = answer.json()
        self.id: str = experiment["cuid"]
        self.url = f"{_web_host()}{self.project['path']}/runs/{experiment.get('slug') or self.id}"
        self.steps = {} if answer.status_code == 201 else self._last_steps(experiment)
        fields = enumerate(job["parameters"].items())
        config = {name: {"desc": "", "sort": place, "value": value} for place, (name, value) in fields}
        _send("PUT", f"{self.address}/runs/{self.id}/profile", {"config": config})

    def _last_steps(self, experiment: dict[str, Any]) -> dict[str, int]:
        created = experiment.get("createdAt") or _send("GET", f"{self.address}/runs/{self.id}").json()["createdAt"]
        seconds = int(datetime.fromisoformat(created).timestamp())
        where = f"/house/metrics/summaries/{self.project['cuid']}/{self.id}?all=True&createdAt={seconds}"
        return {series["key"]: series["step"] for series in _send("GET", where).json().get("scalar") or []}

    def log(self, rows: list[Any]) -> None:
        """Send what SwanLab does not have of some rows."""
        points = [
            {"key": name, "index": step, "data": _data(value), "create_time": _instant(at)}
            for step, at, values in rows
            for name, value in values.items()
            if step > self.steps.get(name, -1)
        ]
        new_series = {point["key"] for point in points} - self.steps.keys()
        if new_series:
            self._define(sorted(new_series))
        if points:
            self._post_metrics(points)
            self.steps |= {point["key"]: point["index"] for point in points}

    def _define(self, names: list[str]) -> None:
        series = [{"key": name, "type": "FLOAT", "sectionName": name.partition("/")[0]} for name in names]
        if self.project.get("version") == 1:
            _send("POST", f"/projects{self.address.removeprefix('/project')}/series", {"series": series})
        else:
            _send("POST", f"/experiment/{self.id}/columns", series)

    def _post_metrics(self, points: list[dict[str, Any]]) -> None:
        ids = {"projectId": self.project["cuid"], "experimentId": self.id}
        _send("POST", "/house/metrics", {"type": "scalar", **ids, "metrics": points})
        _send("POST", f"/house/experiments/{self.id}/heartbeat", {"flagId": "athanor"})

    def finish(self, job: dict[str, Any]) -> None:
        """Say how the job ended."""
        body = {"state": STATES[job["state"]], "finishedAt": _instant(job["finished"]), "from": "sdk"}
        _send("PUT", f"{self.address}/runs/{self.id}/state", body)


_runs: dict[str, SwanLabRun] = {}  # that this process has sent to


def forward(job: dict[str, Any], rows: list[Any], remote: dict[str, Any], is_over: bool) -> dict[str, Any]:
    """Send rows to the experiment of a job, and end it if it is over. Raises TrackerError, httpx2.HTTPError."""
    if job["id"] not in _runs:
        _runs[job["id"]] = SwanLabRun(job)
    run = _runs[job["id"]]
    run.log(rows)
    if is_over:
        run.finish(job)
        del _runs[job["id"]]
    return {"url": run.url}


def _data(value: float | str) -> float | str:
    """A value as SwanLab takes it, which knows no infinity."""
    return value if not isinstance(value, str) else "nan"


def _instant(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat().replace("+00:00", "Z")


def _web_host() -> str:
    """Where the pages are: SwanLab's own service has them beside api., others have both at one address."""
    return os.environ["SWANLAB_API_HOST"].replace("//api.", "//")


def _project() -> dict[str, Any]:
    """The project, which is created as a private one if it does not exist."""
    user = os.environ.get("SWANLAB_WORKSPACE") or _login()["userInfo"]["username"]
    name = os.environ["SWANLAB_PROJECT"]
    answer = _client().get(f"/project/{user}/{name}")
    if answer.status_code == 404:
        _send("POST", f"/projects/{user}", {"name": name, "visibility": "PRIVATE"})
        answer = _send("GET", f"/project/{user}/{name}")
    project: dict[str, Any] = _checked(answer).json()
    return project


@cache
def _client() -> httpx2.Client:
    return httpx2.Client(base_url=f"{os.environ['SWANLAB_API_HOST'].rstrip('/')}/api", timeout=TIMEOUT_SECONDS)


@cache
def _login() -> dict[str, Any]:
    """Log in by the API key; the client keeps the cookie of the session."""
    answer = _checked(_client().post("/login/api_key", headers={"Authorization": os.environ["SWANLAB_API_KEY"]}))
    login: dict[str, Any] = answer.json()
    _client().cookies.set("sid", login["sid"])
    return login


def _send(method: str, path: str, body: Any = None) -> httpx2.Response:
    """An answer that is no error. Raises TrackerError."""
    _login()
    return _checked(_client().request(method, path, json=body))


def _checked(answer: httpx2.Response) -> httpx2.Response:
    if answer.status_code >= 400:
        raise TrackerError("swanlab_refused", status=answer.status_code, path=answer.url.path, text=answer.text[:200])
    return answer
