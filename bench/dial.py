"""Whether a model that was proposed for a time trains for that time: three budgets, each trained to its end.

`PYTHONPATH=. python bench/dial.py [MINUTES ... | --smoke]`. Starts its own installation, with 60 MB of source code as
the corpus, so that the time decides and not the text. For each budget (1, 3 and 6 minutes by default) it asks for a
proposal, plans it, trains it, and sets the time that the job took, from its start to its end, against the budget and
the interval of the plan. A job of this length is tokenized and loaded in a part of its time. With --smoke, one
proposal for the shipped corpus is trained for some steps.
"""

import httpx

from bench.support import installation
from bench.support.arguments import IS_SMOKE, WORDS
from bench.support.source_code import documents
from tests.waiting import until

MINUTES = (1.0, 3.0, 6.0)
MEGABYTES = 60
SMOKE = {"max_steps": 12, "warmup_steps": 2}
TIMEOUT_SECONDS = 3600


def upload(client: httpx.Client) -> str:
    """The ID of a corpus of source code, once it is parsed."""
    content = "\n".join(documents(MEGABYTES)).encode()
    answer = client.post("/api/v1/corpora", params={"filename": "source.txt"}, content=content).raise_for_status()
    path = f"/api/v1/corpora/{answer.json()['id']}"
    until(lambda: client.get(path).json()["state"] == "ready", TIMEOUT_SECONDS, "the corpus")
    return str(answer.json()["id"])


def measure(client: httpx.Client, corpus: str, minutes: float, changes: dict[str, int]) -> None:
    """Train the proposal for a budget and print how long it took."""
    request = {"corpora": [corpus], "seconds": minutes * 60}
    proposal = client.post("/api/v1/jobs/propose", json=request).raise_for_status().json()
    spec = {**proposal["spec"], "name": f"{minutes:g} minutes", **changes}
    planned = client.post("/api/v1/jobs/plan", json=spec).raise_for_status().json()["figures"]["total_seconds"]
    path = f"/api/v1/jobs/{client.post('/api/v1/jobs', json=spec).raise_for_status().json()['id']}"
    until(lambda: client.get(path).json()["finished_at"], TIMEOUT_SECONDS, "the end of the job")
    job = client.get(path).raise_for_status().json()
    taken = job["elapsed_seconds"]
    print(
        f"{minutes:g} min: {proposal['num_parameters'] / 1e6:.2f} M parameters, {job['max_steps']} steps, "
        f"proposed {proposal['seconds']:.0f} s, planned {planned['value']:.0f} s ({planned['low']:.0f} to "
        f"{planned['high']:.0f}), took {taken:.0f} s: {taken / minutes / 60:.2f} of the budget, within the interval: "
        f"{planned['low'] <= taken <= planned['high']}; {job['state']}, loss {job['latest']['eval_loss']:.3f}"
    )
    print(f"  {proposal['reasons']['size']}")


def main() -> None:
    """Measure and print."""
    with installation.running() as (client, data):
        installation.wait_until_ready(client, data)
        corpus = installation.CORPUS if IS_SMOKE else upload(client)
        for minutes in (1.0,) if IS_SMOKE else [float(word) for word in WORDS] or MINUTES:
            measure(client, corpus, minutes, SMOKE if IS_SMOKE else {})


if __name__ == "__main__":
    main()
