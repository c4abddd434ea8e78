"""Every template can be read and reviewed."""

from app.core.settings import ROOT

MAX_LINE_LENGTH = 160


def test_no_line_of_a_template_is_too_long_to_read() -> None:
    too_long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "templates").rglob("*.html"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > MAX_LINE_LENGTH
    ]
    assert too_long == []
