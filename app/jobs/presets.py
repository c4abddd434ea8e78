"""Presets: settings of jobs that are saved under a name. The only writer of their table."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.core import named_rows, paging
from app.core.account_models import User
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.model_base import new_id
from app.core.names import checked_name
from app.core.preset_models import JobPreset
from app.core.principal import Principal, not_found, not_owner
from app.jobs import service
from app.jobs.views import form
from app.jobs.views.form import SubmittedForm

MAX_PRESETS = 100  # of a user
MAX_NAME_LENGTH = 80
CONTROLS = ("preset_name", "preset_everyone")  # of the form of a job, which save its settings
# What belongs to one job alone.
NOT_SAVED = ("corpora", "validation_corpora", "corpus_weights", "name", "resume_from_checkpoint")


def save(
    session: Session, *, principal: Principal, name: str, spec: Mapping[str, Any], is_for_everyone: bool = False
) -> JobPreset:
    """Save the fields of a partial spec under a name, in place of an earlier preset of the user with that name.

    What belongs to one job, such as its corpora, is left out. Raises SpecError for fields that no job could have, and
    PanelError for a wrong name, a base model or tokenizer that is not there, and too many presets.
    """
    name = checked_name(name, max_length=MAX_NAME_LENGTH)
    fields = {field: value for field, value in spec.items() if field not in NOT_SAVED}
    service.complete_spec(session, principal=principal, request={**fields, "corpora": [new_id()]})
    values = {"spec": fields, "is_for_everyone": is_for_everyone}
    preset = named_rows.save(session, JobPreset, principal.user_id, name, values, MAX_PRESETS)
    if preset is None:
        message = _("You have as many presets as a user may have ({limit}). Delete one.", limit=MAX_PRESETS)
        raise bad_field("name", "presets_many", message)
    return preset


def save_form(session: Session, principal: Principal, submitted: SubmittedForm) -> JobPreset:
    """Save the settings of a form under the name in it. Raises SpecError and PanelError as `save` does."""
    name, everyone = (submitted.fields.get(control, "") for control in CONTROLS)
    spec = form.to_partial_spec(submitted)
    return save(session, principal=principal, name=name, spec=spec, is_for_everyone=everyone == "true")


def fill_form(session: Session, principal: Principal, submitted: SubmittedForm, preset_id: str) -> SubmittedForm:
    """A form filled in with a preset, whose fields replace all but the name and the data. Raises 404."""
    return form.with_preset(submitted, get(session, principal=principal, preset_id=preset_id).spec, NOT_SAVED)


def get(session: Session, *, principal: Principal, preset_id: str) -> JobPreset:
    """A preset of the user, or one for everyone. Raises 404."""
    row = session.scalar(select(JobPreset).where(JobPreset.id == preset_id, _is_visible(principal)))
    if row is None:
        raise not_found()
    return row


def list_presets(
    session: Session, *, principal: Principal, limit: int, after: str | None = None
) -> tuple[list[JobPreset], str | None]:
    """The presets of the user and those for everyone, newest first, and the cursor of the next page."""
    return paging.newest(session, select(JobPreset).where(_is_visible(principal)), JobPreset.id, limit, after)


def owner_names(session: Session, presets: list[JobPreset]) -> dict[str, str]:
    """The names of the users whose presets these are, by their IDs."""
    ids = {preset.owner_id for preset in presets}
    return {row.id: row.name for row in session.execute(select(User.id, User.name).where(User.id.in_(ids)))}


def delete(session: Session, *, principal: Principal, preset_id: str) -> None:
    """Delete a preset; jobs that were submitted with it stay. Raises 404, or 403 for one of another user."""
    preset = get(session, principal=principal, preset_id=preset_id)
    if preset.owner_id != principal.user_id:
        raise not_owner()
    session.delete(preset)


def _is_visible(principal: Principal) -> Any:
    return or_(JobPreset.owner_id == principal.user_id, JobPreset.is_for_everyone)
