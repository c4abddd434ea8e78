"""Reads the form of a new job, for its plan and its submission. An empty control means the recipe's value."""

import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import zip_longest
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import FormData

from app.core.errors import FieldError
from app.core.i18n import _, gettext_noop, translate
from trainer.formats.corpus_kinds import CORPUS_KINDS_BY_OBJECTIVE
from trainer.planning.config_search import AUTO_FIELDS
from trainer.planning.proposals import Proposal
from trainer.spec import TrainSpec, recipe, recipe_names

LISTS = ("corpora", "validation_corpora", "evaluation_corpora")
NUM_SEARCH_ROWS = 3
RANGE_DOTS = ".."  # between the ends of a range, in a control for several values
LARGEST_COUNT = 1_000  # of jobs, beyond which the form does not show the number
MAX_SEARCH_NAME = 1_000
LOG_FACTOR = 10  # a range whose end is so many times its begin is searched by its logarithm
SEPARATOR = re.compile("[,，;；]")  # of several values in one control
# How the form sends both a null and a field that Athanor chooses; it may be typed in the reader's language, too.
AUTO = "auto"
# Values of fields that are words rather than names of methods, as they are shown.
CHOICE_WORDS = {
    AUTO: gettext_noop("auto"),
    "low": gettext_noop("low"),
    "normal": gettext_noop("normal"),
    "high": gettext_noop("high"),
    "skip": gettext_noop("skip"),
    "stop": gettext_noop("stop"),
    "cosine": gettext_noop("cosine"),
    "linear": gettext_noop("linear"),
    "constant": gettext_noop("constant"),
}


@dataclass(frozen=True)
class SubmittedForm:
    """The values of a submitted form, as text. They are shown again if the form has errors."""

    fields: Mapping[str, str] = field(default_factory=dict)
    corpora: Sequence[str] = ()
    validation_corpora: Sequence[str] = ()
    evaluation_corpora: Sequence[str] = ()

    @property
    def recipe(self) -> str:
        """The name of the selected recipe; "tiny" if it is unknown."""
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

    @property
    def weights(self) -> dict[str, str]:
        """The weight of each chosen corpus, by its ID."""
        texts = [text.strip() for text in SEPARATOR.split(self.fields.get("corpus_weights", ""))]
        return dict(zip_longest(self.corpora, texts[: len(self.corpora)], fillvalue=""))


