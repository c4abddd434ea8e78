"""HTML routes of the playground. Its script streams from the API; without scripts, the form's answer has all text."""

from collections import defaultdict
from dataclasses import replace
from typing import Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
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

DEFAULTS = {
    **GenerateRequest(checkpoint="-").model_dump(exclude={"checkpoint", "stream"}),
    "logit_bias": "",
    "prefix": "",
}
GREEDY = {"temperature": 0, "top_p": 1, "top_k": 0}  # what a translation begins with
FIELDS = {*GenerationSettings.model_fields, "checkpoint", "prompt", "prefix", "seed", "random_seed"}  # without scripts
Tab = Literal["chat", "completion", "text-to-text"]


@router.get("/playground")
def show_playground(
    request: Request,
    principal: Reader,
    checkpoint: ShortText | None = None,
    tab: Tab | None = None,
    conversation: ShortText | None = None,
) -> Response:
    """The playground with a model selected: the one in the query, else the best of the newest complete job.

    It opens in the tab of what the model does. One that writes no text leads to the page that looks inside it.
    """
    with db.transaction() as session:
        groups, selected = _models(session, principal, checkpoint)
        if conversation is not None:
            conversations.get(session, principal=principal, conversation_id=conversation)
    if checkpoint and selected is None:
        return RedirectResponse(f"/playground/inspect?checkpoint={checkpoint}", status_code=303)
    tab = tab or _tab(selected)
    offered = _of_tab(groups, tab)
    choices = [choice for group in offered for choice in group.choices]
    if selected not in choices or (tab == "chat" and not checkpoint):
        talking = [replace(group, choices=[one for one in group.choices if one.can_chat]) for group in offered]
        talking = [group for group in talking if group.choices] if tab == "chat" else []
        selected = service.most_useful(talking or offered)
    settings = GREEDY if tab == "text-to-text" else {}
    values = {**DEFAULTS, **settings, "checkpoint": selected.id if selected else None}
    if tab != "chat" or not (offered or conversation):
        return _draw_form(request, principal, groups, tab, values)
    return page(
        request,
        "playground/chat.html",
        principal=principal,
        tab=tab,
        groups=offered,
        values=values,
        errors=defaultdict(str),
        selected=_with_base(offered, values["checkpoint"]),
        conversation=conversation,
    )


def _models(session: Session, principal: Principal, wanted: str | None) -> tuple[list[ModelGroup], ModelChoice | None]:
    """The models that the page offers in all its tabs, and the one that is wanted, or the most useful.

    None if there is none, or if the one that is wanted writes no text. Raises 404 for another user's.
    """
    groups = service.list_models(session, principal=principal)
    choices = {choice.id: choice for group in groups for choice in group.choices}
    if not wanted or wanted in choices:
        return groups, choices[wanted] if wanted else service.most_useful(groups)
    group = service.get_model(session, principal=principal, model_id=wanted)
    return (groups, None) if group is None else ([*groups, group], group.choices[0])


def _tab(model: ModelChoice | None) -> Tab:
    """Where a model opens."""
    if model is None or not (model.turns_text or model.can_chat):
        return "completion"
    return "text-to-text" if model.turns_text else "chat"


def _of_tab(groups: list[ModelGroup], tab: Tab) -> list[ModelGroup]:
    """The models for a tab: encoder-decoders have one of their own."""
    turns_text = tab == "text-to-text"
    kept = [replace(group, choices=[one for one in group.choices if one.turns_text == turns_text]) for group in groups]
    return [group for group in kept if group.choices]


def _with_base(groups: list[ModelGroup], model_id: str | None) -> list[ModelChoice]:
    """A model, and beside it the one that it was trained from, as far as the page offers them."""
    choices = {choice.id: choice for group in groups for choice in group.choices}
    model = choices.get(model_id or "")
    return [model, *(choices[one] for one in [model.base_id] if one in choices)] if model else []


@router.post("/playground")
async def generate(request: Request, principal: Submitter) -> Response:
    """Generate text for a browser without scripts."""
    entries = (await request.form()).items()
    form = {name: str(value) for name, value in entries if name in FIELDS}
    values: dict[str, Any] = {**DEFAULTS, **form, "stop": [line for line in form.get("stop", "").splitlines() if line]}
    values["prompt"] = form.get("prompt", "").replace("\r\n", "\n")
    prefix = values.pop("prefix")
    if values.pop("random_seed", "") or not values["seed"]:
        values["seed"] = None
    result: dict[str, Any] | None = None
    errors: dict[str, str] = {}
    status = 200
    try:
        task = await to_thread.run_sync(
            api.enqueue,
            principal,
            GenerateRequest.model_validate(
                {
                    **values,
                    "prompt": _with_prefix(prefix, values["prompt"]),
                    "logit_bias": _biases(values["logit_bias"]),
                }
            ),
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
    values["prefix"] = prefix
    return await to_thread.run_sync(lambda: _answer_form(request, principal, values, errors, result, status))


def _with_prefix(prefix: str, source: str) -> str:
    """A source text after the prefix that names its task."""
    return f"{prefix.strip()} {source}" if prefix.strip() else source


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
        groups, selected = _models(session, principal, values.get("checkpoint"))
    values = {**values, "checkpoint": selected.id if selected else None}
    if result and selected:
        result = {**result, "label": selected.label}
    tab: Tab = "text-to-text" if selected and selected.turns_text else "completion"
    return _draw_form(request, principal, groups, tab, values, errors, result, status)


def _draw_form(
    request: Request,
    principal: Principal,
    groups: list[ModelGroup],
    tab: Tab,
    values: dict[str, Any],
    errors: dict[str, str] | None = None,
    result: dict[str, Any] | None = None,
    status: int = 200,
) -> Response:
    offered = _of_tab(groups, tab)
    return page(
        request,
        "playground/index.html",
        status,
        principal=principal,
        tab=tab,
        groups=offered,
        has_models=bool(groups),
        selected=_with_base(offered, values["checkpoint"]),
        values=values,
        errors=defaultdict(str, errors or {}),
        result=result,
        address=str(request.base_url).rstrip("/"),
    )
