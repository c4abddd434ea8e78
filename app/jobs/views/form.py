"""The form of a new job, drawn from TrainSpec: an empty control means what the recipe says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from starlette.datastructures import FormData

from app.core.i18n import _, gettext_noop, translate
from app.jobs.planning.base_model import NETWORK
from app.jobs.planning.validation import FIELDS_FIXED_ON_RESUME
from trainer.planning import plan, scaling_laws
from trainer.planning.config_search import AUTO_FIELDS
from trainer.spec import TrainSpec, example_spec, recipe, recipe_names

# Fields that only some objectives use; the form draws the others for all.
USED_BY = {
    "packing": ("chat", "completion"),
    "mlm_probability": ("masked",),
    "noise_density": ("span_corruption",),
    "mean_noise_span_length": ("span_corruption",),
    "dpo_beta": ("dpo",),
    "sample_prompt": ("causal",),
}
LISTS = ("corpora", "validation_corpora")
AUTO = "auto"  # how the form writes a null that a recipe does not have
GROUPS = {
    "job": gettext_noop("Job"),
    "data": gettext_noop("Data"),
    "model": gettext_noop("Model"),
    "training": gettext_noop("Training"),
    "watching": gettext_noop("Evaluation and checkpoints"),
    "hardware": gettext_noop("Hardware"),
}
SUMMARIES = {
    "job": ("priority",),
    "data": ("sequence_length", "validation_fraction"),
    "model": ("model_type", "num_hidden_layers", "hidden_size"),
    "training": ("max_steps", "train_batch_size", "learning_rate"),
    "watching": ("eval_steps", "save_steps"),
    "hardware": ("num_processes", "zero_stage", "precision"),
}
PURPOSES = {
    "tiny": gettext_noop("Trains in a minute or two on any computer. For a first look and for trying things out."),
    "gpt2-124m": gettext_noop("The size of GPT-2 small. Wants a GPU and gigabytes of text."),
    "llama-7b": gettext_noop("The shape of Llama 7B. Wants eight large GPUs and a great deal of text."),
    "tiny-bert": gettext_noop("A small encoder that learns to find hidden words. A start for classifiers."),
    "tiny-t5": gettext_noop(
        "A small encoder-decoder that learns to fill gaps in text. A start for translating and summing up."
    ),
    "seq2seq": gettext_noop("Learns to write a target from a source: translate, shorten, correct."),
    "chat": gettext_noop("Teaches a model to answer in conversations. Best begun from a model that has read much."),
    "completion": gettext_noop("Teaches a model to complete prompts as your examples do."),
    "classifier": gettext_noop("Learns to give each text one of your labels."),
    "dpo": gettext_noop("Moves a model that answers towards the answers people prefer."),
}
_DRAWN_APART = (
    "name",
    "recipe",
    "objective",
    "corpora",
    "validation_corpora",
    "tokenizer",
    "base_model",
    "resume_from_checkpoint",
)
BASE_FIXES = (*NETWORK, "vocab_size")


@dataclass(frozen=True)
class Control:
    """One field of the spec as the form shows it. `placeholder` is what an empty control means."""

    name: str
    label: str
    help: str
    kind: str  # text or select
    value: str
    placeholder: str
    error: str | None
    choices: list[tuple[str, str]]
    attrs: dict[str, Any]
    default: str  # how a select writes its empty choice
    used_by: Sequence[str] = ()  # the objectives that use it; none: all
    is_locked: bool = False  # it may not change when a job goes on from a checkpoint


@dataclass(frozen=True)
class Group:
    """Controls that fold together; `summary` names those whose values show while it is closed."""

    name: str
    title: str
    controls: list[Control]
    summary: list[Control]

    @property
    def is_open(self) -> bool:
        return any(control.error or control.value for control in self.controls)


@dataclass(frozen=True)
class SubmittedForm:
    """What a form was sent with, as text: kept when the form is drawn again."""

    fields: Mapping[str, str] = field(default_factory=dict)
    corpora: Sequence[str] = ()
    validation_corpora: Sequence[str] = ()

    @property
    def recipe(self) -> str:
        name = self.fields.get("recipe", "")
        return name if name in recipe_names() else "tiny"


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a new job goes on from, with the job that wrote it: its spec stands for the recipe."""

    checkpoint_id: str
    step: int
    job_id: str
    job_name: str
    spec: Mapping[str, Any]
    corpora: Sequence[str] = ()  # their names
    state: str = "ready"  # of the checkpoint

    @property
    def defaults(self) -> dict[str, str]:
        """Its spec as the form writes it, for the page's script."""
        return {name: to_display(value) for name, value in self.spec.items()}


def prefill_continue(origin: Origin) -> dict[str, str]:
    """What is filled in for a job that goes on: twice the steps where all are done."""
    is_done = origin.step >= origin.spec["max_steps"]
    return {"resume_from_checkpoint": origin.checkpoint_id} | (
        {"max_steps": str(2 * origin.spec["max_steps"])} if is_done else {}
    )


def prefill_copy(spec: Mapping[str, Any]) -> SubmittedForm:
    """The form filled in with a spec: what differs from its recipe."""
    usual = recipe(spec["recipe"]) if spec["recipe"] in recipe_names() else {}
    fields = {
        name: to_form_value(value)
        for name, value in spec.items()
        if name in properties() and name not in LISTS and usual.get(name) != value
    }
    return SubmittedForm({**fields, "recipe": spec["recipe"]}, spec["corpora"], spec.get("validation_corpora", ()))


