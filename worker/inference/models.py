"""The models that an inference process keeps in memory, each with a process for its tokenizer, and its memory limit.

The checkpoints of LoRA jobs on one base share its weights, with each other and with the base itself.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from app.core.node_budget import NoRoom, node_budget
from trainer.data import chat_template
from trainer.data.server_process import CallStopped, IsStopped
from trainer.inference import generation
from trainer.inference.engine import EngineStopped, InferenceEngine, Pause, cache_bytes, create_engine, no_pause
from trainer.inference.shared_weights import shared_base, with_adapter
from trainer.inference.text_pieces import TokenDecoder
from trainer.modeling import lora
from trainer.planning.context_length import context_length
from trainer.processes.child_limits import data_bytes, limit_memory
from worker.inference.priority import Priority
from worker.inference.shared_tokenizer import SharedTokenizer
from worker.inference.training_share import TrainingShare

log = logging.getLogger(__name__)

MODELS_KEPT = 4  # besides those of deployments
RETRY_SECONDS = 60.0
MAX_SOURCE_TOKENS = 1_024  # of an encoder-decoder, whose positions have no end
# The memory limit on a CPU, as a multiple of the files of each model: they are mapped, 16-bit weights become fp32, and
# a copy of a tensor is made on the way. To it come the KV cache of each generation and a margin for everything else.
LIMIT_PER_FILE_BYTE = 4
MARGIN_BYTES = 4 << 30
# What it reserves of the node's budget is what it is expected to use: its libraries, and the tokenizer process of each
# model with the budget of a prompt.
LIBRARY_BYTES = 1 << 30
TOKENIZER_BYTES = 512 << 20
# transformers builds a model while all modules of the process are made on the device "meta": one model at a time.
_OPENING = threading.Lock()


class GenerationRefused(Exception):
    """A generation is impossible: `code` is one of app/playground/failures.py."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.code = code
        self.values = values


