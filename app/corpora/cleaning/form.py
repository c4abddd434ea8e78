"""The form of a recipe on the page of a corpus: read, and drawn with what was chosen."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from app.checkpoints import usable_models
from app.checkpoints.usable_models import NamedModel
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.models import Corpus
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.corpora.cleaning import schemas, service
from app.corpora.cleaning.preview import DEFAULT_DOCUMENTS
from app.corpora.cleaning.recipe import STEPS, StepSettings
from app.corpora.cleaning.schemas import CleaningPreviewAnswer, CleaningStepAnswer
from app.web.errors import form_error

CHOSEN_AT_FIRST = ("fix_unicode", "exact_duplicates")
MAX_CORPORA_SHOWN = 200


@dataclass(frozen=True)
class RecipeForm:
    """What the form shows: the chosen steps, the settings of all by step and field, and the preview."""

    chosen: list[str]
    settings: dict[str, dict[str, Any]]
    num_documents: int = DEFAULT_DOCUMENTS
    preview: CleaningPreviewAnswer | None = None
    error: str = ""
    fields: dict[str, str] = field(default_factory=dict)  # sentences of errors by step and field: length.min_words


def _defaults() -> dict[str, dict[str, Any]]:
    return {
        _name(step): {
            name: [] if value.is_required() else value.get_default()
            for name, value in step.model_fields.items()
            if name != "name"
        }
        for step in STEPS
    }


def _name(step: type[BaseModel]) -> str:
    return str(step.model_fields["name"].get_default())


def fresh(recipe: list[dict[str, Any]] | None = None) -> RecipeForm:
    """The form with a recipe, or with the steps that every corpus profits from."""
    settings = _defaults()
    for step in recipe or ():
        settings[step["name"]] = {name: value for name, value in step.items() if name != "name"}
    chosen = [step["name"] for step in recipe] if recipe is not None else [*CHOSEN_AT_FIRST]
    return RecipeForm(chosen, settings)


def read(form: FormData) -> tuple[list[StepSettings], RecipeForm]:
    """The steps that were sent, and the form that shows them. Raises FormRefused for a setting that is not valid."""
    settings = _defaults()
    chosen = [_name(step) for step in STEPS if _name(step) in form.getlist("step")]
    for step in STEPS:
        if _name(step) in chosen:
            settings[_name(step)] = _settings_of(form, step)
    recipe_form = RecipeForm(chosen, settings, _number(form))
    if not chosen:
        raise FormRefused(bad_field("steps", "request_invalid", _("Choose at least one step.")), recipe_form)
    steps: list[Any] = []
    for step in STEPS:
        if _name(step) in chosen:
            try:
                steps.append(step.model_validate({k: v for k, v in settings[_name(step)].items() if v != ""}))
            except ValidationError as error:
                raise FormRefused(form_error(error), recipe_form, _name(step)) from error
    return steps, recipe_form


class FormRefused(Exception):
    """A form that cannot be used: the error, and the form that shows it at its field."""

    def __init__(self, error: PanelError, form: RecipeForm, step: str = "") -> None:
        super().__init__(error.message)
        self.error = error
        fields = (
            {f"{step}.{problem.field.partition('.')[0]}": problem.message for problem in error.fields} if step else {}
        )
        values = {**vars(form), "error": "" if fields else error.message, "fields": fields}
        self.form = RecipeForm(**values)


def _settings_of(form: FormData, step: type[BaseModel]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, described in step.model_fields.items():
        key = f"{_name(step)}.{name}"
        texts = [value.strip() for value in form.getlist(key) if isinstance(value, str)]
        if name == "languages":
            values[name] = [code for text in texts for code in text.replace(",", " ").split()]
        elif get_origin(described.annotation) is list:
            values[name] = texts
        elif described.annotation is bool:
            values[name] = bool(texts)
        elif name != "name":
            values[name] = texts[0] if texts else ""
    return values


def _number(form: FormData) -> int:
    text = str(form.get("num_documents", ""))
    return int(text) if text.isdecimal() and len(text) < 10 else DEFAULT_DOCUMENTS


def context(
    session: Session, principal: Principal, corpus: Corpus, recipe_of: str = "", recipe_form: RecipeForm | None = None
) -> dict[str, Any]:
    """What the page of a corpus shows of its cleaning: how it was made, and the form, as it was sent or with the
    recipe of another version.
    """
    rows, _next = corpora_service.list_corpora(session, principal=principal, limit=MAX_CORPORA_SHOWN)
    others = [row for row in rows if row.state == "ready" and row.id != corpus.id]
    steps: list[CleaningStepAnswer] = []
    parent = None
    if corpus.cleaning is not None:
        steps = schemas.step_answers(corpus.cleaning, service.examples(corpus)) if corpus.state == "ready" else []
        parent = next(iter(corpora_service.existing(session, [corpus.cleaning.parent_id])), None)
    source = session.get(Corpus, recipe_of) if recipe_of else None
    is_known = source is not None and source.lineage_id == corpus.lineage_id and source.cleaning is not None
    recipe = source.cleaning.recipe if is_known and source is not None and source.cleaning is not None else None
    recipe_form = recipe_form or fresh(recipe)
    has_form = corpus.state == "ready" and corpus.owner_id == principal.user_id
    return {
        "cleaning_steps": steps,
        "cleaning_parent": parent,
        "cleaning_models": _model_paths(session, principal, corpus),
        "other_corpora": others,
        "recipe_form": recipe_form,
        "scoring_models": _offered_models(session, principal, recipe_form) if has_form else [],
    }


def _model_paths(session: Session, principal: Principal, corpus: Corpus) -> dict[str, str]:
    """The pages of the models that scored documents, by ID, as far as the reader may see them."""
    paths: dict[str, str] = {}
    for model_id in corpus.cleaning.models if corpus.cleaning is not None else ():
        with suppress(PanelError):
            row = usable_models.subject(session, principal=principal, subject_id=model_id).row
            paths[model_id] = usable_models.named_model(session, row).path
    return paths


def _offered_models(session: Session, principal: Principal, form: RecipeForm) -> list[NamedModel]:
    """The models that can score documents, among them the one that was chosen."""
    wanted = [model_id for model_id in [form.settings["perplexity"]["model"]] if model_id]
    return usable_models.offered_models(session, principal=principal, wanted=wanted)
