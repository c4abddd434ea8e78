"""What the form of a new job would submit, as code: the JSON of the request, a curl command, a Python program."""

import json
import pprint
import shlex
from typing import Any

from app.jobs.views import form
from app.jobs.views.form import SubmittedForm

WIDTH = 100  # of a line of Python


def code_of(submitted: SubmittedForm, server: str) -> dict[str, str]:
    """The request of a form to the server at this address, by language. Its token is read from ATHANOR_TOKEN."""
    search = form.search_request(submitted)
    body = search or form.to_partial_spec(submitted)
    path = "hyperparameter-searches" if search else "jobs"
    text = json.dumps(body, indent=2, ensure_ascii=False)
    curl = f"""\
curl {shlex.quote(f"{server}/api/v1/{path}")} \\
  -H "Authorization: Bearer $ATHANOR_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d {shlex.quote(text)}"""
    return {"JSON": text, "curl": curl, "Python": _python(body, server, "search" if search else "submit")}


def _python(body: dict[str, Any], server: str, verb: str) -> str:
    literal = pprint.pformat(body, width=WIDTH, sort_dicts=False)
    return f"""\
from athanor import Client

request = {literal}

with Client({server!r}) as client:  # its token is ATHANOR_TOKEN
    print(client.jobs.{verb}(request).id)"""
