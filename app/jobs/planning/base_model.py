"""Base models of jobs (checkpoints and imported models): the spec fields they fix, and where their files are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.base_models import limits
from app.base_models import service as base_models
from app.checkpoints.service import RESUME
from app.core import storage
from app.core.errors import PanelError, bad_field
from app.core.formatting import number
from app.core.i18n import _
from app.core.json_shapes import ModelFacts
from app.core.labels import checkpoint_title
from app.core.models import Checkpoint, ImportedModel, Job
from app.core.principal import Principal, in_trash, is_in_trash, visible, visible_to
from trainer.families import FAMILIES, NETWORK_FIELDS
from trainer.limits import limit
from trainer.planning.context_length import max_context_length
from trainer.spec import recipe, recipe_names

# Which recipe fills in missing fields, by objective; a base model offers its objectives in this order.
RECIPES = {
    "chat": "chat",
    "causal": "tiny",
    "completion": "completion",
    "dpo": "dpo",
    "masked": "tiny-bert",
    "classification": "classifier",
    "span_corruption": "tiny-t5",
    "seq2seq": "seq2seq",
}
CHOICES = 100  # of each kind, in the form


@dataclass(frozen=True)
class StartingPoint:
    """A model to start from."""

    id: str
    facts: ModelFacts

    @property
    def fixed(self) -> dict[str, Any]:
        """The fields of a spec that it decides. Its tokenizer comes with it."""
        return {**{name: getattr(self.facts, name) for name in (*NETWORK_FIELDS, "vocab_size")}, "tokenizer": None}

    @property
    def recipe(self) -> str:
        """What it is most often fine-tuned with."""
        recipes = {"masked": "classifier", "classification": "classifier", "span_corruption": "seq2seq"}
        return recipes.get(self.objectives[0], self.objectives[0])

    @property
    def objectives(self) -> list[str]:
        """What it can learn. Its chat template, if unusable, can be replaced by a job's."""
        of_family = [name for name in RECIPES if self.facts.model_type in FAMILIES[name]]
        return [name for name in of_family if name == "chat" or limit(self.facts, name) is None]


