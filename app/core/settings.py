"""Deployment settings, from the environment only. Each one is listed in the README."""

import os
import re
import socket
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.own_directories import make_private

ROOT = Path(__file__).parents[2]
# What a provider of logins is reached by: https, or http on this machine.
HTTPS_OR_LOOPBACK = r"https://[^\s/?#@]+(/[^\s?#]*)?|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^\s?#]*)?"


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
    oidc_issuer: str = Field(
        "",
        description="Issuer of an OpenID Connect provider that people may log in with, such as "
        "https://sso.example.com/realms/team; empty: passwords only",
    )
    oidc_client_id: str = Field("", description="ID under which the provider knows this installation")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="Secret of that client; empty: a public client")
    oidc_client_secret_file: Path | None = Field(None, description="File that holds this secret instead")
    oidc_name: str = Field("OpenID Connect", max_length=40, description="Name of the provider on the login page")
    oidc_scopes: str = Field("openid profile email", description="Scopes to ask the provider for")
    oidc_create_users: bool = Field(
        False, description="Whether people without an account get one; false: only accounts that are connected log in"
    )
    oidc_default_role: Literal["viewer", "member", "admin"] = Field(
        "viewer", description="Role of new people, and with ATHANOR_OIDC_ROLES of all whose groups name none"
    )
    oidc_allowed_domains: str = Field(
        "", description="Domains of verified e-mail addresses that may log in, comma-separated; empty: any"
    )
    oidc_groups_claim: str = Field(
        "groups", min_length=1, description="Claim that lists the groups of a person, such as realm_access.roles"
    )
    oidc_allowed_groups: str = Field("", description="Groups of which a person needs one, comma-separated; empty: any")
    oidc_roles: str = Field(
        "", description="Groups and their roles, such as `admins=admin, research=member`; empty: roles are given here"
    )
    forward_jobs: bool = Field(
        True,
        description="Whether new jobs are forwarded to the trackers below; false: only those chosen on their pages",
    )
    mlflow_tracking_uri: str = Field(
        "", description="MLflow to forward jobs to, such as https://mlflow.example.com or sqlite:////srv/mlflow.db"
    )
    mlflow_experiment: str = Field("athanor", min_length=1, description="Experiment of MLflow that gets the runs")
    mlflow_username: str = Field("", description="Name to log in to MLflow with; empty: without a login")
    mlflow_password: SecretStr = Field(SecretStr(""), description="Password for MLflow")
    mlflow_token: SecretStr = Field(SecretStr(""), description="Token for MLflow, instead of a name and a password")
    wandb_base_url: str = Field(
        "", description="Weights & Biases server to forward jobs to, such as https://api.wandb.ai; empty: none"
    )
    wandb_project: str = Field("athanor", min_length=1, description="Project of Weights & Biases that gets the runs")
    wandb_entity: str = Field("", description="User or team that the project belongs to; empty: that of the key")
    wandb_api_key: SecretStr = Field(SecretStr(""), description="API key for Weights & Biases")
    swanlab_api_host: str = Field(
        "", description="SwanLab server to forward jobs to, such as https://api.swanlab.cn; empty: none"
    )
    swanlab_project: str = Field("athanor", min_length=1, description="Project of SwanLab that gets the experiments")
    swanlab_workspace: str = Field("", description="User or team that it belongs to; empty: the user of the key")
    swanlab_api_key: SecretStr = Field(SecretStr(""), description="API key for SwanLab")
    tensorboard_dir: Path | None = Field(
        None, description="Directory that gets event files of jobs while they run, for tensorboard --logdir"
    )
    max_upload_bytes: int = Field(20 * 2**30, gt=0, description="Maximum size of an uploaded corpus")
    max_model_bytes: int = Field(100 * 2**30, gt=0, description="Maximum total size of a base model")
    hf_endpoint: str = Field(
        "https://huggingface.co",
        validation_alias=AliasChoices("hf_endpoint", "HF_ENDPOINT"),
        description="Hugging Face hub to import base models and data sets from, or a mirror",
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
    evaluate_cpu_seconds: int = Field(
        86_400, gt=0, description="CPU limit, per processor, of the process that exports or evaluates a model"
    )
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

    @field_validator("oidc_issuer")
    @classmethod
    def _check_issuer(cls, value: str) -> str:
        if value and not re.fullmatch(HTTPS_OR_LOOPBACK, value):
            raise ValueError("the issuer is an https URL without a query; http is for this machine only")
        return value

    @field_validator("oidc_roles")
    @classmethod
    def _check_roles(cls, value: str) -> str:
        for entry in filter(None, (part.strip() for part in value.split(","))):
            group, separator, role = entry.rpartition("=")
            if not separator or not group.strip() or role.strip() not in ("viewer", "member", "admin"):
                raise ValueError(f"{entry!r} is not GROUP=ROLE with one of the roles viewer, member, admin")
        return value

    @model_validator(mode="after")
    def _check_client(self) -> Self:
        if self.oidc_issuer and not self.oidc_client_id:
            raise ValueError("ATHANOR_OIDC_ISSUER needs ATHANOR_OIDC_CLIENT_ID")
        return self


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
