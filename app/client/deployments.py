"""Deployments: models that stay in memory under a name."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict, Unpack

from .errors import DeploymentFailed
from .language import _, join_sentences
from .shapes import DeploymentInfo, HourInfo
from .transport import Transport, address
from .waiting import ignore, wait_until_ended


class DeploymentOptions(TypedDict, total=False):
    """Where a deployment is kept, and who may call it. What is left out has the server's default, or stays."""

    num_replicas: int
    nodes: Sequence[str]
    access: str
    users: Sequence[str]
    requests_per_minute: int | None


class Deployments:
    """Names under which models stay in memory and are called."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, limit: int = 50) -> Iterator[DeploymentInfo]:
        """The deployments that you may call, newest first, read in pages of `limit`."""
        return self._transport.pages(DeploymentInfo, "/deployments", limit=limit)

    def get(self, deployment_id: str) -> DeploymentInfo:
        """A deployment with its replicas and the calls of the last day."""
        return self._transport.get(DeploymentInfo, address("deployments", deployment_id))

    def find(self, name: str) -> DeploymentInfo:
        """The deployment with this name, in upper or lower case, or with this ID. Raises NotFound."""
        same = (one for one in self.list() if one.name.casefold() == name.casefold())
        return next(same, None) or self.get(name)

    def create(self, name: str, model_id: str, **settings: Unpack[DeploymentOptions]) -> DeploymentInfo:
        """Keep a checkpoint or base model in memory under a name."""
        return self._transport.post(DeploymentInfo, "/deployments", {"name": name, "model": model_id, **settings})

    def change(
        self, deployment_id: str, model_id: str | None = None, **settings: Unpack[DeploymentOptions]
    ) -> DeploymentInfo:
        """Change settings, or move the name to another model, which takes over without a gap once it is loaded."""
        body: dict[str, Any] = {**settings} if model_id is None else {"model": model_id, **settings}
        return self._transport.put(DeploymentInfo, address("deployments", deployment_id), body)

    def delete(self, deployment_id: str) -> None:
        """Remove a deployment, which frees its memory."""
        self._transport.delete(address("deployments", deployment_id))

    def usage(self, deployment_id: str, hours: int = 24) -> Iterator[HourInfo]:
        """The calls of each of the last hours that had some, oldest first."""
        return self._transport.pages(HourInfo, address("deployments", deployment_id, "usage"), hours=hours)

    def wait(self, deployment_id: str, on_change: Callable[[DeploymentInfo], None] = ignore) -> DeploymentInfo:
        """Wait until a node has loaded the model. Raises DeploymentFailed with the reason if none can."""
        deployment = wait_until_ended(lambda: self.get(deployment_id), ("loading",), on_change)
        if deployment.state == "failed":
            reasons = [replica.message for replica in deployment.replicas if replica.message]
            raise DeploymentFailed(
                _("{name} cannot be loaded: {why}", name=deployment.name, why=join_sentences(dict.fromkeys(reasons)))
            )
        return deployment
