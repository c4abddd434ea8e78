"""Headers in which a client lists what it takes, each with a weight: `zh, en;q=0.8, *;q=0` (RFC 9110, 12.4.2)."""

import re

_WEIGHT = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def header_weights(header: str) -> dict[str, float]:
    """The weight of each entry, in small letters, the heaviest first; one that is malformed counts as 0, not taken."""
    weights = {}
    for entry in header.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        weight = next((text for text in parameters if text.startswith("q=")), "q=1")
        match = _WEIGHT.fullmatch(weight)
        weights[name] = float(match[1]) if match else 0.0
    return dict(sorted(weights.items(), key=lambda item: -item[1]))
