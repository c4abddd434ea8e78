"""Deployment settings, from the environment only. Each one is listed in the README."""

import os
import socket
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.own_directories import make_private

ROOT = Path(__file__).parents[2]


class Settings(BaseSettings):
    """The environment variable of a field is ATHANOR_<NAME>, or its usual name where it has one."""

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
    port: int = Field(8000, ge=0, le=65535, description="Port of the web process; if it is in use, the next free one")
    allowed_hosts: str = Field("", description="Additional host names that the panel accepts, comma-separated")
    webhook_hosts: str = Field(
        "", description="Hosts that webhooks and notices may reach by http or at private addresses, comma-separated"
    )
    endpoint_hosts: str = Field(
        "", description="Hosts at which model endpoints may be by http or at private addresses, comma-separated"
    )
    download_hosts: str = Field(
        "",
        description="Hosts that corpora are downloaded from, comma-separated: `data.example.org` by https at public "
        "addresses, `http://nas` by http and at private ones, `*` all public ones; empty: nothing is downloaded",
    )
    smtp_host: str = Field("", description="Mail server that sends notices; empty: no e-mail is sent")
    smtp_port: int = Field(587, ge=1, le=65535, description="Port of the mail server")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection to the mail server is encrypted; none: no password is sent"
    )
    smtp_user: str = Field("", description="Name to log in to the mail server with; empty: without a login")
    smtp_password: SecretStr = Field(SecretStr(""), description="Password for the mail server")
    smtp_sender: str = Field("", description="Address that notices are sent from")
    max_upload_bytes: int = Field(20 * 2**30, gt=0, description="Maximum size of an uploaded corpus")
    max_model_bytes: int = Field(100 * 2**30, gt=0, description="Maximum total size of a base model")
    hf_endpoint: str = Field(
        "https://huggingface.co",
        validation_alias=AliasChoices("hf_endpoint", "HF_ENDPOINT"),
        description="Hugging Face hub to import base models from, or a mirror",
    )
    hf_token: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("hf_token", "HF_TOKEN"),
        description="Access token for gated or private Hugging Face models",
    )
    hf_hub_offline: bool = Field(
        False,
        validation_alias=AliasChoices("hf_hub_offline", "HF_HUB_OFFLINE"),
        description="Do not contact a hub",
    )
    disk_reserve_bytes: int = Field(
        2**30, ge=0, description="Disk space that uploads, imports, exports and new jobs must leave free"
    )
    node_name: str = Field(default_factory=socket.gethostname, description="Name of this worker's node")
    node_slots: int = Field(1, ge=1, description="Concurrent jobs on a node without GPUs")
    fp32_matmul: Literal["auto", "torch", "onednn"] = Field(
        "auto", description="Library of fp32 matrix products on CPUs; auto: the faster one, measured once per node"
    )
    generation_slots: int = Field(16, ge=1, description="Concurrent generations on a node")
    lease_seconds: float = Field(30, gt=0, description="How long a silent attempt keeps its job")
    renew_seconds: float = Field(5, gt=0, description="How often an attempt renews its lease")
    scheduler_seconds: float = Field(5, gt=0, description="How often the scheduler runs without a notification")
    retry_seconds: float = Field(
        10, gt=0, description="Pause before a lost job or background task is retried, doubled each time"
    )
    hint_seconds: float = Field(
        10, gt=0, description="How long a placed job may go unclaimed until it is announced again"
    )
    aging_seconds: float = Field(1800, gt=0, description="How long a job waits until its priority rises one step")
    max_running_per_user: int = Field(0, ge=0, description="Concurrent jobs per user; 0: no limit")
    max_open_jobs_per_user: int = Field(1000, ge=1, description="Maximum number of unfinished jobs per user")
    stop_seconds: float = Field(30, gt=0, description="How long a cancelled trainer may take before it is killed")
    save_seconds: float = Field(60, gt=0, description="How long the trainer of a node that shuts down may take to save")
    stop_jobs: bool = Field(False, description="Save and stop the jobs when the worker stops, for containers")
    step_seconds: float = Field(60, gt=0, description="Minimum time without a step after which training counts as hung")
    first_step_seconds: float = Field(
        600,
        gt=0,
        description="Minimum time without progress outside training steps after which a job counts as hung",
    )
    stall_seconds: float = Field(
        1800, gt=0, description="How long a job may make no progress until its owner is notified"
    )
    parse_memory_bytes: int = Field(2 * 2**30, gt=0, description="Memory limit of the process that parses an upload")
    parse_cpu_seconds: int = Field(3600, gt=0, description="CPU limit of the process that parses an upload")
    clean_cpu_seconds: int = Field(86_400, gt=0, description="CPU limit of the process that cleans a corpus")
    task_memory_bytes: int = Field(
        0,
        ge=0,
        description="Memory that the background tasks, generations and previews of a node may use together; "
        "0: half of the node's",
    )
    child_processes: int = Field(
        64, ge=4, description="Processes that background tasks, generations and previews of a node may have together"
    )
    price_per_hour: float = Field(0, ge=0, description="Price of a node per hour; 0: no cost is shown")
    price_per_kwh: float = Field(0, ge=0, description="Price of energy per kWh; 0: no cost is shown")
    watts: float = Field(0, ge=0, description="Power of a GPU, or of a node without GPUs; 0: the specified value")
    currency: str = Field("", max_length=8, description="Currency of both prices, such as EUR")
    import_memory_bytes: int = Field(
        2 * 2**30, gt=0, description="Memory limit of the process that validates a base model"
    )


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()


def run_directory() -> Path:
    """Where this data directory's sockets live. Short, because a socket's path may not exceed 107 bytes.

    Raises UnsafeDirectory.
    """
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - the directory below is private
    path = base / f"athanor-{os.getuid()}-{abs(hash_path(settings().data)):x}"
    make_private(path)
    return path


def hash_path(path: Path) -> int:
    """A stable small number for a path."""
    return int.from_bytes(os.fsencode(path.resolve()), "big") % (2**31 - 1)
