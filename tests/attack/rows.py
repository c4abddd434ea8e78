"""All attacks: each of the modules adds its own to the list when it is imported."""

from tests.attack import api_cases, encodings, floods, requests, rights, streams, uploads  # noqa: F401
from tests.attack.attacks import ATTACKS

__all__ = ["ATTACKS"]
