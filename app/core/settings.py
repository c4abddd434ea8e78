"""Deployment settings, from the environment only. Each one is listed in the README."""

import os
import socket
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).parents[2]


class Settings(BaseSettings):
    """One field a setting; its environment variable is ATHANOR_<NAME>, save for those that have customary names."""

    model_config = SettingsConfigDict(
        env_prefix="ATHANOR_", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    database_url: str = Field(
        "", validation_alias=AliasChoices("database_url", "DATABASE_URL"), description="PostgreSQL; empty: embedded"
    )
    redis_url: str = Field(
        "", validation_alias=AliasChoices("redis_url", "REDIS_URL"), description="Valkey or Redis; empty: embedded"
    )
    data: Path = Field(ROOT / "data", description="Directory of corpora, runs and the embedded servers")
    host: str = Field("127.0.0.1", description="Address the web process listens on")
    port: int = Field(8000, ge=0, le=65535, description="Port of the web process; the next free one if it is taken")
    allowed_hosts: str = Field("", description="Further host names the panel answers to, comma-separated")
    max_upload_bytes: int = Field(20 * 2**30, gt=0, description="Largest corpus file taken")
    max_model_bytes: int = Field(100 * 2**30, gt=0, description="Largest base model taken, all its files together")
    hf_endpoint: str = Field(
        "https://huggingface.co",
        validation_alias=AliasChoices("hf_endpoint", "HF_ENDPOINT"),
        description="The hub that base models are imported from, or a mirror of it",
    )
    hf_token: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("hf_token", "HF_TOKEN"),
        description="Token for models that the hub does not give to everybody",
    )
    hf_hub_offline: bool = Field(
        False,
        validation_alias=AliasChoices("hf_hub_offline", "HF_HUB_OFFLINE"),
        description="This installation may not reach a hub",
    )
    disk_reserve_bytes: int = Field(2**30, ge=0, description="What a new job must leave free on the data disk")
    node_name: str = Field(default_factory=socket.gethostname, description="Name of this worker's node")
    node_slots: int = Field(1, ge=1, description="Jobs a node without GPUs runs at once")
    fp32_matmul: Literal["auto", "torch", "onednn"] = Field(
        "auto", description="Library of fp32 matrix products on CPUs; auto: the faster one, measured once per node"
    )
    generation_slots: int = Field(2, ge=1, description="Generations a node runs at once")
    lease_seconds: float = Field(30, gt=0, description="How long a silent attempt keeps its job")
    renew_seconds: float = Field(5, gt=0, description="How often an attempt renews its lease")
    scheduler_seconds: float = Field(5, gt=0, description="How often the scheduler looks without being woken")
    retry_seconds: float = Field(10, gt=0, description="Pause before a lost job is tried again, doubled each time")
    hint_seconds: float = Field(
        10, gt=0, description="How long a placed job may go unclaimed until it is announced again"
    )
    aging_seconds: float = Field(1800, gt=0, description="How long a job waits until its priority rises one step")
    max_running_per_user: int = Field(0, ge=0, description="Jobs of one user that run at once; 0: as many as fit")
    max_open_jobs_per_user: int = Field(1000, ge=1, description="Unfinished jobs that one user may have")
    stop_seconds: float = Field(30, gt=0, description="How long a cancelled trainer may take before it is killed")
    save_seconds: float = Field(60, gt=0, description="How long the trainer of a node that shuts down may take to save")
    stop_jobs: bool = Field(False, description="A worker that stops has its jobs save and stop too: for containers")
    step_seconds: float = Field(60, gt=0, description="Least time without a step after which training counts as hung")
    first_step_seconds: float = Field(
        600,
        gt=0,
        description="Least time without progress outside the training steps after which a job counts as hung",
    )
    parse_memory_bytes: int = Field(2 * 2**30, gt=0, description="Memory limit of the process that parses an upload")
    parse_cpu_seconds: int = Field(3600, gt=0, description="CPU limit of the process that parses an upload")
    price_per_hour: float = Field(0, ge=0, description="What an hour of a node costs; 0: nothing is told of cost")
    price_per_kwh: float = Field(0, ge=0, description="What energy costs; 0: nothing is told of its cost")
    watts: float = Field(0, ge=0, description="Power of a GPU, or of a node without any; 0: the maker's figure")
    currency: str = Field("", max_length=8, description="Of both prices, such as EUR")
    import_memory_bytes: int = Field(8 * 2**30, gt=0, description="Memory limit of the check of a base model")


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()


def run_directory() -> Path:
    """Where this data directory's sockets live. Short, because a socket's path may not exceed 107 bytes."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - the directory below is private
    path = base / f"athanor-{os.getuid()}-{abs(hash_path(settings().data)):x}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    assert path.stat().st_uid == os.getuid(), f"{path} belongs to another user: remove it"
    return path


def hash_path(path: Path) -> int:
    """A stable small number for a path."""
    return int.from_bytes(os.fsencode(path.resolve()), "big") % (2**31 - 1)
