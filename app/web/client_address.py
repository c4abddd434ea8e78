"""Where a request comes from, and where it was sent."""

import ipaddress
from functools import lru_cache

from fastapi import Request

from app.core.addresses import is_loopback

NETWORK_BITS = 64  # of an IPv6 address: one customer has as many addresses


def client_address(request: Request) -> str:
    """The address of the client, from the forwarding headers of proxies that uvicorn trusts (FORWARDED_ALLOW_IPS)."""
    return request.client.host if request.client is not None else ""


def is_local(request: Request) -> bool:
    """Whether a request comes from this machine, as far as its address says."""
    address = client_address(request)
    return bool(address) and is_loopback(address)


def panel_address(request: Request) -> str:
    """The address of the panel as the client reached it."""
    return str(request.base_url).rstrip("/")


def client_network(request: Request) -> str:
    """What one client can send from, for limits by address."""
    return network_of(client_address(request))


@lru_cache(10_000)  # else a fifth of what a request costs before its turn
def network_of(address: str) -> str:
    """An IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    bits = parsed.max_prefixlen if parsed.version == 4 else NETWORK_BITS
    return str(ipaddress.ip_network((parsed, bits), strict=False))
