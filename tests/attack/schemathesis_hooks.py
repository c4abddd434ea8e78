"""Hooks of Schemathesis: count the responses, and note those that are faults. Loaded by the program itself."""

import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis

from tests.attack.target import fault_of

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
MAX_FAULTS = 200
EVERY = 50  # responses, after which the counts are written
_lock = threading.Lock()
_statuses = Counter[str]()
_operations = set[str]()
_faults = list[str]()
_path = Path(os.environ["ATTACK_CASES"])


def write() -> None:
    """Write the counts to the file."""
    counts = {
        "cases": sum(_statuses.values()),
        "operations": len(_operations),
        "statuses": dict(_statuses),
        "faults": _faults,
    }
    temporary = _path.with_suffix(".new")
    temporary.write_text(json.dumps(counts))
    temporary.replace(_path)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count a response."""
    headers = {name.lower(): str(value) for name, value in response.headers.items()}
    fault = fault_of(response.status_code, headers)
    with _lock:
        _statuses[str(response.status_code)] += 1
        _operations.add(case.operation.label)
        if fault and len(_faults) < MAX_FAULTS:
            _faults.append(f"{case.operation.label}: {fault}")
        if sum(_statuses.values()) % EVERY == 0 or fault:
            write()


@schemathesis.hook
def after_network_error(context: Any, case: Any, request: Any) -> None:
    """Count a connection that ended without a response."""
    with _lock:
        _faults.append(f"{case.operation.label}: no response")
        write()
