"""Errors in a spec, by field, as sentences that can be translated. Pydantic only."""

from typing import Any

from pydantic import BaseModel

from trainer.formats.messages import Message, message


class SpecError(ValueError):
    """An invalid spec: `problems` has one entry for each invalid field."""

    def __init__(self, problems: "list[SpecProblem]") -> None:
        super().__init__("; ".join(f"{p.field} {p.message}" for p in problems))
        self.problems = problems


class SpecProblem(BaseModel):
    """What is wrong with one field. `message` is a sentence without its subject, the name of the field."""

    field: str
    message: Message


class _FieldError(ValueError):
    def __init__(self, problem: SpecProblem) -> None:
        super().__init__(str(problem.message))
        self.problem = problem


def field_error(name: str, template: str, **values: Any) -> _FieldError:
    """The exception for a field that contradicts others, to be raised in a validator of TrainSpec."""
    return _FieldError(SpecProblem(field=name, message=Message(code="inconsistent", template=template, values=values)))


# A template for each of pydantic's error types; the values come from pydantic's context.
MESSAGES = {
    "missing": "is missing",
    "invalid": "is not valid: {why}",
    "extra_forbidden": "is not a field of a spec; the API reference lists all fields",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    # For fields with two bounds; the violated one comes first.
    "greater_than_equal le": "must be at least {ge} and at most {le}, but is {value}",
    "greater_than_equal lt": "must be at least {ge} and less than {lt}, but is {value}",
    "greater_than le": "must be greater than {gt} and at most {le}, but is {value}",
    "less_than_equal ge": "must be at most {le} and at least {ge}, but is {value}",
    "less_than_equal gt": "must be at most {le} and greater than {gt}, but is {value}",
    "less_than ge": "must be less than {lt} and at least {ge}, but is {value}",
    "literal_error": "must be one of {expected}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "list_type": "must be a list",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
}


def _bounds(name: str, model: type[BaseModel]) -> dict[str, float]:
    """The bounds of a field by pydantic's names for them: ge, gt, le, lt."""
    if name not in model.model_fields:
        return {}
    limits = model.model_fields[name].metadata
    return {kind: getattr(limit, kind) for limit in limits for kind in ("ge", "gt", "le", "lt") if hasattr(limit, kind)}


def from_pydantic_error(detail: Any, model: type[BaseModel]) -> SpecProblem:
    """Convert one entry of `ValidationError.errors()` of a model."""
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, _FieldError):
        return cause.problem
    name = ".".join(str(part) for part in detail["loc"]) or "spec"
    code, bounds = detail["type"], _bounds(name, model)
    values = {k: v for k, v in detail.get("ctx", {}).items() if isinstance(v, str | int | float)}
    two_bounds = next((f"{code} {bound}" for bound in bounds if f"{code} {bound}" in MESSAGES), None)
    if two_bounds is not None:
        return SpecProblem(field=name, message=message(MESSAGES, two_bounds, **bounds, value=detail["input"]))
    if code not in MESSAGES:
        return SpecProblem(field=name, message=message(MESSAGES, "invalid", why=detail["msg"]))
    return SpecProblem(field=name, message=message(MESSAGES, code, **values))