def _identifier(text: str) -> str:
    """The text as an ID that can be used in a query: PostgreSQL does not accept NUL characters."""
    return text.strip().replace("\0", "")[:64]


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a new job continues from, and its job, whose spec supplies the defaults of the form."""

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
    """The values of a form as they arrived, with the changes of the button that sent it."""
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    changes = parse_qsl(fields.pop("fix", ""), keep_blank_values=True)
    fields |= {name: value for name, value in changes if name in properties()}
    lists = [[value for value in form.getlist(name) if isinstance(value, str)] for name in LISTS]
    # Each of several corpora has a control for its weight; an empty one counts as 1 beside others.
    weights = [fields.get(f"weight-{corpus}", "").strip() for corpus in lists[0]]
    if len(weights) > 1 and any(weights):
        fields["corpus_weights"] = ", ".join(_with_point(weight) or "1" for weight in weights)
    return SubmittedForm(fields, *lists)


def _with_point(weight: str) -> str:
    """The text of one number with a point where it has a decimal comma, such as 0,5; 1,000 could be a thousand."""
    return re.sub(r"^(?![1-9]\d{0,2},\d{3}$)(\d*)[,，](\d+)$", r"\1.\2", weight)


def to_partial_spec(form: SubmittedForm) -> dict[str, Any]:
    """The fields of a spec that a form sets. Text in place of a number stays text; TrainSpec rejects it."""
    spec: dict[str, Any] = {} if form.origin_id else {"recipe": form.recipe}
    for name, schema in properties().items():
        text = form.fields.get(name, "").strip()
        if text == _("auto") and (schema["nullable"] or name in AUTO_FIELDS):
            text = AUTO
        if text and name not in ("recipe", *LISTS):
            spec[name] = _parse(text, schema)
    return spec | {name: list(ids) for name in LISTS if (ids := getattr(form, name))}


def _parse(text: str, schema: dict[str, Any]) -> Any:
    """The JSON value of a control's text. “auto” becomes null for a nullable field; others take or reject it."""
    if schema["nullable"] and text == AUTO:
        return None
    if schema.get("type") == "array":
        return [_parse(part.strip(), {"nullable": False, **schema["items"]}) for part in SEPARATOR.split(text)]
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}.get(text, text)
    number = {"integer": int, "number": float}.get(schema.get("type", ""))
    if number is None:
        return text
    try:
        return number(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class SearchRow:
    """A row of the form's hyperparameter search: the name of a field and the values to try, as text."""

    field: str
    values: str


def search_rows(form: SubmittedForm) -> list[SearchRow]:
    """The rows of the hyperparameter search, empty ones included."""
    numbers = range(1, NUM_SEARCH_ROWS + 1)
    return [
        SearchRow(form.fields.get(f"search_field_{n}", ""), form.fields.get(f"search_values_{n}", "")) for n in numbers
    ]


def search_grid(form: SubmittedForm) -> dict[str, list[Any]]:
    """The values to try of each field of the hyperparameter search that has values."""
    rows = [row for row in search_rows(form) if row.values.strip() and is_searchable(row.field) and not _range(row)]
    return {
        row.field: [
            _parse(text.strip(), properties()[row.field]) for text in SEPARATOR.split(row.values) if text.strip()
        ]
        for row in rows
    }


def search_ranges(form: SubmittedForm) -> dict[str, dict[str, Any]]:
    """The range of each field of the hyperparameter search that has one, such as 1e-4..1e-2."""
    return {row.field: bounds for row in search_rows(form) if is_searchable(row.field) and (bounds := _range(row))}


def _range(row: SearchRow) -> dict[str, Any] | None:
    begin, dots, end = row.values.replace("…", RANGE_DOTS).partition(RANGE_DOTS)
    if not dots or properties()[row.field].get("type") not in ("integer", "number"):
        return None
    try:
        low, high = float(begin), float(end)
    except ValueError:
        return None
    return {"low": low, "high": high, "is_log": low > 0 and high / low >= LOG_FACTOR}


def search_request(form: SubmittedForm) -> dict[str, Any] | None:
    """The request of a hyperparameter search, as in the API; None if the form submits one job."""
    grid, ranges = search_grid(form), search_ranges(form)
    if not grid and not ranges:
        return None
    name = form.fields.get("name", "").strip() or form.recipe
    request: dict[str, Any] = {"name": name[:MAX_SEARCH_NAME], "spec": to_partial_spec(form)}
    request |= {field: values for field, values in (("grid", grid), ("ranges", ranges)) if values}
    if sampler := form.fields.get("search_sampler", ""):
        request["sampler"] = sampler
        request |= _numbers(form, num_jobs="search_num_jobs")
    if sampler == "tpe":
        request |= _numbers(form, parallel_jobs="search_parallel_jobs")
    if form.fields.get("early_stopping") == "true":
        request["early_stopping"] = True
    return request


def _numbers(form: SubmittedForm, **controls: str) -> dict[str, Any]:
    """The fields of a request whose controls hold something: whole numbers, or the text in place of one."""
    texts = {field: form.fields.get(control, "").strip() for field, control in controls.items()}
    return {field: _parse(text, {"nullable": False, "type": "integer"}) for field, text in texts.items() if text}


def num_search_jobs(form: SubmittedForm) -> int:
    """How many jobs the form submits, as far as its controls say it."""
    request = search_request(form)
    if request is None:
        return 1
    count = request.get("num_jobs")
    if isinstance(count, int) and 0 <= count < LARGEST_COUNT:
        return count
    return math.prod(len(values) for values in request.get("grid", {}).values())


def is_searchable(field: str) -> bool:
    """Whether a hyperparameter search can vary a field: one with a single value."""
    return properties().get(field, {}).get("type") in ("integer", "number", "string", "boolean")


def without_fields(form: SubmittedForm, names: Sequence[str]) -> SubmittedForm:
    """The form with these controls emptied."""
    return replace(form, fields={name: text for name, text in form.fields.items() if name not in names})


def without_corpora(form: SubmittedForm, ids: Container[str]) -> SubmittedForm:
    """The form with these corpora deselected, to train on and to validate."""
    corpora, validation = ([corpus for corpus in getattr(form, name) if corpus not in ids] for name in LISTS[:2])
    return replace(form, corpora=corpora, validation_corpora=validation)


# ---- filling in -----------------------------------------------------------------------------------------------------


def recipe_of_kind(kind: str) -> str:
    """The first recipe that learns from what the documents of a corpus are."""
    fitting = (name for name in recipe_names() if CORPUS_KINDS_BY_OBJECTIVE[recipe(name)["objective"]][0] == kind)
    return next(fitting, "tiny")


def prefill_continue(origin: Origin) -> SubmittedForm:
    """The form that continues from a checkpoint, with twice the steps if all of them were trained."""
    fields = {"resume_from_checkpoint": origin.checkpoint_id}
    if origin.spec["max_steps"] is not None and origin.step >= origin.spec["max_steps"]:
        fields["max_steps"] = str(2 * origin.spec["max_steps"])
    return SubmittedForm(fields, evaluation_corpora=origin.spec.get("evaluation_corpora", ()))


def prefill_copy(spec: Mapping[str, Any]) -> SubmittedForm:
    """The form filled in with the fields of a spec that differ from its recipe."""
    fields = {name: text for name, text in _fields_of(spec).items() if text}
    return SubmittedForm(fields, *(spec.get(name, ()) for name in LISTS))


def with_preset(form: SubmittedForm, spec: Mapping[str, Any], kept: Container[str]) -> SubmittedForm:
    """The form with the fields of a preset in place of all its own but those that are `kept`."""
    own = {name: text for name, text in form.fields.items() if name not in properties() or name in kept}
    fields = {name: to_form_value(value) for name, value in spec.items() if name not in LISTS}
    return replace(form, fields={**own, **fields}, evaluation_corpora=spec.get("evaluation_corpora", ()))


def titled_values(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Title and value of each field of a partial spec, as the form shows them."""
    return [
        (_title(name), to_display(value)) for name, value in spec.items() if name in properties() and name not in LISTS
    ]


def with_proposal(form: SubmittedForm, proposal: Proposal) -> SubmittedForm:
    """The form with the fields of a proposal in place of its own."""
    return replace(form, fields={**form.fields, **_fields_of(proposal.fields)})


def fix_value(changes: Mapping[str, Any]) -> str:
    """What a button named `fix` sends so that a form is read with these values of a spec in place of its own."""
    return urlencode({name: to_form_value(value) for name, value in changes.items()})


def _fields_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The values of the controls for a spec; empty where they are the recipe's."""
    is_from_scratch = not spec.get("base_model")
    defaults = recipe(spec["recipe"], is_from_scratch=is_from_scratch) if spec["recipe"] in recipe_names() else {}
    fields = {
        name: "" if name in defaults and defaults[name] == value else to_form_value(value)
        for name, value in spec.items()
        if name in properties() and name not in LISTS
    }
    return {**fields, "recipe": spec["recipe"]}


def to_form_value(value: Any) -> str:
    """A value of a spec as the form sends it."""
    if value is None or isinstance(value, str):
        return AUTO if value is None else value
    return str(value).lower() if isinstance(value, bool) else to_display(value)


def to_display(value: Any) -> str:
    """A value of a spec as the form and the table of the spec show it, in the reader's language."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    word = str(AUTO if value is None else value)
    return translate(CHOICE_WORDS.get(word, word))


def to_cell(value: Any) -> str:
    """A value of a spec in a table: a dash where nothing is set."""
    return "–" if value in (None, "", []) else to_display(value)


# ---- errors ---------------------------------------------------------------------------------------------------------


def errors_by_field(problems: Sequence[FieldError], form: SubmittedForm) -> dict[str, str]:
    """The first error of each field, with the titles of fields in place of their names."""
    errors: dict[str, str] = {}
    for problem in problems:
        name = problem.field.split(".")[0]
        message = problem.message
        if message.startswith(problem.field + " "):
            message = _title(name) + message[len(problem.field) :]
        errors.setdefault(name, with_titles(message))
    if "corpora" in errors and not form.corpora:
        errors["corpora"] = _("Choose at least one corpus.")
    return errors


def with_titles(sentence: str) -> str:
    """A sentence with the titles of fields, as the form shows them, in place of their names."""
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda match: _title(match[0]), sentence)


def _title(name: str) -> str:
    return translate(properties()[name]["title"]) if name in properties() else name
