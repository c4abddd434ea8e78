"""The closing report of a sandboxed child that reads what users bring: its result, or its error as a problem."""

import logging
from collections.abc import Callable
from typing import Any

from worker.sandbox.disk_space import storage_problem
from worker.sandbox.model_import.safetensors_scan import InvalidModel

log = logging.getLogger(__name__)

MAX_WHY = 200  # characters of a library's message


def closing_report(work: Callable[[], dict[str, Any]], memory: int) -> dict[str, Any]:
    """What `work` returns as `result`, or its error as the problem of `failed`. `memory`: the bytes that it may use."""
    try:
        return {"result": work()}
    except InvalidModel as unsound:
        problem = unsound.problem
    except MemoryError:
        problem = {"code": "out_of_memory", "limit_bytes": memory}
    except OSError as error:
        problem = storage_problem(error)
    except Exception as error:  # whatever a strange file makes of the libraries: its text may be anything
        log.exception("the import failed")
        problem = {"code": "unforeseen", "why": type(error).__name__}
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a library in Rust, which is no Exception
            raise
        log.exception("a library crashed")
        problem = {"code": "tokenizer_crashed", "why": " ".join(str(error).split())[:MAX_WHY]}
    return {"failed": {"problems": [problem]}}
