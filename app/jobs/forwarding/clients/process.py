"""Gives batches to a tracker: `python -m app.jobs.forwarding.clients.process TRACKER`.

Reads a batch as a line of JSON from standard input, and answers each with a line: `remote`, what it wants to know of
the run next time, or `error`, and whether the tracker has lost what it had. After an error it ends, as nobody knows
what state the library is in. Its environment names the tracker and holds its credentials.
"""

import importlib
import json
import os
import re
import sys
from typing import Any

from app.jobs.forwarding.clients.errors import LostRows

MAX_ERROR_LENGTH = 400
USER_INFO = re.compile(r"//[^/@\s]+@")  # of a URL
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
        answer: dict[str, Any]
        try:
            client = importlib.import_module(f"app.jobs.forwarding.clients.{MODULES[sys.argv[1]]}")
            answer = {"remote": client.forward(**json.loads(line))}
        except Exception as error:
            answer = {"error": describe(error), "is_lost": isinstance(error, LostRows)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if "error" in answer:
            return


def describe(error: Exception) -> str:
    """The text of an error in one line, without the secrets of this process."""
    text = USER_INFO.sub("//", " ".join(str(error).split()) or type(error).__name__)
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and value:
            text = text.replace(value, "***")
    return text[:MAX_ERROR_LENGTH]


if __name__ == "__main__":
    main()
