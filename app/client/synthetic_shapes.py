"""What the server answers about synthetic data: model endpoints, and records that models write."""

from datetime import datetime

from .shapes import Shape


class EndpointInfo(Shape):
    """A model behind an API like OpenAI's. Prices are per million tokens; the key is never answered."""

    id: str
    name: str
    base_url: str
    model: str
    key_hint: str
    input_price: float | None
    output_price: float | None
    created_at: datetime