def _network(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a spec's or a model's fields that define the network."""
    return {name: fields[name] for name in NETWORK_FIELDS}


def find(session: Session, principal: Principal, base_id: Any) -> StartingPoint | None:
    """The base model that a spec names, held until the commit. Raises at `base_model`."""
    if not isinstance(base_id, str):  # the spec refuses anything else
        return None
    model = base_models.require_ready_model(session, principal=principal, model_id=base_id)
    if model is not None:
        return StartingPoint(model.id, model.facts)
    if is_in_trash(session, ImportedModel, base_id, principal=principal):
        raise bad_field("base_model", "in_trash", in_trash().message)
    message = _("No checkpoint or imported model has the ID {id}.", id=base_id)
    checkpoint, job = checkpoint_in_use(session, principal, base_id, bad_field("base_model", "base_unknown", message))
    return _of_checkpoint(session, checkpoint, job)


def checkpoint_in_use(
    session: Session, principal: Principal, base_id: str, unknown: PanelError
) -> tuple[Checkpoint, Job]:
    """A checkpoint that a new job needs, and the job that wrote it. Raises `unknown` if the user has none."""
    try:
        checkpoint = visible(session, Checkpoint, base_id, principal=principal)
    except PanelError as error:
        if error.code == "in_trash":
            raise bad_field(unknown.fields[0].field, error.code, error.message) from error
        raise unknown from error
    # The job deletes checkpoints only while it is locked: those that exist now stay until the new job is stored.
    job = session.get(Job, checkpoint.job_id, with_for_update={"read": True}, populate_existing=True)
    if job is None:  # it was deleted meanwhile
        raise unknown
    session.refresh(checkpoint)
    if job.deleted_at is not None or checkpoint.deleted_at is not None:  # moved to the trash meanwhile
        is_own = checkpoint.owner_id == principal.user_id
        raise bad_field(unknown.fields[0].field, "in_trash", in_trash().message) if is_own else unknown
    return checkpoint, job


def _of_checkpoint(session: Session, checkpoint: Checkpoint, job: Job) -> StartingPoint:
    try:
        if checkpoint.state != "ready":
            raise OSError(checkpoint.state)
        config = json.loads((storage.checkpoint(checkpoint.path) / "config.json").read_bytes())
        vocab_size, context = int(config["vocab_size"]), _context(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = _("The files of this checkpoint are missing or damaged. Choose another one.")
        raise bad_field("base_model", "checkpoint_missing", message) from error
    has_new_head = job.spec.objective == "classification"
    traits = limits.traits_of_checkpoints(session, job.spec).model_dump()
    facts = ModelFacts(
        **{**traits, **job.spec.model_dump(include=set(NETWORK_FIELDS))},
        vocab_size=vocab_size,
        context=context,
        num_parameters=None if has_new_head else job.facts.num_parameters,
    )
    return StartingPoint(checkpoint.id, facts)


def _context(config: dict[str, Any]) -> int | None:
    """The context length of one of our models, from its configuration."""
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    return max_context_length(str(config["model_type"]), positions, config.get("pad_token_id"))


def link(session: Session, principal: Principal, base_id: str | None) -> tuple[str, str] | None:
    """The page and the name of what a job started from, if it is still there."""
    if base_id is None:
        return None
    model = base_models.find(session, principal=principal, model_id=base_id)
    if model is not None:
        return f"/models/{model.id}", model.name
    is_visible = (Checkpoint.id == base_id, visible_to(Checkpoint.owner_id, principal))
    row = session.execute(
        select(Checkpoint.step, Checkpoint.name.label("own_name"), Job.name)
        .join(Job, Job.id == Checkpoint.job_id)
        .where(*is_visible)
    ).first()
    return (f"/checkpoints/{base_id}", checkpoint_title(row.name, row.step, row.own_name)) if row else None


# ---- what it decides ------------------------------------------------------------------------------------------------


def with_base_defaults(fields: dict[str, Any], base: StartingPoint) -> dict[str, Any]:
    """A partial spec with what the base decides. Raises at a field that contradicts it."""
    for name, value in base.fixed.items():
        if fields.get(name) is not None and fields[name] != value:
            raise _contradiction(name, fields[name], value)
    objective, name = _objective(fields, base)
    usual = recipe(name) if name in recipe_names() else {}
    more: dict[str, Any] = {"recipe": name, "objective": objective}
    length, context = fields.get("sequence_length", usual.get("sequence_length")), base.facts.context
    if isinstance(length, int) and context is not None and length > context:
        if "sequence_length" in fields:
            message = _(
                "sequence_length is {length}, but the context of the base model is {context} tokens. Use at "
                "most {context}.",
                length=length,
                context=context,
            )
            raise bad_field("sequence_length", "context_short", message)
        more["sequence_length"] = context
    return {**fields, **more, **base.fixed}


def _contradiction(name: str, value: Any, expected: Any) -> PanelError:
    if name == "tokenizer":
        message = _("A job with a base model uses the tokenizer of that model. Leave out tokenizer.")
    else:
        message = _(
            "{field} is {found}, but {expected} in the base model. Leave it out, or start from scratch.",
            field=name,
            found=str(value)[:60],
            expected=expected,
        )
    return bad_field(name, "base_differs", message)


def _objective(fields: dict[str, Any], base: StartingPoint) -> tuple[str, Any]:
    """The objective and the recipe of a job: those in `fields`, else the first objective of this model family."""
    objective, name = fields.get("objective"), fields.get("recipe")
    if objective is None:
        first = next(objective for objective in base.objectives if objective != "chat")
        objective = recipe(name)["objective"] if name in recipe_names() else first
    if objective in FAMILIES and base.facts.model_type in FAMILIES[objective]:
        if objective != "chat":
            limits.require(base.facts, objective, "objective")
        elif not fields.get("chat_template"):
            limits.require(base.facts, objective, "chat_template")
    elif objective in FAMILIES:
        message = _(
            "A {model_type} model cannot be trained with the objective {objective}. Use one of: {expected}; or "
            "choose another base model.",
            model_type=base.facts.model_type,
            objective=objective,
            expected=", ".join(base.objectives),
        )
        raise bad_field("objective", "objective_unfit", message)
    return objective, name if name is not None else RECIPES.get(str(objective), "tiny")


# ---- its files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelFiles:
    """The files of a base model: their path below the data directory, and the SHA-256 of each."""

    path: str
    files: dict[str, str]


def place(session: Session, base_id: str) -> ModelFiles | None:
    """The files of a base model without its optimizer state; None if it was deleted."""
    model = session.get(ImportedModel, base_id)
    if model is not None:
        path = storage.base_model(base_id).relative_to(storage.data())
        return ModelFiles(str(path), {file.name: file.sha256 for file in model.files})
    checkpoint = session.get(Checkpoint, base_id)
    if checkpoint is None or checkpoint.state != "ready":
        return None
    files = [file for file in checkpoint.manifest.files if not file.name.startswith(RESUME)]
    return ModelFiles(checkpoint.path, {file.name: file.sha256 for file in files})


# ---- the form -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BaseModelChoice:
    """A base model as the form offers it. `run` are the ID and the name of the job that trained it, if one did."""

    id: str
    label: str
    run: tuple[str, str] | None
    source: ImportedModel | tuple[Checkpoint, Job]


def offers(session: Session, *, principal: Principal, chosen: str = "") -> list[BaseModelChoice]:
    """What the user may start from: checkpoints, newest first and `chosen` in any case, then imported models."""
    rows = session.execute(
        select(Checkpoint, Job)
        .join(Job, Job.id == Checkpoint.job_id)
        .where(visible_to(Checkpoint.owner_id, principal), Checkpoint.state == "ready")
        .order_by(*([(Checkpoint.id == chosen).desc()] if chosen else []), Checkpoint.id.desc())
        .limit(CHOICES)
        .options(defer(Checkpoint.manifest))
    )
    choices = []
    for checkpoint, job in rows:
        words = (checkpoint.name, _("step {n}", n=number(checkpoint.step)), job.spec.model_type)
        label = " · ".join(filter(None, words))
        choices.append(BaseModelChoice(checkpoint.id, label, (job.id, job.name), (checkpoint, job)))
    models, _more = base_models.list_models(session, principal=principal, limit=CHOICES, state="ready")
    choices += [BaseModelChoice(row.id, f"{row.name} · {row.facts.model_type}", None, row) for row in models]
    return choices


def start_of(session: Session, choice: BaseModelChoice) -> StartingPoint | None:
    """The starting point of a choice, which is not held; None if its files are missing."""
    if isinstance(choice.source, ImportedModel):
        return StartingPoint(choice.id, choice.source.facts)
    try:
        return _of_checkpoint(session, *choice.source)
    except PanelError:
        return None
