"""The page of nodes."""

import re

from starlette.testclient import TestClient

from app.core.json_shapes import GpuUsage, Telemetry
from tests.app.jobs import factories

GIB = 2**30
BAR = re.compile(r'<progress class="\w*" aria-label="([^"]+)" value="([\d.]+)" max="(\d+)">')


def test_the_use_of_a_node_is_drawn_as_its_worker_reports_it(alice: TestClient) -> None:
    telemetry = Telemetry(
        cpu_percent=31.4,
        memory_used_bytes=3 * GIB,
        disk_bytes=100 * GIB,
        disk_free_bytes=60 * GIB,
        gpus=[GpuUsage(index=1, memory_used_bytes=20 * GIB, percent=73)],
    )
    factories.node("grace", gpus=2, telemetry=telemetry)
    factories.node("ada")  # has not measured yet
    text = alice.get("/nodes").text
    assert [(label, float(value), int(total)) for label, value, total in BAR.findall(text)] == [
        ("Processors", 31.4, 100),
        ("Memory", 3 * GIB, 8 * GIB),
        ("Disk", 40 * GIB, 100 * GIB),
        ("Utilization of GPU", 73, 100),
        ("Memory of GPU", 20 * GIB, 80 * GIB),
    ]
    for words in ("31 %", "3.0 GiB used", "40.0 GiB used", "73 %", "20.0 GiB used"):
        assert words in text
    answer = alice.get("/api/v1/nodes").json()["data"][1]["telemetry"]
    assert (answer["cpu_percent"], answer["gpus"][0]["percent"], answer["disk_free_bytes"]) == (31.4, 73, 60 * GIB)
