"""The form of a new job as a browser sees it: what it would send, what could be chosen, which sentences stand where."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class HtmlForm(HTMLParser):
    """Parses the page of the form. `sent` is what a browser would send: enabled controls by name."""

    sent: dict[str, list[str]] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    placeholders: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    note: str = ""
    has_plan: bool = False
    _is_inside: bool = False
    _select: str | None = None
    _textarea: str | None = None
    _text_of: str | None = None

    @classmethod
    def of(cls, html: str) -> "HtmlForm":
        """The form in a page."""
        form = cls()
        HTMLParser.__init__(form)
        form.feed(html)
        return form

    def value(self, name: str) -> str:
        """What a control would send; an empty string where it sends nothing."""
        return self.sent.get(name, [""])[0]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a control, or where a sentence begins."""
        values = {name: value or "" for name, value in attrs}
        name = values.get("name", "")
        if tag == "form":
            self._is_inside = values.get("id") == "job-form"
        if not self._is_inside:
            return
        if tag in ("input", "select", "textarea") and "disabled" in values:
            self.disabled.add(name)
        elif tag == "input" and ("checked" in values or values.get("type") not in ("checkbox", "radio")):
            self.sent.setdefault(name, []).append(values.get("value", ""))
        elif tag == "textarea":
            self.sent[name] = [""]
            self._textarea = name
        if tag in ("input", "textarea") and "placeholder" in values:
            self.placeholders[name] = values["placeholder"]
        if tag == "select":
            self._select = name
        if tag == "option" and self._select is not None:
            self._option(self._select, values)
        if "data-figures" in values:
            self.has_plan = True
        if "data-note" in values or values.get("class") == "error":
            self._text_of = values.get("id", "note")

    def _option(self, select: str, values: dict[str, str]) -> None:
        is_first = select not in self.options
        self.options.setdefault(select, []).append(values["value"])
        if select not in self.disabled and (is_first or "selected" in values):
            self.sent[select] = [values["value"]]

    def handle_endtag(self, tag: str) -> None:
        """Note where a control or a sentence ends."""
        if tag == "select":
            self._select = None
        if tag == "textarea":
            self._textarea = None
        if tag == "p":
            self._text_of = None

    def handle_data(self, data: str) -> None:
        """Collect the text of a sentence or of a control with several lines, which starts after a line break."""
        if self._textarea is not None:
            self.sent[self._textarea] = [data.removeprefix("\n")]
        elif self._text_of == "note":
            self.note += data.strip()
        elif self._text_of is not None:
            name = self._text_of.removeprefix("field-").removesuffix("-error")
            self.errors[name] = self.errors.get(name, "") + data.strip()
