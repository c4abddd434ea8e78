"""HTML routes of the playground. Its script streams from the API; without scripts, the form's answer has all text."""

from collections import defaultdict
from typing import Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.conversations import service as conversations
from app.core import db
from app.core.errors import PanelError
from app.core.principal import Principal
from app.playground import api, service
from app.playground.schemas import GenerateRequest, GenerationSettings
from app.playground.service import ModelChoice, ModelGroup
from app.web.auth import Reader, Submitter
from app.web.errors import validation_field
from app.web.pages import page
from app.web.parameters import ShortText

router = APIRouter()

DEFAULTS = {**GenerateRequest(checkpoint="-").model_dump(exclude={"checkpoint", "stream"}), "logit_bias": ""}
FIELDS = {*GenerationSettings.model_fields, "checkpoint", "prompt", "seed", "random_seed"}  # sent without scripts


@router.get("/playground")
def show_playground(
    request: Request,
    principal: Reader,
    checkpoint: ShortText | None = None,
    tab: Literal["chat", "completion"] | None = None,
    conversation: ShortText | None = None,
) -> Response:
    """The playground with a model selected: the one in the query, else the newest. One with a chat template chats."""
    with db.transaction() as session:
        groups, selected = _models(session, principal, checkpoint)
        if tab == "chat" and checkpoint is None:
            selected = next((choice for group in groups for choice in group.choices if choice.can_chat), selected)
        if conversation is not None:
            conversations.get(session, principal=principal, conversation_id=conversation)
    values = {**DEFAULTS, "checkpoint": selected.id if selected else None}
    is_chat = tab == "chat" or (tab is None and selected is not None and selected.can_chat)
    if not is_chat or not (groups or conversation):
        return _draw_completion(request, principal, groups, values)
    return page(
        request,
        "playground/chat.html",
        principal=principal,
        groups=groups,
        values=values,
        errors=defaultdict(str),
        selected=[selected, *_base_of(groups, selected)] if selected else [],
        conversation=conversation,
    )


def _models(session: Session, principal: Principal, wanted: str | None) -> tuple[list[ModelGroup], ModelChoice | None]:
    """The models that the page offers, and the one that is selected. Raises 404 for another user's."""
    groups = service.list_models(session, principal=principal)
    choices = {choice.id: choice for group in groups for choice in group.choices}
    if wanted and wanted not in choices:
        groups.append(service.get_checkpoint(session, principal=principal, checkpoint_id=wanted))
        return groups, groups[-1].choices[0]
    return groups, choices[wanted] if wanted else next(iter(choices.values()), None)


def _base_of(groups: list[ModelGroup], tuned: ModelChoice) -> list[ModelChoice]:
    """The model that a checkpoint was trained from, which stands beside it, if the page offers it."""
    return [choice for group in groups for choice in group.choices if choice.id == tuned.base_id]


@router.post("/playground")
async def generate(request: Request, principal: Submitter) -> Response:
    """Generate text for a browser without scripts."""
    entries = (await request.form()).items()
    form = {name: str(value) for name, value in entries if name in FIELDS}
    values: dict[str, Any] = {**DEFAULTS, **form, "stop": [line for line in form.get("stop", "").splitlines() if line]}
    values["prompt"] = form.get("prompt", "").replace("\r\n", "\n")
    if values.pop("random_seed", "") or not values["seed"]:
        values["seed"] = None
    result: dict[str, Any] | None = None
    errors: dict[str, str] = {}
    status = 200
    try:
        task = await to_thread.run_sync(
            api.enqueue,
            principal,
            GenerateRequest.model_validate({**values, "logit_bias": _biases(values["logit_bias"])}),
        )
        result = await api.collect_while_connected(request, task)
    except ValidationError as error:
        problems = [validation_field({**detail, "loc": ("form", *detail["loc"])}) for detail in error.errors()]
        errors = {problem.field.partition(".")[0]: problem.message for problem in problems}
        status = 422
    except PanelError as error:
        errors = {problem.field: problem.message for problem in error.fields} or {"": error.message}
        status = error.status
    if isinstance(result, Response):  # the client has disconnected
        return result
    return await to_thread.run_sync(lambda: _answer_form(request, principal, values, errors, result, status))


def _biases(text: str) -> dict[str, str]:
    """The token biases of the form, one `ID: bias` a line."""
    pairs = [line.partition(":") for line in text.splitlines() if line.strip()]
    return {token.strip(): bias.strip() for token, _colon, bias in pairs}


def _answer_form(
    request: Request,
    principal: Principal,
    values: dict[str, Any],
    errors: dict[str, str],
    result: dict[str, Any] | None,
    status: int,
) -> Response:
    with db.transaction() as session:
        groups, selected = _models(session, principal, values["checkpoint"])
    values = {**values, "checkpoint": selected.id if selected else None}
    if result and selected:
        result = {**result, "label": selected.label}
    return _draw_completion(request, principal, groups, values, errors, result, status)


def _draw_completion(
    request: Request,
    principal: Principal,
    groups: list[ModelGroup],
    values: dict[str, Any],
    errors: dict[str, str] | None = None,
    result: dict[str, Any] | None = None,
    status: int = 200,
) -> Response:
    return page(
        request,
        "playground/index.html",
        status,
        principal=principal,
        groups=groups,
        values=values,
        errors=defaultdict(str, errors or {}),
        result=result,
        address=str(request.base_url).rstrip("/"),
    )