@dataclass(frozen=True)
class SandboxedModel:
    """A model in this process with its tokenizer in another, for one request.

    Whatever asks the tokenizer raises RecordRefused, and CallStopped once `is_stopped`.
    """

    model: PreTrainedModel
    start_engine: Callable[[], InferenceEngine]
    tokenizer: SharedTokenizer
    is_stopped: IsStopped
    wait_for_share: Pause = no_pause

    @cached_property
    def engine(self) -> InferenceEngine:
        """What generates texts, shared by all requests. It starts at the first that asks for it."""
        return self.start_engine()

    @property
    def context(self) -> int:
        """The longest sequence that the model can read, in tokens; of an encoder-decoder, the longest source."""
        return context_length(self.model.config) or MAX_SOURCE_TOKENS

    @cached_property
    def stop_token_ids(self) -> frozenset[int]:
        """The tokens that end a text."""
        return frozenset(chat_template.stop_token_ids(self.model, self.constant("stop_ids")))

    def pause(self) -> None:
        """Sleep while trainings need the processors more. Raises CallStopped."""
        self.wait_for_share(lambda: not self.is_stopped())
        if self.is_stopped():
            raise CallStopped

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a text to continue, or of a source."""
        ids: list[int] = self.call("source" if self.model.config.is_encoder_decoder else "prompt", prompt)
        return ids

    def call(self, name: str, *arguments: Any) -> Any:
        """The result of a call of the tokenizer process."""
        return self.tokenizer.call(name, *arguments, is_stopped=self.is_stopped)

    def constant(self, name: str) -> Any:
        """The result of a call that is always the same."""
        return self.tokenizer.constant(name, self.is_stopped)

    def decoder(self, prompt: Sequence[int]) -> TokenDecoder:
        """A decoder of the tokens that follow a prompt, or of the text that an encoder-decoder writes."""
        return self.tokenizer.decoder([] if self.model.config.is_encoder_decoder else prompt, self.is_stopped)


@dataclass(eq=False)
class _Weights:
    """The weights in a directory, for one model or for the adapters of several."""

    directory: Path
    num_file_bytes: int
    loading: threading.Lock = field(default_factory=threading.Lock)
    network: PreTrainedModel | None = None
    loaded_part: float = 0.0  # while they are loaded


@dataclass
class _Model:
    path: Path
    weights: _Weights  # its own, or those of its base
    tokenizer: SharedTokenizer
    loading: threading.Lock = field(default_factory=threading.Lock)
    network: PreTrainedModel | None = None
    engine: InferenceEngine | None = None
    is_ready: bool = False  # everything that a deployment needs has been started
    leaves_when_idle: bool = False  # it was deployed until it was last used
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)

    @property
    def is_adapter(self) -> bool:
        """Whether the weights are those of its base."""
        return self.weights.directory != self.path

    @cached_property
    def num_adapter_bytes(self) -> int:
        """The size of its adapter's file."""
        return _num_file_bytes(self.path / lora.DIRECTORY) if self.is_adapter else 0

    @property
    def needed_bytes(self) -> int:
        """What it needs that is not in memory yet."""
        of_weights = self.weights.num_file_bytes if self.weights.network is None else 0
        return _expected_bytes(of_weights + self.num_adapter_bytes)

    @property
    def num_cache_bytes(self) -> int:
        """The size of its KV cache."""
        return cache_bytes(self.engine.model) if self.engine else 0

    def close(self) -> None:
        """End its generations and its process, and free its memory."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None
        self.network = None
        self.tokenizer.close()


class Models:
    """The models in memory: those in use and the most recently used."""

    def __init__(self, device: str, priority: Priority | None = None) -> None:
        self._device, self._priority = device, priority
        self._pause = TrainingShare().pause if device == "cpu" else no_pause
        self._lock = threading.Lock()
        self._models: dict[Path, _Model] = {}
        self._kept: set[Path] = set()  # for deployments
        self._failures: dict[Path, tuple[float, str]] = {}  # of kept models: when, and its code
        self._loading: set[Path] = set()  # of kept models
        self._base_bytes = data_bytes()
        self._reservation = node_budget().reserve(0)
        self.memory_limit = 0  # of this process or, with a GPU, of its memory there, in bytes

    @contextmanager
    def acquire(self, path: Path, is_stopped: IsStopped) -> Iterator[SandboxedModel]:
        """The model of a checkpoint, loaded at first use and not dropped inside the block. Raises GenerationRefused."""
        if not path.is_dir():
            raise GenerationRefused("checkpoint_gone")
        source = path if path in self._models else shared_base(path) or path
        with self._lock:
            model = self._models.get(path) or _Model(path, self._weights(source), SharedTokenizer(path))
            self._models[path] = model
            model.users += 1
            self._limit_memory()
        try:
            with self._lock:
                self._reserve()
            network = self._loaded(model, is_stopped)
            yield SandboxedModel(network, lambda: self._engine(model), model.tokenizer, is_stopped, self._pause)
        except EngineStopped:  # the next request loads the model again
            with self._lock:
                if self._models.get(path) is model:
                    del self._models[path]
            raise
        finally:
            self._release(model)

    def loading_percent(self, path: Path) -> int | None:
        """How much of the weights of a model is loaded; None if it is in memory."""
        model = self._models.get(path)
        if model is None:
            return 0
        return None if model.network is not None else int(100 * model.weights.loaded_part)

    @property
    def is_keeping(self) -> bool:
        """Whether a deployment needs this process."""
        return bool(self._kept)

    def keep(self, paths: Sequence[Path]) -> dict[Path, tuple[str, str | None, int | None]]:
        """Keep these models in memory until the next call: loading, ready or failed, with the code of the failure, and
        how many percent are loaded of one that is loading.

        Those that are not in memory are loaded in threads; a failure is tried again after RETRY_SECONDS.
        """
        with self._lock:
            dropped, self._kept = self._kept - set(paths), set(paths)
            for path, model in list(self._models.items()):
                model.leaves_when_idle = path not in paths and (model.leaves_when_idle or path in dropped)
                if model.leaves_when_idle and not model.users:
                    self._drop(model)
            states = {path: self._state(path) for path in paths}
            self._limit_memory()
            if dropped:
                with suppress(GenerationRefused):  # a model in use needs what it has
                    self._reserve()
        for path in [path for path, (state, _code, _percent) in states.items() if state == "loading"]:
            if path not in self._loading:
                self._loading.add(path)
                threading.Thread(target=self._load_kept, args=(path,), daemon=True).start()
        return states

    def _state(self, path: Path) -> tuple[str, str | None, int | None]:
        model = self._models.get(path)
        if model is not None and model.is_ready:
            return "ready", None, None
        failed_at, code = self._failures.get(path, (-RETRY_SECONDS, ""))
        if time.monotonic() - failed_at < RETRY_SECONDS:
            return "failed", code, None
        return "loading", None, self.loading_percent(path)

    def _load_kept(self, path: Path) -> None:
        try:
            with self.acquire(path, lambda: False) as model:
                if model.model.can_generate():
                    _ = model.engine, model.stop_token_ids  # waits for both
                else:
                    model.constant("vocab_size")  # waits for the tokenizer
                with self._lock:
                    self._models[path].is_ready = True
            self._failures.pop(path, None)
        except GenerationRefused as refusal:
            self._failures[path] = time.monotonic(), refusal.code
        except Exception as error:  # whatever a library makes of a strange model
            log.warning("deployed model %s cannot be loaded: %s", path, error)
            code = "memory_exceeded" if generation.is_memory_error(error) else "inference_failed"
            self._failures[path] = time.monotonic(), code
        finally:
            self._loading.discard(path)

    def _engine(self, model: _Model) -> InferenceEngine:
        with model.loading:
            if model.engine is None:
                assert model.network is not None, "it is in use"
                model.engine = create_engine(model.network, self._pause)
                with self._lock:
                    self._reserve()
                    self._limit_memory()
            return model.engine

    def _release(self, model: _Model) -> None:
        with self._lock:
            model.users -= 1
            model.used_at = time.monotonic()
            is_dropped = self._models.get(model.path) is not model
            if not model.users and (model.network is None or is_dropped or model.leaves_when_idle):
                if is_dropped:
                    model.close()
                else:
                    self._drop(model)
            self._limit_memory()
            with suppress(GenerationRefused):  # another generation needs more, and refuses it itself
                self._reserve()

    def _weights(self, directory: Path) -> _Weights:
        """The weights in a directory, which may be in memory for other models."""
        in_memory = (model.weights for model in self._models.values() if model.weights.directory == directory)
        return next(in_memory, None) or _Weights(directory, _num_file_bytes(directory))

    def _drop(self, model: _Model) -> None:
        del self._models[model.path]
        model.close()
        if all(other.weights is not model.weights for other in self._models.values()):
            model.weights.network = None

    def _evict_idle(self, incoming: _Model) -> None:
        with self._lock:
            needed = incoming.needed_bytes
            while len(self._models.keys() - self._kept) > MODELS_KEPT or _free_bytes(self._device) < needed:
                idle = [model for path, model in self._models.items() if not model.users and path not in self._kept]
                if not idle:
                    break
                self._drop_oldest(idle)
        free = _free_bytes(self._device)
        if free < needed:
            raise GenerationRefused("memory_short", free=free, needed=needed)

    def _reserve(self) -> None:
        """Reserve what the models need of the node's budget; without room drop idle ones, but none of a deployment.

        Raises GenerationRefused.
        """
        while True:
            models = list(self._models.values())
            needed = LIBRARY_BYTES + len(models) * TOKENIZER_BYTES if models else 0
            if self._device == "cpu":
                needed += _expected_bytes(self._num_file_bytes()) + self._num_cache_bytes()
            try:
                return self._reservation.resize(needed, 1 + len(models))
            except NoRoom as error:
                idle = [model for model in models if not model.users and model.path not in self._kept]
                if not idle:
                    raise GenerationRefused("memory_short", free=error.free, needed=error.needed) from None
                self._drop_oldest(idle)

    def give_way(self) -> None:
        """Drop idle models, those of deployments last, while trainings leave less memory than is reserved."""
        while node_budget().is_overdrawn():
            with self._lock:
                idle = [model for model in self._models.values() if not model.users]
                if not idle:
                    return  # when a text is over, its model is idle
                self._drop_oldest(idle)
                self._limit_memory()
                with suppress(GenerationRefused):  # a model in use needs what it has
                    self._reserve()

    def _drop_oldest(self, idle: Sequence[_Model]) -> None:
        """Drop the model that was used longest ago; one of a deployment only if there is no other."""
        self._drop(min(idle, key=lambda model: (model.path in self._kept, model.used_at)))
        gc.collect()

    def _num_file_bytes(self) -> int:
        """The size of the files of all weights and adapters."""
        models = self._models.values()
        weights = {model.weights for model in models}
        return sum(one.num_file_bytes for one in weights) + sum(model.num_adapter_bytes for model in models)

    def _num_cache_bytes(self) -> int:
        return sum(model.num_cache_bytes for model in self._models.values())

    def _loaded(self, model: _Model, is_stopped: IsStopped) -> PreTrainedModel:
        """The network of a model whose tokenizer is ready, too. From here on the calling thread computes texts."""
        is_loaded = model.network is not None and model.tokenizer.is_ready
        with nullcontext() if self._priority is None or is_loaded else self._priority.loading():
            with model.loading:
                if model.network is None:
                    model.network = self._load(model)
            if not is_loaded:
                model.tokenizer.wait_until_ready(is_stopped)
        if self._priority is not None:
            self._priority.lower()
            self._priority.lower(model.tokenizer.process_id)
        return model.network

    def _load(self, model: _Model) -> PreTrainedModel:
        weights = model.weights
        with weights.loading:
            self._evict_idle(model)
            if weights.network is None:
                weights.network = self._open(lambda: self._load_weights(weights), model.path)
            network = weights.network
        return self._open(lambda: with_adapter(network, model.path), model.path) if model.is_adapter else network

    def _load_weights(self, weights: _Weights) -> PreTrainedModel:
        def note(part: float) -> None:
            weights.loaded_part = part

        note(0.0)
        return generation.load_model(weights.directory, self._device, note)

    def _open(self, open_model: Callable[[], PreTrainedModel], path: Path) -> PreTrainedModel:
        try:
            with _OPENING:
                return open_model()
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if generation.is_memory_error(error):
                raise
            log.warning("checkpoint %s cannot be opened: %s", path, error)
            raise GenerationRefused("checkpoint_broken") from error

    def _limit_memory(self) -> None:
        """Limit the memory of this process, or that of the GPU, to what its models may use.

        With a GPU nothing limits the process itself: RLIMIT_DATA does not fit the mappings of its driver.
        """
        models = LIMIT_PER_FILE_BYTE * self._num_file_bytes() + self._num_cache_bytes()
        if self._device == "cpu":
            self.memory_limit = self._base_bytes + MARGIN_BYTES + models
            limit_memory(self.memory_limit)
        else:
            self.memory_limit = MARGIN_BYTES + models
            total = torch.cuda.mem_get_info(self._device)[1]
            torch.cuda.set_per_process_memory_fraction(min(1.0, self.memory_limit / total), self._device)


def _expected_bytes(num_file_bytes: int) -> int:
    """What weights need: on a CPU 16-bit ones become fp32, twice the size; the rest is for KV cache and logits."""
    return int(2.5 * num_file_bytes)


def _num_file_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def _free_bytes(device: str) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device != "cpu" else int(psutil.virtual_memory().available)
