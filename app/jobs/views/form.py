"""Reads the form of a new job, for its plan as for its submission. An empty control means what the recipe says."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from starlette.datastructures import FormData

from app.core.errors import FieldError
from app.core.i18n import _, translate
from trainer.planning.scaling_laws import Proposal
from trainer.spec import TrainSpec, recipe, recipe_names

LISTS = ("corpora", "validation_corpora")
AUTO = "auto"  # how the form writes both a null and a field that Athanor chooses


@dataclass(frozen=True)
class SubmittedForm:
    """What a form was sent with, as text: kept when the form is drawn again."""

    fields: Mapping[str, str] = field(default_factory=dict)
    corpora: Sequence[str] = ()
    validation_corpora: Sequence[str] = ()

    @property
    def recipe(self) -> str:
        """The recipe chosen; tiny if there is none of that name."""
        name = self.fields.get("recipe", "")
        return name if name in recipe_names() else "tiny"

    @property
    def origin_id(self) -> str:
        """The checkpoint that the new job continues from, or an empty string."""
        return _identifier(self.fields.get("resume_from_checkpoint", ""))

    @property
    def base_id(self) -> str:
        """The base model to fine-tune, or an empty string."""
        return _identifier(self.fields.get("base_model", ""))


def _identifier(text: str) -> str:
    """The text as an ID that the database can be asked for."""
    return text.strip().replace("\0", "")[:64]


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a new job continues from, with the job that wrote it: its spec stands for the recipe."""

    checkpoint_id: str
    step: int
    job_id: str
    job_name: str
    spec: Mapping[str, Any]
    corpora: Sequence[str] = ()  # their names
    state: str = "ready"  # of the checkpoint


@cache
def properties() -> dict[str, dict[str, Any]]:
    """The JSON schema of each field of the spec; a nullable field has the schema of its other type."""
    flattened: dict[str, dict[str, Any]] = {}
    for name, schema in TrainSpec.model_json_schema()["properties"].items():
        types = [option for option in schema.get("anyOf", []) if option.get("type") != "null"]
        flattened[name] = {**schema, **(types[0] if types else {}), "nullable": bool(types)}
    return flattened


# ---- reading --------------------------------------------------------------------------------------------------------


def read_form(form: FormData) -> SubmittedForm:
    """A form as it arrived."""
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    lists = ([value for value in form.getlist(name) if isinstance(value, str)] for name in LISTS)
    return SubmittedForm(fields, *lists)


def to_partial_spec(form: SubmittedForm) -> dict[str, Any]:
    """The partial spec that a form asks for. Text where a number belongs stays text, for the spec to refuse."""
    spec: dict[str, Any] = {} if form.origin_id else {"recipe": form.recipe}
    for name, schema in properties().items():
        text = form.fields.get(name, "").strip()
        if text and name not in ("recipe", *LISTS):
            spec[name] = _parse(text, schema)
    return spec | {name: list(ids) for name in LISTS if (ids := getattr(form, name))}


def _parse(text: str, schema: dict[str, Any]) -> Any:
    """The JSON value of a control's text. “auto” is null where the spec takes null; elsewhere the spec takes the word
    itself, or refuses it."""
    if schema["nullable"] and text == AUTO:
        return None
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}.get(text, text)
    number = {"integer": int, "number": float}.get(schema.get("type", ""))
    if number is None:
        return text
    try:
        return number(text)
    except ValueError:
        return text


def without_fields(form: SubmittedForm, names: Sequence[str]) -> SubmittedForm:
    """The form with these controls left empty."""
    return replace(form, fields={name: text for name, text in form.fields.items() if name not in names})


def without_corpora(form: SubmittedForm, ids: Container[str]) -> SubmittedForm:
    """The form with these corpora not chosen."""
    corpora, validation = ([corpus for corpus in getattr(form, name) if corpus not in ids] for name in LISTS)
    return replace(form, corpora=corpora, validation_corpora=validation)


# ---- filling in -----------------------------------------------------------------------------------------------------


def prefill_continue(origin: Origin) -> SubmittedForm:
    """The form that continues from a checkpoint: with twice the steps where all are done."""
    fields = {"resume_from_checkpoint": origin.checkpoint_id}
    if origin.step >= origin.spec["max_steps"]:
        fields["max_steps"] = str(2 * origin.spec["max_steps"])
    return SubmittedForm(fields)


def prefill_copy(spec: Mapping[str, Any]) -> SubmittedForm:
    """The form filled in with a spec: what differs from its recipe."""
    fields = {name: text for name, text in _fields_of(spec).items() if text}
    return SubmittedForm(fields, spec["corpora"], spec.get("validation_corpora", ()))


def with_proposal(form: SubmittedForm, proposal: Proposal) -> SubmittedForm:
    """The form with the fields of a proposal filled in over its own."""
    return replace(form, fields={**form.fields, **_fields_of(proposal.fields)})


def _fields_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The controls that say what a spec says; empty where its recipe says the same."""
    usual = recipe(spec["recipe"]) if spec["recipe"] in recipe_names() else {}
    fields = {
        name: "" if name in usual and usual[name] == value else to_form_value(value)
        for name, value in spec.items()
        if name in properties() and name not in LISTS
    }
    return {**fields, "recipe": spec["recipe"]}


def to_form_value(value: Any) -> str:
    """A value of a spec as the form sends it."""
    return str(value).lower() if isinstance(value, bool) else to_display(value)


def to_display(value: Any) -> str:
    """A value of a spec as the form and the spec's table write it."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return AUTO if value is None else str(value)


# ---- errors ---------------------------------------------------------------------------------------------------------


def errors_by_field(problems: Sequence[FieldError], form: SubmittedForm) -> dict[str, str]:
    """The first sentence for each field, with the titles of fields in place of their names."""
    errors: dict[str, str] = {}
    for problem in problems:
        name, message = problem.field.split(".")[0], problem.message
        if message.startswith(problem.field + " "):
            message = _title(name) + message[len(problem.field) :]
        errors.setdefault(name, re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda match: _title(match[0]), message))
    if "corpora" in errors and not form.corpora:
        errors["corpora"] = _("Choose at least one corpus.")
    return errors


def _title(name: str) -> str:
    return translate(properties()[name]["title"]) if name in properties() else name
