"""The deployment files: one public port, no default password, no process as root."""

import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = ("web", "scheduler", "worker", "worker-gpu", "migrate")
FOREVER = ("web", "scheduler", "worker", "worker-gpu", "postgres", "valkey")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parents[1] / "docker-compose.yml").read_text())


def pins(root: Path, name: str = "requirements.txt") -> dict[str, str]:
    lines = (root / name).read_text().splitlines()
    parts = [line.partition("==") for line in lines if "==" in line]
    return {canonicalize_name(package): exact for package, _equals, exact in parts}


def test_compose_runs_every_part(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*OURS, "postgres", "valkey"}
    assert set(compose["volumes"]) == {"data", "postgres"}
    for name in OURS:
        assert compose["services"][name]["image"].startswith("athanor:")
        assert compose["services"][name]["build"] == "."


def test_compose_names_the_version_of_the_changelog(compose: dict[str, Any], root: Path) -> None:
    found = re.search(r"^## (\d+\.\d+\.\d+)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found
    assert {compose["services"][name]["image"] for name in OURS} == {f"athanor:{found[1]}"}


def test_compose_publishes_only_the_web_port_and_only_on_this_machine_unless_told(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"web": ["${ATHANOR_BIND:-127.0.0.1}:${ATHANOR_PORT:-8000}:8000"]}
    assert not any(service.get("network_mode") == "host" for service in compose["services"].values())


def test_compose_has_no_default_password(compose: dict[str, Any], root: Path) -> None:
    assert re.fullmatch(
        r"\$\{POSTGRES_PASSWORD:\?.+\}", compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"]
    )
    for match in re.finditer(r"\$\{(\w*PASSWORD\w*)(:\?|:-|-|\})", (root / "docker-compose.yml").read_text()):
        assert match[2] == ":?", match[0]


def test_compose_takes_servers_and_data_that_other_machines_reach(compose: dict[str, Any]) -> None:
    own_servers = {"DATABASE_URL": "@postgres/athanor}", "REDIS_URL": "redis://valkey:6379/0}"}
    for name in OURS:
        service = compose["services"][name]
        for variable, own in own_servers.items():
            assert service["environment"][variable].startswith(f"${{{variable}:-"), name
            assert service["environment"][variable].endswith(own), name
        assert service["volumes"] == ["${ATHANOR_DATA:-data}:/data"], name


def test_compose_checks_health_and_leaves_time_to_stop(compose: dict[str, Any]) -> None:
    for name in FOREVER:
        service = compose["services"][name]
        assert service["healthcheck"]["test"], name
        assert service["stop_grace_period"], name
        assert service["restart"] == "unless-stopped", name
    for name in set(OURS) - {"migrate"}:
        assert compose["services"][name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert compose["services"]["migrate"]["restart"] == "no"


def test_the_gpu_worker_waits_for_its_profile(compose: dict[str, Any]) -> None:
    service = compose["services"]["worker-gpu"]
    assert service["profiles"] == ["gpu"]
    device = service["deploy"]["resources"]["reservations"]["devices"][0]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_our_containers_cannot_gain_privileges(compose: dict[str, Any], root: Path) -> None:
    for name in OURS:
        service = compose["services"][name]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert "privileged" not in service
    stages = (root / "Dockerfile").read_text().split("\nFROM ")
    assert re.search(r"^USER (?!root|0)\w+", stages[-1], re.MULTILINE)


def test_the_image_has_no_data_and_no_secrets(root: Path) -> None:
    ignored = (root / ".dockerignore").read_text().split()
    assert {".git", ".venv", "data"} <= set(ignored)
    text = (root / "Dockerfile").read_text()
    assert not re.search(r"(ENV|ARG)\s.*(PASSWORD|SECRET|TOKEN)", text)


# ---- pins -----------------------------------------------------------------------------------------------------------


def test_every_dependency_is_pinned_to_an_allowed_version(root: Path) -> None:
    pinned = pins(root)
    for line in tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]:
        wanted = Requirement(line)
        exact = pinned[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(exact), line


def test_the_tests_run_on_the_pinned_versions(root: Path) -> None:
    for name, exact in {**pins(root), **pins(root, "requirements-dev.txt")}.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "none"
        assert found.partition("+")[0] == exact, f"{name} is {found}; run `make test`, which installs {exact}"


def test_requirements_name_no_index(root: Path) -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "Makefile", "Dockerfile", ".ci/run"):
        assert not re.search(r"https?://|--(extra-)?index-url [^\"$]", (root / name).read_text()), name


# ---- make and continuous integration --------------------------------------------------------------------------------


def test_make_help_names_existing_targets(root: Path) -> None:
    shown = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    for target in ("up", "demo", "test", "lint", "types", "bench"):
        assert f"make {target} " in shown
        subprocess.run(["make", "--dry-run", target], cwd=root, capture_output=True, check=True)


def test_continuous_integration_ends_with_the_tests(root: Path) -> None:
    text = (root / ".ci/run").read_text()
    assert "set -euo pipefail" in text
    assert text.rstrip().splitlines()[-1] == "exec make test"
    subprocess.run(["bash", "-n", root / ".ci/run"], check=True)
