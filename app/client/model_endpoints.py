"""Models elsewhere, behind APIs like OpenAI's, that can write records."""

from collections.abc import Iterator
from typing import Required, TypedDict, Unpack

from .synthetic_shapes import EndpointInfo
from .transport import Transport, address


class EndpointFields(TypedDict, total=False):
    """The fields of an endpoint. Prices are per million tokens; without a key it keeps its own, or has none."""

    name: Required[str]
    base_url: Required[str]
    model: Required[str]
    api_key: str | None
    input_price: float | None
    output_price: float | None


class ModelEndpoints:
    """Your model endpoints."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, limit: int = 50) -> Iterator[EndpointInfo]:
        """Your endpoints, newest first, read in pages of `limit`."""
        return self._transport.pages(EndpointInfo, "/model-endpoints", limit=limit)

    def get(self, endpoint_id: str) -> EndpointInfo:
        """An endpoint, without its key."""
        return self._transport.get(EndpointInfo, address("model-endpoints", endpoint_id))

    def create(self, **fields: Unpack[EndpointFields]) -> EndpointInfo:
        """Add a model: its `base_url` is the address before /chat/completions."""
        return self._transport.post(EndpointInfo, "/model-endpoints", {**fields})

    def change(self, endpoint_id: str, **fields: Unpack[EndpointFields]) -> EndpointInfo:
        """Replace the fields of an endpoint. Another `base_url` needs its key again."""
        return self._transport.put(EndpointInfo, address("model-endpoints", endpoint_id), {**fields})

    def delete(self, endpoint_id: str) -> None:
        """Delete an endpoint. What it wrote stays."""
        self._transport.delete(address("model-endpoints", endpoint_id))
