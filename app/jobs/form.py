"""The form of a new job, drawn from TrainSpec: an empty control means what the recipe says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from starlette.datastructures import FormData

from app.i18n import _, mark, translate
from trainer import plan
from trainer.spec import TrainSpec, recipe, recipe_names, resolve

AUTO = "auto"  # how the form writes a null that a recipe does not have
GROUPS = {
    "data": mark("Data"),
    "model": mark("Model"),
    "training": mark("Training"),
    "watching": mark("Evaluation and checkpoints"),
    "hardware": mark("Hardware"),
}
SUMMARIES = {
    "data": ("sequence_length", "validation_fraction"),
    "model": ("model_type", "num_hidden_layers", "hidden_size"),
    "training": ("max_steps", "train_batch_size", "learning_rate"),
    "watching": ("eval_steps", "save_steps"),
    "hardware": ("num_processes", "zero_stage", "precision"),
}
PURPOSES = {
    "tiny": mark("Trains in a minute or two on any computer. For a first look and for trying things out."),
    "gpt2-124m": mark("The size of GPT-2 small. Wants a GPU and gigabytes of text."),
    "llama-7b": mark("The shape of Llama 7B. Wants eight large GPUs and a great deal of text."),
}
_DRAWN_APART = ("name", "recipe", "objective", "corpora", "tokenizer")


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
class Sent:
    """What a form was sent with, as text: kept when the form is drawn again."""

    fields: Mapping[str, str] = field(default_factory=dict)
    corpora: Sequence[str] = ()

    @property
    def recipe(self) -> str:
        name = self.fields.get("recipe", "")
        return name if name in recipe_names() else "tiny"


@cache
def properties() -> dict[str, dict[str, Any]]:
    """The JSON schema of each field of the spec; a nullable field has the schema of its other kind."""
    found: dict[str, dict[str, Any]] = {}
    for name, schema in TrainSpec.model_json_schema()["properties"].items():
        kinds = [kind for kind in schema.get("anyOf", []) if kind.get("type") != "null"]
        found[name] = {**schema, **(kinds[0] if kinds else {}), "nullable": bool(kinds)}
    return found


def sent(form: FormData) -> Sent:
    """A form as it arrived."""
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    return Sent(fields, [value for value in form.getlist("corpora") if isinstance(value, str)])


def given(form: Sent) -> dict[str, Any]:
    """The partial spec that a form asks for. What is no number stays text: the spec says what is wrong with it."""
    spec: dict[str, Any] = {"recipe": form.recipe}
    for name, schema in properties().items():
        text = form.fields.get(name, "")
        if name in ("recipe", "corpora") or not text.strip():
            continue
        spec[name] = _value(text.strip(), schema)
    if form.corpora:
        spec["corpora"] = list(form.corpora)
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


def groups(form: Sent, errors: Mapping[str, str]) -> list[Group]:
    """The folding groups in the order of GROUPS."""
    defaults = recipe(form.recipe)
    controls = {
        name: _control(name, schema, form.fields.get(name, ""), defaults[name], errors.get(name))
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


def _control(name: str, schema: dict[str, Any], value: str, default: Any, error: str | None) -> Control:
    choices, attrs = _choices(schema), {}
    placeholder = shown(default)
    if not choices:
        numeric = {"integer": "numeric", "number": "decimal"}.get(schema.get("type", ""))
        attrs = {"placeholder": placeholder, "inputmode": numeric, "autocomplete": "off", "spellcheck": "false"}
    help_text = translate(schema["description"])
    if schema["nullable"]:
        help_text += " " + _("“auto” leaves it open.")
    return Control(
        name=name,
        label=translate(schema["title"]),
        help=help_text,
        kind="select" if choices else "text",
        value=value,
        placeholder=placeholder,
        error=error,
        choices=choices,
        attrs=attrs,
    )


def _choices(schema: dict[str, Any]) -> list[tuple[str, str]]:
    if schema.get("type") == "boolean":
        return [("true", shown(True)), ("false", shown(False))]
    return [(str(choice), str(choice)) for choice in schema.get("enum", [])]


def shown(value: Any) -> str:
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
    spec = resolve({"recipe": name, "corpora": ["any"]})
    cost = plan.plan(spec, spec.vocab_size or plan.choose_vocab_size(0), None, None)
    defaults = {key: shown(value) for key, value in recipe(name).items()}
    return RecipeCard(
        name, translate(PURPOSES[name]), cost.num_parameters, spec.num_processes, cost.memory_bytes, defaults
    )
