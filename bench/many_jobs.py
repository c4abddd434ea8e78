"""The list of jobs with 100,000 of them beside 1,000, whole, searched and filtered; and 20 long runs compared.

`PYTHONPATH=. python bench/many_jobs.py [JOBS | --smoke]`. Starts servers of its own and a real web process for
either number of jobs.
"""

import statistics
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
from sqlalchemy import text

from bench.support import timing, web_process
from bench.support.arguments import IS_SMOKE, size
from tests import users

# isort: split
from app.core import db
from app.core.models import Job
from bench.support import stored_curves
from tests.app.jobs import factories

FEW, REQUESTS = (30, 2) if IS_SMOKE else (1_000, 60)
MANY = size(100_000, smoke=60)
COMPARED, COMPARED_POINTS = (3, 2_000) if IS_SMOKE else (20, 100_000)
LISTED_POINTS = 10  # of each job in the list
BROWSER_CONNECTIONS = 6  # of a browser to one host
GOAL_RATIO = 1.2
GOAL_MILLISECONDS = 1_000  # of a comparison

OWN = {  # columns of a copied job that are its own
    "id": "'00' || lpad(to_hex(n), 14, '0')",
    "name": "'run ' || lpad(n::text, 6, '0')",
    "tags": "jsonb_build_array('batch ' || n % 50)",
    "state": "CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'succeeded' END",
    "search_id": "NULL",
    "progress": "progress || jsonb_build_object('latest', jsonb_build_object('eval_loss', n % 977))",
}
COLUMNS = [column.name for column in Job.__table__.columns if column.computed is None]
COPY = f"""
INSERT INTO job ({", ".join(COLUMNS)}) SELECT {", ".join(OWN.get(name, name) for name in COLUMNS)}
FROM job CROSS JOIN generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n
WHERE id = :job_id RETURNING job.id
"""
ATTEMPTS = "INSERT INTO attempt (job_id, fence, node) SELECT unnest(CAST(:ids AS text[])), 1, 'ada'"

LISTS = {
    "page": "/jobs",
    "page, ended": "/jobs?show=ended",
    "page, a tag": "/jobs?tag=batch+7",
    "page, by name": "/jobs?order=name",
    "page, by loss": "/jobs?order=eval_loss",
    "page, search, many match": "/jobs?q=RUN",
    "page, search, one matches": "/jobs?q=run+000007",
    "API": "/api/v1/jobs",
    "API, a state": "/api/v1/jobs?state=failed",
    "API, a state of none": "/api/v1/jobs?state=cancelled",
    "API, search, many match": "/api/v1/jobs?q=RUN",
    "API, search, one matches": "/api/v1/jobs?q=run+000007",
}
OTHER_USER = "page, a user without jobs"


def add_jobs(original: str, first: int, last: int) -> None:
    """Ended jobs with these numbers, each with an attempt and a short curve."""
    with db.transaction() as session:
        ids = list(session.scalars(text(COPY), {"job_id": original, "first": first, "last": last}))
        session.execute(text(ATTEMPTS), {"ids": ids})
    stored_curves.store(ids, LISTED_POINTS)


def medians(few: httpx.Client, many: httpx.Client, bob: str) -> dict[str, list[float]]:
    """The medians of the requests to both for each list, and for that of a user without jobs, in milliseconds.

    The requests take turns, so that what else the machine does slows both.
    """
    other = {"Authorization": f"Bearer {bob}"}
    result = {}
    for name, path in {**LISTS, OTHER_USER: "/jobs"}.items():
        taken: list[list[float]] = [[], []]
        for number in range(REQUESTS + 1):
            for client, times in zip((few, many), taken, strict=True):
                request = client.build_request("GET", path, headers=other if name == OTHER_USER else None)
                (seconds,) = timing.seconds(lambda one=client, request=request: one.send(request).raise_for_status(), 1)
                if number:  # after the first
                    times.append(seconds)
        result[name] = [1000 * statistics.median(times) for times in taken]
    return result


def compare(client: httpx.Client, jobs: list[str]) -> None:
    """What the page of a comparison loads: itself, then the curve of each job, as many at once as a browser does."""
    client.get("/jobs/compare", params={"job": jobs}).raise_for_status()
    with ThreadPoolExecutor(BROWSER_CONNECTIONS) as threads:
        query = "metrics?series=loss&points=600&seconds=true"
        answers = threads.map(lambda job_id: client.get(f"/api/v1/jobs/{job_id}/{query}"), jobs)
        assert all(answer.raise_for_status().json()["series"]["loss"]["steps"] for answer in answers)


def main() -> None:
    """Fill the database, measure, print."""
    with ExitStack() as stack:
        stack.enter_context(web_process.empty_database())
        alice, bob = users.enter("Alice", "owner"), users.enter("Bob", "member").token()
        corpus = factories.corpus(alice)
        runs = [factories.started(alice, corpus, learning_rate=1e-3 / n)[0] for n in range(1, COMPARED + 1)]
        stored_curves.store(runs, COMPARED_POINTS)
        add_jobs(runs[0], 1, FEW - COMPARED)
        with web_process.copied_database():
            add_jobs(runs[0], FEW - COMPARED + 1, MANY - COMPARED)
            many, _process = stack.enter_context(web_process.running(alice))
        few, _process = stack.enter_context(web_process.running(alice))
        for name, (of_few, of_many) in medians(few, many, bob).items():
            ratio = of_many / of_few
            verdict = timing.verdict(ratio, GOAL_RATIO)
            print(f"{name:<25} p50 {of_few:6.1f} ms, {of_many:6.1f} ms, ratio {ratio:5.2f} {verdict}")
        taken = 1000 * statistics.median(timing.seconds(lambda: compare(many, runs), 5))
    print(f"{FEW:,} and {MANY:,} jobs, {REQUESTS} requests each")
    verdict = timing.verdict(taken, GOAL_MILLISECONDS)
    print(f"comparison of {COMPARED} runs of {COMPARED_POINTS:,} points, all of it: {taken:.0f} ms {verdict}")


if __name__ == "__main__":
    main()
