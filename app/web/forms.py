"""The fields of a form, read before a route runs, so that the route itself may be synchronous, and their errors."""

import re
from collections import defaultdict
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import FormData

from app.core.errors import PanelError


async def _form_body(request: Request) -> FormData:
    return await request.form(max_fields=200, max_files=0)


def errors_by_control(error: PanelError | None) -> defaultdict[str, str]:
    """What is wrong with each field of a form, in the field itself or in one of its entries; empty for the others."""
    problems = error.fields if error is not None else []
    return defaultdict(str, {problem.field.partition(".")[0]: problem.message for problem in reversed(problems)})


def by_label(error: str, field: str, label: str) -> str:
    """The error of a control, whose label stands in place of the field's name that errors of the API begin with.

    The name of the control may have something before that of the field, such as search_ or the step of a recipe.
    """
    name = re.match(r"([a-z]\w*)[.\w]* ", error)
    if name is None or not (field == name[1] or field.endswith((f".{name[1]}", f"_{name[1]}"))):
        return error
    return f"{label} {error[name.end() :]}"


FormBody = Annotated[FormData, Depends(_form_body)]
