"""The chat template of a job, applied to a conversation by a child process with limits: templates are programs."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core import storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.principal import Principal
from app.jobs.planning import base_model
from app.web import preview_process as process
from app.web.preview_process import PreviewRefused


class PreviewMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant", "tool"]
    content: str = Field(max_length=20_000)


SAMPLE = [
    PreviewMessage(role="system", content="Answer in one sentence."),
    PreviewMessage(role="user", content="What is gold?"),
    PreviewMessage(role="assistant", content="A metal."),
    PreviewMessage(role="user", content="And lead?"),
    PreviewMessage(role="assistant", content="A softer one."),
]


class PreviewRequest(BaseModel):
    """A chat template, the base model of the job, and a conversation; without one, a short sample is used."""

    model_config = ConfigDict(extra="forbid")

    chat_template: str | None = Field(
        default=None,
        min_length=1,
        max_length=20_000,
        pattern=r"^[^\x00]*$",
        description="A preset (chatml, llama-3, mistral, zephyr, plain) or a Jinja template; null: the base model's.",
    )
    base_model: str | None = Field(default=None, max_length=64, description="ID of a checkpoint or imported model.")
    messages: list[PreviewMessage] = Field(default=SAMPLE, min_length=1, max_length=100)


class PreviewPart(BaseModel):
    """A part of the rendered conversation; `is_learned` if the model is trained to write it."""

    text: str
    is_learned: bool


class PreviewAnswer(BaseModel):
    """The conversation as it is trained on, the prompt of its last answer, and the token that ends an answer."""

    parts: list[PreviewPart]
    prompt: str
    end_of_turn: str | None


def base_directory(session: Session, principal: Principal, base_id: str | None) -> Path | None:
    """Where the files of a base model lie. Raises PanelError for one that is not there."""
    if not base_id or base_model.find(session, principal, base_id) is None:
        return None
    files = base_model.place(session, base_id)
    return None if files is None else storage.data() / files.path


def preview(request: PreviewRequest, base: Path | None) -> PreviewAnswer:
    """Apply the template in a child process. Raises PanelError with what the template says, if it takes too long, or
    if the node has no room for the child.
    """
    options = [] if base is None else [f"--base={base}"]
    options += [] if request.chat_template is None else [f"--template={request.chat_template}"]
    messages = json.dumps([message.model_dump() for message in request.messages])
    try:
        answer = process.run("trainer", "preview", "-", *options, too_slow=_too_slow, text=messages)
    except PreviewRefused as refused:
        sentence = _("The chat template refuses this conversation: {why}.", why=str(refused)[:300])
        raise bad_field("chat_template", "chat_template_unusable", sentence) from None
    return PreviewAnswer.model_validate_json(answer)


def _too_slow() -> PanelError:
    message = _("The chat template takes too much time or memory. Look for an endless loop in it.")
    return bad_field("chat_template", "chat_template_slow", message)
