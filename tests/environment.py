"""The environment of the tests, set when this file is imported: before anything of ours reads it."""

import os
import tempfile
from pathlib import Path

PREFIX = f"athanor-test-{os.getuid()}-"
HOME = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))  # short: sockets lie in it
VALKEY_SOCKETS = HOME / "sockets"

for name in [name for name in os.environ if name.startswith("ATHANOR_") or name == "DATABASE_URL"]:
    del os.environ[name]
os.environ.update(
    ATHANOR_DATA=str(HOME / "data"),
    REDIS_URL=f"unix://{VALKEY_SOCKETS}/valkey.sock",
    XDG_RUNTIME_DIR=str(HOME / "run"),
    ATHANOR_FP32_MATMUL="torch",  # tests compare bits of runs that share no cache
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_WAIT_POLICY="PASSIVE",  # several trainings share few cores here: spinning threads would starve each other
)
if "PYTEST_XDIST_WORKER" in os.environ:  # tests already run in as many processes as the cores can take
    os.environ["OMP_NUM_THREADS"] = "1"
