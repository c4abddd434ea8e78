"""What a list on a page shows, as its address says: a search, filters and an order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

from app.core.principal import OwnerFilter

MAX_LENGTH = 200  # of a text
OWNERS = ("", *get_args(OwnerFilter))  # the choices of whose rows a list shows


@dataclass(frozen=True)
class ListView:
    """The values of a list's address, each with its default."""

    path: str
    values: Mapping[str, str]
    defaults: Mapping[str, str]

    @classmethod
    def of(cls, path: str, query: Mapping[str, str], orders: Sequence[str], **filters: Sequence[str]) -> "ListView":
        """From the parameters of an address or the fields of a form; what is unknown counts as left out.

        Each filter has its choices, of which the first is the default; one without choices is any text. So is `q`, the
        search.
        """
        choices = {"q": (), **filters, "order": orders}
        values = {name: _value(query.get(name, ""), options) for name, options in choices.items()}
        return cls(path, values, {name: options[0] if options else "" for name, options in choices.items()})

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def address(self, **changes: str) -> str:
        """The address of the list with these changes, also of what is no filter, such as the cursor `after`."""
        values = {**self.values, **changes}
        query = urlencode({name: value for name, value in values.items() if value != self.defaults.get(name, "")})
        return f"{self.path}?{query}" if query else self.path

    def choices(self, name: str, values: Sequence[str]) -> list[tuple[str, str]]:
        """The choices of a filter without fixed ones, each with its text: these values, and the present one."""
        return [(value, value) for value in dict.fromkeys([*values, self[name]]) if value]

    @property
    def is_narrow(self) -> bool:
        """Whether rows may be left out."""
        return any(value != self.defaults[name] for name, value in self.values.items() if name != "order")


def _value(text: str, choices: Sequence[str]) -> str:
    if choices:
        return text if text in choices else choices[0]
    return text.replace("\0", "").strip()[:MAX_LENGTH]
