"""The client of one server."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, Unpack

import httpx2

from . import generation, login
from .base_models import BaseModels
from .checkpoints import Checkpoints
from .conversations import Conversations
from .corpora import Corpora
from .deployments import Deployments
from .generation import GenerationOptions
from .job_presets import JobPresets
from .job_shapes import RecipeInfo
from .jobs import Jobs
from .lineage import Lineage
from .model_endpoints import ModelEndpoints
from .nodes import HealthInfo, JoinTokens, NodeInfo, UserUseInfo
from .notices import Notices
from .people import People
from .queue import Queue
from .record_generations import RecordGenerations
from .shapes import GenerationInfo, UserInfo
from .sharing import Sharing
from .tasks import Evaluations, Exports, Tasks
from .tokenizers import Tokenizers
from .transport import Transport, address
from .trash import Trash


class Client:
    """The REST API of a server, typed.

    `url` and `token` default to ATHANOR_URL and ATHANOR_TOKEN, then to what `athanor login` stored. Every request that
    creates something carries an Idempotency-Key; requests are repeated where the connection fails or the server says
    when to come again. Errors are exceptions below AthanorError. `transport` replaces the network in tests.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, transport: httpx2.BaseTransport | None = None
    ) -> None:
        stored = login.read(url)
        self._transport = Transport(stored.url, stored.token if token is None else token, transport=transport)
        self.corpora = Corpora(self._transport)
        self.tokenizers = Tokenizers(self._transport)
        self.models = BaseModels(self._transport)
        self.jobs = Jobs(self._transport)
        self.checkpoints = Checkpoints(self._transport)
        self.deployments = Deployments(self._transport)
        self.conversations = Conversations(self._transport)
        self.job_presets = JobPresets(self._transport)
        self.model_endpoints = ModelEndpoints(self._transport)
        self.notices = Notices(self._transport)
        self.record_generations = RecordGenerations(self._transport)
        self.tasks = Tasks(self._transport)
        self.exports = Exports(self._transport, self.tasks)
        self.evaluations = Evaluations(self._transport)
        self.queue = Queue(self._transport)
        self.people = People(self._transport)
        self.join_tokens = JoinTokens(self._transport)
        self.trash = Trash(self._transport)
        self.lineage = Lineage(self._transport)
        self.sharing = Sharing(self._transport)
        self._generator = generation.Generator(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def me(self) -> UserInfo:
        """The user of the token, and its scopes."""
        return self._transport.get(UserInfo, "/me")

    def recipes(self) -> Iterator[RecipeInfo]:
        """The ready-made specs, smallest first."""
        return self._transport.pages(RecipeInfo, "/recipes")

    def nodes(self) -> Iterator[NodeInfo]:
        """The machines that run jobs, by name."""
        return self._transport.pages(NodeInfo, "/nodes")

    def remove_node(self, name: str) -> None:
        """Remove a node that is offline and has no work from the list, until its worker reports again."""
        self._transport.delete(address("nodes", name))

    def drain_node(self, name: str) -> None:
        """Let the jobs of a node go on to their end, and place no other there. For owners."""
        self._transport.command(address("nodes", name, "drain"))

    def resume_node(self, name: str) -> None:
        """Let a drained node take jobs again. For owners."""
        self._transport.command(address("nodes", name, "resume"))

    def usage(self, limit: int = 50) -> Iterator[UserUseInfo]:
        """What you and your running jobs use of the machines now; for admins and owners, what all users do."""
        return self._transport.pages(UserUseInfo, "/usage", limit=limit)

    def health(self) -> HealthInfo:
        """The state of each part of the server, and what to do if one fails."""
        return self._transport.get(HealthInfo, "/health")

    def delete_unneeded_cache(self) -> None:
        """Delete the cached tokens and vocabularies that no unfinished job or task needs. For administrators."""
        self._transport.delete("/cache")

    def generate(
        self,
        model_id: str,
        prompt: str = "",
        *,
        messages: Sequence[Mapping[str, str]] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> GenerationInfo:
        """The text with which a checkpoint or base model continues a prompt, or answers a conversation.

        Raises GenerationFailed.
        """
        return self._generator.complete(generation.request_body(model_id, prompt, messages, options))

    def stream(
        self,
        model_id: str,
        prompt: str = "",
        *,
        messages: Sequence[Mapping[str, str]] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AbstractContextManager[Iterator[tuple[str, dict[str, Any]]]]:
        """The events of such a generation: ("waiting" | "start" | "loading" | "piece" | "done", data). Leave the block
        to stop it.

        Raises GenerationFailed.
        """
        return self._generator.stream(generation.request_body(model_id, prompt, messages, options))
