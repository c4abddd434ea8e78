"""JSONB columns whose values in Python are pydantic models, or lists and dictionaries of them."""

from typing import Any, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import Dialect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator, TypeEngine

T = TypeVar("T")


class JsonColumn(TypeDecorator[T]):
    """Stores a value of type `shape` as JSON, and validates it in both directions.

    Reading ignores keys that `shape` does not have and fills in defaults for those that are missing, so that rows of
    older and newer versions load. Writing stores only the fields that were set, unless `is_complete`. With
    `empty_is_none` an empty JSON object stands for None, in a column that is not nullable.

    Assign new values and never change one in place: SQLAlchemy does not notice that.
    """

    impl = JSONB
    cache_ok = True

    def __init__(self, shape: type[T], *, is_complete: bool = False, empty_is_none: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.is_complete = is_complete
        self.empty_is_none = empty_is_none
        self._adapter = TypeAdapter(shape)

    def process_bind_param(self, value: T | None, dialect: Dialect) -> Any:
        """The JSON to store. Raises ValidationError for a value of another shape, which SQLAlchemy wraps."""
        if value is None:
            return {} if self.empty_is_none else None
        valid = self._adapter.validate_python(value)
        return self._adapter.dump_python(valid, mode="json", exclude_unset=not self.is_complete)

    def process_result_value(self, value: Any, dialect: Dialect) -> T | None:
        """The stored value. Raises ValidationError if it does not have the shape."""
        if value is None or (self.empty_is_none and value == {}):
            return None
        return self._adapter.validate_python(value, extra="ignore" if self._forbids_extra else None)

    @property
    def _forbids_extra(self) -> bool:
        return getattr(self.shape, "model_config", {}).get("extra") == "forbid"

    def coerce_compared_value(self, op: operators.OperatorType | None, value: Any) -> TypeEngine[Any]:
        """Compare with values of the shape; index and search as in any JSONB."""
        if op in (operators.eq, operators.ne):
            return self
        return self.impl_instance.coerce_compared_value(op, value)
