"""What is wrong with a spec, field by field, in sentences that can be translated. Pydantic only."""

from typing import Any

from pydantic import BaseModel


class SpecError(ValueError):
    """A spec that no job can have: one `SpecProblem` for each wrong field."""

    def __init__(self, problems: "list[SpecProblem]") -> None:
        super().__init__("; ".join(f"{p.field} {p.message.format(**p.values)}" for p in problems))
        self.problems = problems


class SpecProblem(BaseModel):
    """What is wrong with one field: an English sentence without its subject, its numbers kept apart for translation."""

    field: str
    message: str
    values: dict[str, Any] = {}


class _FieldError(ValueError):
    def __init__(self, problem: SpecProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def field_error(name: str, message: str, **values: Any) -> _FieldError:
    """What a field cannot be beside the others."""
    return _FieldError(SpecProblem(field=name, message=message, values=values))


def round_up_to_multiple(value: int, of: int) -> int:
    """The next one that is not smaller."""
    return -(-value // of) * of


# pydantic's error types in our words; {numbers} come from pydantic's context.
MESSAGES = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of a spec; see the list of fields in the API reference",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    # A field of a spec has two bounds; the broken one comes first.
    "greater_than_equal le": "must be at least {ge} and at most {le}, but is {given}",
    "greater_than_equal lt": "must be at least {ge} and less than {lt}, but is {given}",
    "greater_than le": "must be greater than {gt} and at most {le}, but is {given}",
    "less_than_equal ge": "must be at most {le} and at least {ge}, but is {given}",
    "less_than_equal gt": "must be at most {le} and greater than {gt}, but is {given}",
    "less_than ge": "must be less than {lt} and at least {ge}, but is {given}",
    "literal_error": "must be one of {expected}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "list_type": "must be a list",
    "too_short": "needs at least {min_length} entry",
    "too_long": "takes at most {max_length} entries",
}


def _bounds(name: str, model: type[BaseModel]) -> dict[str, float]:
    """The least and the greatest that a field takes, by how pydantic names them: ge, gt, le, lt."""
    if name not in model.model_fields:
        return {}
    limits = model.model_fields[name].metadata
    return {kind: getattr(limit, kind) for limit in limits for kind in ("ge", "gt", "le", "lt") if hasattr(limit, kind)}


def from_pydantic_error(detail: Any, model: type[BaseModel]) -> SpecProblem:
    """One of pydantic's errors in our words."""
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, _FieldError):
        return cause.problem
    name = ".".join(str(part) for part in detail["loc"]) or "spec"
    context = {k: v for k, v in detail.get("ctx", {}).items() if isinstance(v, str | int | float)}
    other = next((bound for bound in _bounds(name, model) if f"{detail['type']} {bound}" in MESSAGES), None)
    if other is not None:
        values = {**context, **_bounds(name, model), "given": detail["input"]}
        return SpecProblem(field=name, message=MESSAGES[f"{detail['type']} {other}"], values=values)
    if detail["type"] not in MESSAGES:
        return SpecProblem(field=name, message="is not valid: {why}", values={"why": detail["msg"]})
    return SpecProblem(field=name, message=MESSAGES[detail["type"]], values=context)
