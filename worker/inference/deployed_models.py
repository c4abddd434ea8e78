"""Keeps the models of deployments in the memory of this node's inference process, and reports how far they are."""

import logging

from sqlalchemy.exc import DBAPIError, TimeoutError

from app.core import db, storage
from app.core.settings import settings
from app.playground.deployments import replicas
from app.playground.deployments.replicas import Duty, LoadedState
from worker.inference.client import Inference

log = logging.getLogger(__name__)


class DeployedModels:
    """Called every few seconds."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._is_keeping = False

    def update(self) -> None:
        """Load what this node has to serve, free what it no longer has to, and store the states."""
        node = settings().node_name
        try:
            with db.transaction() as session:
                duties = replicas.duties(session, node)
            if duties or self._is_keeping:
                states = self._keep(duties)
                replicas.tell_percents(node, states)
                with db.transaction() as session:
                    replicas.record(session, node, duties, states)
                self._is_keeping = bool(duties)
        except (DBAPIError, TimeoutError) as error:
            log.warning("the database is unreachable; deployments stay as they are: %s", error)
        except OSError as error:
            log.warning("the inference process ended and is started again: %s", error)

    def _keep(self, duties: list[Duty]) -> dict[str, LoadedState]:
        """The states by path, relative to the data directory as in the duties."""
        directories = {str(storage.checkpoint(path)): path for duty in duties for path in duty.paths}
        states = self._inference.keep(list(directories))
        return {directories[directory]: LoadedState(*state) for directory, state in states.items()}
