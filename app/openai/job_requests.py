"""What POST /v1/fine_tuning/jobs asks for, as fields of a spec."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, model_validator
from sqlalchemy.orm import Session

from app.core.errors import FieldError, PanelError, bad_field
from app.core.i18n import _
from app.core.principal import Principal
from app.corpora import service as corpora
from app.openai import models, objects
from app.openai.files import PREFIX as FILE_PREFIX
from app.web.errors import joined, spec_fields
from trainer.spec import recipe, recipe_names
from trainer.spec_errors import SpecError

AUTO_EPOCHS = 3  # of a fine-tuning whose n_epochs is auto
EARLY_STOP_PATIENCE = 2  # evaluations, of a job with Fireworks' earlyStop
# How the fields of a spec are called in this request.
WIRE_FIELDS = {
    "corpora": "training_file",
    "validation_corpora": "validation_file",
    "base_model": "model",
    "num_train_epochs": "hyperparameters.n_epochs",
    "train_batch_size": "hyperparameters.batch_size",
    "dpo_beta": "hyperparameters.beta",
    "seed": "seed",
    "Idempotency-Key": "Idempotency-Key",
}
OWN_FIELDS = ("corpora", "validation_corpora", "base_model", "seed")  # that the request itself names

Text = Annotated[str, Field(max_length=512)]
# Together's and Fireworks' clients name the model of an earlier job, to start from its weights, in a field of its own.
START_MODEL = AliasChoices("model", "from_checkpoint", "warmStartFrom")
StartModel = Annotated[str, Field(min_length=1, max_length=500, validation_alias=START_MODEL)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Hyperparameters(_Strict):
    """The settings of a method; None stands for "auto". Only DPO has beta."""

    n_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=10_000)] | None = None
    beta: Annotated[float, Field(gt=0, le=10)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_auto(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: None if value == "auto" else value for name, value in fields.items()}


class MethodSettings(_Strict):
    """The settings of a method."""

    hyperparameters: Hyperparameters | None = None


class Method(_Strict):
    """How to train."""

    type: Literal["supervised", "dpo"]
    supervised: MethodSettings | None = None
    dpo: MethodSettings | None = None


class JobRequest(_Strict):
    """A fine-tuning job. `athanor` holds further fields of a TrainSpec.

    `early_stop` and `eval_auto_carveout` are Fireworks': end with a validation loss that no longer falls, and hold out
    a part of the training file.
    """

    model: StartModel
    training_file: Text
    validation_file: Text | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], Text] | None = Field(None, max_length=16)
    integrations: list[JsonValue] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    early_stop: Annotated[bool | None, Field(validation_alias="earlyStop")] = None
    eval_auto_carveout: Annotated[bool | None, Field(validation_alias="evalAutoCarveout")] = None
    athanor: dict[str, JsonValue] = {}

    @property
    def is_dry_run(self) -> bool:
        """Whether the job is only to be planned. Raises PanelError for what is neither true nor false."""
        value = self.athanor.get("dry_run", False)
        if not isinstance(value, bool):
            raise bad_field("athanor.dry_run", "request_invalid", _("athanor.dry_run must be true or false."))
        return value

    @property
    def spec_fields(self) -> dict[str, JsonValue]:
        """The fields of `athanor` that belong to the spec."""
        return {name: value for name, value in self.athanor.items() if name != "dry_run"}

    @property
    def kind(self) -> Literal["supervised", "dpo"]:
        """The method."""
        return self.method.type if self.method is not None else "supervised"

    @property
    def settings(self) -> Hyperparameters:
        """The hyperparameters of the method, or those outside of it."""
        method = getattr(self.method, self.kind) if self.method is not None else None
        own = method.hyperparameters if method is not None else None
        return own or self.hyperparameters or Hyperparameters()


def details(request: JobRequest) -> dict[str, Any]:
    """What is kept of a request to answer it again."""
    names = set(Hyperparameters.model_fields) - (set() if request.kind == "dpo" else {"beta"})
    settings = request.settings.model_dump(include=names)
    return {
        "model": request.model,
        "training_file": request.training_file,
        "validation_file": request.validation_file,
        "metadata": request.metadata,
        "method": request.kind,
        "hyperparameters": {name: "auto" if value is None else value for name, value in settings.items()},
    }


def spec_of(session: Session, *, principal: Principal, request: JobRequest) -> dict[str, Any]:
    """The partial spec of a request. Raises PanelError for a model or file that the user does not have."""
    _check(request)
    fields: dict[str, Any] = request.spec_fields
    fields["corpora"] = [_corpus(session, principal, "corpora", request.training_file)]
    if request.validation_file is not None:
        fields["validation_corpora"] = [_corpus(session, principal, "validation_corpora", request.validation_file)]
    fields |= _start(session, principal, request)
    if request.kind == "dpo":
        fields["objective"] = "dpo"
    if request.seed is not None:
        fields["seed"] = request.seed
    if request.early_stop:
        fields.setdefault("early_stopping_patience", EARLY_STOP_PATIENCE)
    if request.eval_auto_carveout is False and request.validation_file is not None:
        fields.setdefault("validation_fraction", 0)
    if request.suffix is not None:
        fields.setdefault("name", request.suffix)
    return _with_hyperparameters(fields, request)


def _check(request: JobRequest) -> None:
    if request.integrations:
        message = _("There are no integrations here. Leave integrations out; webhooks say when a job ends.")
        raise bad_field("integrations", "integrations_unsupported", message)
    for name in OWN_FIELDS:
        if name in request.athanor:
            message = _(
                "Set {field} of the request itself in place of athanor.{name}.", field=WIRE_FIELDS[name], name=name
            )
            raise bad_field(f"athanor.{name}", "field_twice", message)
    if request.eval_auto_carveout is False and request.validation_file is None:
        message = _("Without a validation file a part of the training file is held out. Send one, or leave this out.")
        raise bad_field("evalAutoCarveout", "request_invalid", message)
    if request.kind == "supervised" and request.settings.beta is not None:
        message = _("beta is a setting of DPO. Leave it out, or choose the method dpo.")
        raise bad_field("hyperparameters.beta", "beta_unfit", message)


def _corpus(session: Session, principal: Principal, field: str, file_id: str) -> str:
    """The corpus of a file. It may still be read, or be one that cannot be read: the job will say so."""
    try:
        corpus_id = objects.row_id(FILE_PREFIX, file_id)
        corpora.get_corpus(session, principal=principal, corpus_id=corpus_id)
    except PanelError:
        message = _("There is no file {id}, or it is not yours.", id=file_id[:100])
        raise bad_field(field, "corpus_unknown", message) from None
    return corpus_id


def _start(session: Session, principal: Principal, request: JobRequest) -> dict[str, Any]:
    """What the model of a request means: a base model, a recipe for a new one, or the checkpoint to continue from."""
    checkpoint = request.athanor.get("resume_from_checkpoint")
    field, name = ("base_model", request.model) if checkpoint is None else ("resume_from_checkpoint", str(checkpoint))
    try:
        return {field: models.resolve(session, principal=principal, name=name).source_id}
    except PanelError as error:
        if field == "base_model" and name in recipe_names():
            return {"recipe": request.athanor.get("recipe", name)}
        raise bad_field(field, error.code, error.message) from None


def _with_hyperparameters(fields: dict[str, Any], request: JobRequest) -> dict[str, Any]:
    """The fields with those that the hyperparameters stand for. Fields of `athanor` come first."""
    settings, chosen = request.settings, dict[str, Any]()
    usual = _usual(fields, request)
    has_steps = "max_steps" in fields or "num_train_epochs" in fields
    if settings.n_epochs is not None:
        chosen["num_train_epochs"] = settings.n_epochs
    elif fields.get("base_model") is not None and not has_steps:
        chosen["num_train_epochs"] = AUTO_EPOCHS
    if settings.batch_size is not None:
        chosen["train_batch_size"] = settings.batch_size
        num_processes = fields.get("num_processes", 1)
        rows = settings.batch_size // num_processes if isinstance(num_processes, int) and num_processes > 0 else 1
        chosen["per_device_batch_size"] = math.gcd(max(1, rows), usual["per_device_batch_size"])
    if settings.learning_rate_multiplier is not None:
        chosen["learning_rate"] = settings.learning_rate_multiplier * usual["learning_rate"]
    if settings.beta is not None:
        chosen["dpo_beta"] = settings.beta
    return {**chosen, **fields}


def _usual(fields: dict[str, Any], request: JobRequest) -> dict[str, Any]:
    """The recipe whose values the hyperparameters refer to."""
    name = fields.get("recipe", "dpo" if request.kind == "dpo" else "chat")
    return recipe(name if name in recipe_names() else "chat", is_from_scratch=fields.get("base_model") is None)


@contextmanager
def wire_errors(request: JobRequest) -> Iterator[None]:
    """Errors of a spec inside the block name the fields of the request."""
    try:
        yield
    except SpecError as error:
        fields = [FieldError(wire_field(f.field, request), f.message) for f in spec_fields(error)]
        raise PanelError(422, "spec_invalid", joined(fields, len(error.problems)), fields) from error
    except PanelError as error:
        error.fields = [FieldError(wire_field(f.field, request), f.message) for f in error.fields]
        raise


def wire_field(name: str, request: JobRequest | None = None) -> str:
    """What a field of a spec is called in a request: those without a name of their own belong to `athanor`."""
    if name in (*WIRE_FIELDS.values(), "integrations", "hyperparameters.beta", "evalAutoCarveout") or name.startswith(
        "athanor."
    ):
        return name
    if request is not None and name in request.athanor:
        return f"athanor.{name}"
    return WIRE_FIELDS.get(name, f"athanor.{name}")
