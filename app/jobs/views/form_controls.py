"""The controls and recipe cards of the form for a new job, generated from TrainSpec."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from app.core.i18n import _, gettext_noop, translate
from app.jobs.planning.base_model import StartingPoint
from app.jobs.planning.validation import FIELDS_FIXED_ON_RESUME
from app.jobs.views.form import AUTO, Origin, SubmittedForm, is_searchable, properties, to_display
from trainer.families import NETWORK_FIELDS, USED_BY, USED_WITH
from trainer.planning import plan, scaling_laws
from trainer.planning.config_search import AUTO_FIELDS
from trainer.spec import example_spec, fill_from_recipe, recipe_names, replace_fields

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
# What a person wants of a model: the title of a recipe's card. The others are starting points for people who know them.
GOALS = {
    "tiny": gettext_noop("Write like my text"),
    "chat": gettext_noop("Answer in conversation"),
    "completion": gettext_noop("Follow my examples"),
    "classifier": gettext_noop("Sort into labels"),
    "seq2seq": gettext_noop("Rewrite or translate"),
    "dpo": gettext_noop("Give the better of two answers"),
    "tiny-bert": gettext_noop("Learn a language: encoder"),
    "tiny-t5": gettext_noop("Learn a language: encoder-decoder"),
    "gpt2-124m": gettext_noop("GPT-2 small from scratch"),
    "llama-7b": gettext_noop("Llama 7B from scratch"),
}
MAIN_GOALS = ("tiny", "chat", "completion", "classifier", "seq2seq", "dpo")
PURPOSES = {
    "tiny": gettext_noop("Learns to continue text as yours goes. A minute or two on any computer."),
    "gpt2-124m": gettext_noop("The size of GPT-2 small. Needs a GPU and gigabytes of text."),
    "llama-7b": gettext_noop("The shape of Llama 7B. Needs eight large GPUs and a very large corpus."),
    "tiny-bert": gettext_noop("A small encoder that learns to predict masked words. A starting point for classifiers."),
    "tiny-t5": gettext_noop(
        "A small encoder-decoder that learns to fill gaps in text. A starting point for translation and summarization."
    ),
    "seq2seq": gettext_noop("Learns to write a target from a source: translate, shorten, correct."),
    "chat": gettext_noop(
        "Learns from conversations. From scratch it answers what it was taught; a base model knows more."
    ),
    "completion": gettext_noop("Teaches a model to complete prompts as your examples do."),
    "classifier": gettext_noop("Learns to give each text one of your labels."),
    "dpo": gettext_noop("Tunes a chat model toward the answers that people prefer."),
}
OUTSIDE_GROUPS = (
    "name",
    "recipe",
    "objective",
    "corpora",
    "corpus_weights",
    "validation_corpora",
    "evaluation_corpora",
    "tokenizer",
    "base_model",
    "resume_from_checkpoint",
)
SEARCH_FIELDS = ("num_jobs", "parallel_jobs")  # of a hyperparameter search
LONG_TEXT = 1_000  # characters: what may be longer is typed into several lines
FIXED_BY_BASE = (*NETWORK_FIELDS, "vocab_size")


@dataclass(frozen=True)
class Control:
    """One field of the spec in the form. `placeholder` is the value that an empty control stands for."""

    name: str
    label: str
    help: str
    kind: str  # text, textarea or select
    value: str
    placeholder: str
    error: str | None
    choices: list[tuple[str, str]]
    attrs: dict[str, Any]
    is_hidden: bool = False  # the objective does not use it


@dataclass(frozen=True)
class Group:
    """A collapsible group of controls; `summary` lists those whose values are shown while it is closed."""

    name: str
    title: str
    controls: list[Control]
    summary: list[Control]

    @property
    def is_open(self) -> bool:
        """Whether one of its controls has a value or an error."""
        return any(control.error or control.value for control in self.controls)


@dataclass(frozen=True)
class FormContext:
    """The values of a form, its errors by field, and the checkpoint or base model that the job starts from.

    `planned` are the steps and the epochs of its plan: an empty control of the one shows what the other comes to.
    """

    form: SubmittedForm
    errors: Mapping[str, str]
    origin: Origin | None = None
    base: StartingPoint | None = None
    planned: Mapping[str, str] = field(default_factory=dict)

    @property
    def objective(self) -> str:
        """The training objective of the job."""
        return str(self.defaults["objective"])

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The values that empty controls stand for."""
        entered = {name: self.form.fields.get(name, "").strip() for name in ("max_steps", "num_train_epochs")}
        chosen = {name: text for name, text in entered.items() if text not in ("", AUTO, to_display(None))}
        if self.origin is not None:
            return replace_fields(self.origin.spec, chosen)
        start = {"base_model": self.base.id} if self.base is not None else {}
        defaults = fill_from_recipe(self.form.recipe, {**chosen, **start})
        if self.base is None:
            return defaults
        context = self.base.facts.context or defaults["sequence_length"]
        return {**defaults, **self.base.fixed, "sequence_length": min(context, defaults["sequence_length"])}

    def lock_reason(self, name: str) -> str | None:
        """Why a field cannot be changed, or None if it can."""
        if self.base is not None and name in FIXED_BY_BASE:
            return _("Set by the base model.")
        if self.origin is not None and name in FIELDS_FIXED_ON_RESUME:
            return _("Cannot be changed: the weights or the samples depend on it.")
        return None

    def default_text(self, name: str) -> str:
        """What an empty control stands for, and where that comes from."""
        if self.defaults[name] is None and name in self.planned:
            return _("{value} (from the plan)", value=self.planned[name])
        value = to_display(self.defaults[name])
        if not value:  # such as a list without entries
            return ""
        if self.origin is not None:
            return _("{value} (as before)", value=value)
        if self.base is not None and name in FIXED_BY_BASE:
            return _("{value} (base model)", value=value)
        return _("{value} (recipe)", value=value)

    def shown_fields(self) -> list[str]:
        """The fields that are visible, with their errors, on the page."""
        apart = (
            ["name", "resume_from_checkpoint", "evaluation_corpora"]
            if self.origin is not None
            else (*OUTSIDE_GROUPS, *SEARCH_FIELDS)
        )
        return [*apart, *(name for name in properties() if name not in OUTSIDE_GROUPS and self.uses(name))]

    def uses(self, name: str) -> bool:
        """Whether the job uses a field, or the form has a value for it."""
        if name == "new_tokens":
            return self.base is not None
        if name in USED_WITH and not self.form.fields.get(name, "").strip():
            other, values = USED_WITH[name]
            return (self.form.fields.get(other, "").strip() or self.defaults[other]) in values
        return name not in USED_BY or self.objective in USED_BY[name]


