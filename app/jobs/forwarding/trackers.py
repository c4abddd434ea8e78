"""The experiment trackers that this installation forwards jobs to, from its settings."""

from dataclasses import dataclass
from importlib.util import find_spec

from app.core.settings import settings
from app.jobs.forwarding.clients.user_info import without_user_info


@dataclass(frozen=True)
class Tracker:
    """A tracker, where it is (without secrets), and the environment of the process that speaks to it (with them).

    `module` belongs to the package that the extra of this name installs.
    """

    name: str
    title: str
    module: str
    target: str
    environment: dict[str, str]
    pause_seconds: float = 0  # between batches of a job

    @property
    def is_installed(self) -> bool:
        """Whether its package is installed."""
        return find_spec(self.module) is not None


def configured() -> list[Tracker]:
    """The trackers that the settings name, whether their packages are installed or not."""
    return [tracker for tracker in (_mlflow(), _wandb(), _swanlab(), _tensorboard()) if tracker is not None]


def available() -> list[Tracker]:
    """The configured trackers whose packages are installed."""
    return [tracker for tracker in configured() if tracker.is_installed]


def _mlflow() -> Tracker | None:
    uri, experiment = settings().mlflow_tracking_uri, settings().mlflow_experiment
    if not uri:
        return None
    environment = {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "MLFLOW_TRACKING_USERNAME": settings().mlflow_username,
        "MLFLOW_TRACKING_PASSWORD": settings().mlflow_password.get_secret_value(),
        "MLFLOW_TRACKING_TOKEN": settings().mlflow_token.get_secret_value(),
        # Whoever forwards tries again, after a pause.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    used = {name: value for name, value in environment.items() if value}
    return Tracker("mlflow", "MLflow", "mlflow", _target(uri, experiment), used)


def _wandb() -> Tracker | None:
    url, project, entity = settings().wandb_base_url, settings().wandb_project, settings().wandb_entity
    if not url:
        return None
    environment = {
        "WANDB_BASE_URL": url,
        "WANDB_PROJECT": project,
        "WANDB_ENTITY": entity,
        "WANDB_API_KEY": settings().wandb_api_key.get_secret_value(),
        "WANDB_ERROR_REPORTING": "false",
    }
    used = {name: value for name, value in environment.items() if value}
    return Tracker("wandb", "Weights & Biases", "wandb", _target(url, entity, project), used, pause_seconds=15)


def _swanlab() -> Tracker | None:
    host, project, workspace = settings().swanlab_api_host, settings().swanlab_project, settings().swanlab_workspace
    if not host:
        return None
    environment = {
        "SWANLAB_API_HOST": host,
        "SWANLAB_PROJECT": project,
        "SWANLAB_WORKSPACE": workspace,
        "SWANLAB_API_KEY": settings().swanlab_api_key.get_secret_value(),
    }
    return Tracker("swanlab", "SwanLab", "httpx2", _target(host, workspace, project), environment, pause_seconds=15)


def _target(url: str, *names: str) -> str:
    return f"{without_user_info(url)} ({'/'.join(filter(None, names))})"


def _tensorboard() -> Tracker | None:
    directory = settings().tensorboard_dir
    if directory is None:
        return None
    path = str(directory.absolute())
    return Tracker("tensorboard", "TensorBoard", "tensorboardX", path, {"TENSORBOARD_DIR": path})
