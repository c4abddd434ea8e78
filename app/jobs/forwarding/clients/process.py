"""Gives batches to a tracker: `python -m app.jobs.forwarding.clients.process TRACKER`.

Reads a batch as a line of JSON from standard input, and answers each with a line: `remote`, what it wants to know of
the run next time, or `error`, a code with values, and whether the tracker has lost what it had. After an error it
ends, as nobody knows what state the library is in. Its environment names the tracker and holds its credentials.
"""

import importlib
import json
import os
import re
import sys
from typing import Any

from app.jobs.forwarding.clients.errors import LostRows, TrackerError
from app.jobs.forwarding.clients.user_info import without_user_info

MAX_ERROR_LENGTH = 400
SECRET_NAME = re.compile("PASSWORD|TOKEN|KEY")
MODULES = {
    "mlflow": "mlflow_client",
    "swanlab": "swanlab_client",
    "tensorboard": "event_files",
    "wandb": "wandb_client",
}


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    for line in sys.stdin:
        try:
            client = importlib.import_module(f"app.jobs.forwarding.clients.{MODULES[sys.argv[1]]}")
            reply = answer(client, **json.loads(line))
        except Exception as error:
            reply = {"error": describe(error), "is_lost": isinstance(error, LostRows)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
        if "error" in reply:
            return


def answer(client: Any, **batch: Any) -> dict[str, Any]:
    """Give a batch to a client, whatever may be in the address of the run. Raises its errors."""
    remote = client.forward(**batch)
    return {"remote": {**remote, "url": without_user_info(remote["url"])}}


def describe(error: Exception) -> dict[str, Any]:
    """The code and the values of an error, without the secrets of this process."""
    if not isinstance(error, TrackerError):
        return {"code": "library", "values": {"text": _scrub(str(error)) or type(error).__name__}}
    values = {name: _scrub(value) if isinstance(value, str) else value for name, value in error.values.items()}
    return {"code": error.code, "values": values}


def _scrub(text: str) -> str:
    """A text in one line, without secrets."""
    text = without_user_info(" ".join(text.split()))
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and value:
            text = text.replace(value, "***")
    return text[:MAX_ERROR_LENGTH]


if __name__ == "__main__":
    main()