@cache
def properties() -> dict[str, dict[str, Any]]:
    """The JSON schema of each field of the spec; a nullable field has the schema of its other kind."""
    found: dict[str, dict[str, Any]] = {}
    for name, schema in TrainSpec.model_json_schema()["properties"].items():
        kinds = [kind for kind in schema.get("anyOf", []) if kind.get("type") != "null"]
        found[name] = {**schema, **(kinds[0] if kinds else {}), "nullable": bool(kinds)}
    return found


def read_form(form: FormData) -> SubmittedForm:
    """A form as it arrived."""
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    named = ([value for value in form.getlist(name) if isinstance(value, str)] for name in LISTS)
    return SubmittedForm(fields, *named)


def to_partial_spec(form: SubmittedForm) -> dict[str, Any]:
    """The partial spec that a form asks for. What is no number stays text: the spec says what is wrong with it."""
    spec: dict[str, Any] = {} if form.fields.get("resume_from_checkpoint") else {"recipe": form.recipe}
    for name, schema in properties().items():
        text = form.fields.get(name, "")
        if name in ("recipe", *LISTS) or not text.strip():
            continue
        spec[name] = _value(text.strip(), schema)
    for name in LISTS:
        if chosen := getattr(form, name):
            spec[name] = list(chosen)
    return spec


def _value(text: str, schema: dict[str, Any]) -> Any:
    if schema["nullable"] and text == AUTO:
        return None
    kinds = {"integer": int, "number": float}
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}.get(text, text)
    try:
        return kinds[schema["type"]](text) if schema.get("type") in kinds else text
    except ValueError:
        return text


def errors_by_field(fields: Sequence[Any]) -> dict[str, str]:
    """The first sentence for each field, with the field's title in place of its name."""
    found: dict[str, str] = {}
    for problem in fields:
        name = problem.field.split(".")[0]
        title = translate(properties()[name]["title"]) if name in properties() else name
        message = problem.message
        if message.startswith(problem.field + " "):
            message = title + message[len(problem.field) :]
        found.setdefault(name, message)
    return found


def groups(form: SubmittedForm, errors: Mapping[str, str], origin: Origin | None = None) -> list[Group]:
    """The folding groups in the order of GROUPS."""
    defaults = recipe(form.recipe) if origin is None else origin.spec
    base = form.fields.get("base_model", "")
    controls = {
        name: _control(name, schema, form.fields.get(name, ""), defaults[name], errors.get(name), origin, base)
        for name, schema in properties().items()
        if name not in _DRAWN_APART
    }
    return [
        Group(
            name=name,
            title=translate(title),
            controls=[c for c in controls.values() if properties()[c.name]["group"] == name],
            summary=[controls[field] for field in SUMMARIES[name]],
        )
        for name, title in GROUPS.items()
    ]


def _control(
    name: str, schema: dict[str, Any], value: str, default: Any, error: str | None, origin: Origin | None, base: str
) -> Control:
    choices, placeholder = _choices(schema), to_display(default)
    if name in AUTO_FIELDS and choices:
        choices = [(AUTO, _("auto (recommended)")), *choices]
    is_of_base = bool(base) and name in BASE_FIXES
    is_locked = is_of_base or (origin is not None and name in FIELDS_FIXED_ON_RESUME)
    attrs: dict[str, Any] = {"disabled": True} if is_locked else {}
    if not choices:
        numeric = {"integer": "numeric", "number": "decimal"}.get(schema.get("type", ""))
        attrs |= {"placeholder": placeholder, "inputmode": numeric, "autocomplete": "off", "spellcheck": "false"}
    help_text = translate(schema["description"])
    if is_of_base:
        help_text = _("The base model decides it.")
    elif is_locked:
        help_text = _("Stays as it was: the weights or the samples depend on it.")
    elif name in AUTO_FIELDS:
        help_text += " " + _("“auto” chooses what fits and is fastest.")
    elif schema["nullable"]:
        help_text += " " + _("“auto” leaves it open.")
    return Control(
        name=name,
        label=translate(schema["title"]),
        help=help_text,
        kind="select" if choices else "text",
        value="" if is_locked else value,
        placeholder=placeholder,
        error=error,
        choices=choices,
        attrs=attrs,
        default=_("{value} (as before)", value=placeholder) if origin else _("{value} (recipe)", value=placeholder),
        is_locked=is_locked,
        used_by=USED_BY.get(name, ()),
    )


def _choices(schema: dict[str, Any]) -> list[tuple[str, str]]:
    if schema.get("type") == "boolean":
        return [("true", to_display(True)), ("false", to_display(False))]
    return [(str(choice), str(choice)) for choice in schema.get("enum", [])]


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


@dataclass(frozen=True)
class RecipeCard:
    """A recipe as the form offers it. `defaults` are its fields as the form writes them, for the page's script."""

    name: str
    purpose: str
    num_parameters: int
    num_processes: int
    memory_bytes: int
    defaults: dict[str, str]


def recipe_cards() -> list[RecipeCard]:
    """Every recipe with what it costs, smallest first."""
    return [_recipe_card(name) for name in recipe_names()]


def _recipe_card(name: str) -> RecipeCard:
    fields = recipe(name)
    spec = example_spec(name)
    cost = plan.plan(spec, spec.vocab_size or scaling_laws.choose_vocab_size(0), None, None)
    defaults = {key: to_display(value) for key, value in fields.items()}
    return RecipeCard(
        name, translate(PURPOSES[name]), cost.num_parameters, spec.num_processes, cost.memory_bytes, defaults
    )