def groups(context: FormContext) -> list[Group]:
    """The collapsible groups in the order of GROUPS."""
    controls = {
        name: _control(name, schema, context) for name, schema in properties().items() if name not in OUTSIDE_GROUPS
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


def _control(name: str, schema: dict[str, Any], context: FormContext) -> Control:
    choices, is_long = _choices(name, schema), schema.get("maxLength", 0) > LONG_TEXT
    default = context.defaults[name]
    placeholder = context.planned.get(name, to_display(None)) if default is None else to_display(default)
    lock_reason = context.lock_reason(name)
    attrs: dict[str, Any] = {"disabled": True} if lock_reason else {}
    if not choices:
        numeric = {"integer": "numeric", "number": "decimal"}.get(schema.get("type", ""))
        attrs |= {"rows": 3} if is_long else {}
        attrs |= {
            "placeholder": context.default_text(name),
            "inputmode": numeric,
            "autocomplete": "off",
            "spellcheck": "false",
        }
    return Control(
        name=name,
        label=translate(schema["title"]),
        help=lock_reason or _help(name, schema),
        kind="select" if choices else "textarea" if is_long else "text",
        value="" if lock_reason else context.form.fields.get(name, ""),
        placeholder=placeholder,
        error=context.errors.get(name),
        choices=[("", context.default_text(name)), *choices] if choices else [],
        attrs=attrs,
        is_hidden=not context.uses(name),
    )


def _help(name: str, schema: dict[str, Any]) -> str:
    text = translate(schema["description"])
    if name in AUTO_FIELDS:
        return text + " " + _("“auto” chooses the fastest setting that fits.")
    return text + " " + _("“auto” means null in the API.") if schema["nullable"] else text


def _choices(name: str, schema: dict[str, Any]) -> list[tuple[str, str]]:
    """The options of a select; empty for a text field."""
    if schema.get("type") == "boolean":
        choices = [("true", to_display(True)), ("false", to_display(False))]
    else:
        choices = [(str(choice), to_display(choice)) for choice in schema.get("enum", [])]
    return [(AUTO, _("auto (recommended)")), *choices] if choices and name in AUTO_FIELDS else choices


def searchable_fields(context: FormContext) -> list[tuple[str, str]]:
    """The fields that a hyperparameter search can vary, with their titles."""
    return [
        (name, translate(schema["title"]))
        for name, schema in properties().items()
        if name not in OUTSIDE_GROUPS
        and context.uses(name)
        and context.lock_reason(name) is None
        and is_searchable(name)
        and schema.get("maxLength", 0) <= LONG_TEXT
    ]


@dataclass(frozen=True)
class RecipeCard:
    """A recipe in the form, with its cost on one process."""

    name: str
    goal: str
    purpose: str
    is_main: bool
    num_parameters: int
    num_processes: int
    memory_bytes: int


def recipe_cards() -> list[RecipeCard]:
    """All recipes with their cost: first those for what people want, in the order of GOALS."""
    names = sorted(recipe_names(), key=list(GOALS).index)
    return [
        RecipeCard(name, translate(GOALS[name]), translate(PURPOSES[name]), name in MAIN_GOALS, *_recipe_cost(name))
        for name in names
    ]


@cache
def _recipe_cost(name: str) -> tuple[int, int, int]:
    """The number of parameters of a recipe, its processes, and the bytes of memory that each takes."""
    spec = example_spec(name)
    cost = plan.plan(spec, spec.vocab_size or scaling_laws.choose_vocab_size(0), None, None)
    return cost.num_parameters, spec.num_processes, cost.memory_bytes
