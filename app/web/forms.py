"""The fields of a form, read before a route runs, so that the route itself may be synchronous."""

from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import FormData


async def _form_body(request: Request) -> FormData:
    return await request.form(max_fields=200, max_files=0)


FormBody = Annotated[FormData, Depends(_form_body)]
