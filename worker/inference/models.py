"""The models that an inference process keeps in memory, each with processes for its tokenizer, and its memory limit."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from trainer.child_limits import data_bytes, limit_memory
from trainer.data import chat_template
from trainer.data.tokenizer_process import IsStopped, TokenizerProcess
from trainer.inference import generation
from trainer.inference.generation import TokenDecoder, context_of, require_length

log = logging.getLogger(__name__)

MODELS_KEPT = 2
# The memory limit on a CPU, as a multiple of the files of each model: they are mapped, 16-bit weights become fp32, and
# a copy of a tensor is made on the way. To it come the KV cache of each generation and a margin for everything else.
LIMIT_PER_FILE_BYTE = 4
MARGIN_BYTES = 4 << 30


class GenerationRefused(Exception):
    """A generation is impossible: `code` is one of app/playground/failures.py."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.code = code
        self.values = values


@dataclass(frozen=True)
class SandboxedModel:
    """A model in this process with its tokenizer in another, for one generation (generation.TextModel).

    Whatever asks the tokenizer raises RecordRefused, and CallStopped once `is_stopped`.
    """

    model: PreTrainedModel
    process: TokenizerProcess
    is_stopped: IsStopped

    @property
    def stop_token_ids(self) -> set[int]:
        """The tokens that end a text."""
        return set(chat_template.stop_token_ids(self.model, self._call("stop_ids")))

    def encode(self, prompt: str | list[int]) -> list[int]:
        """The prompt's tokens. Raises PromptTooLong."""
        ids: list[int] = self._call("prompt", prompt) if isinstance(prompt, str) else prompt
        require_length(self.model, ids)
        return ids

    def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """The tokens of a conversation up to the answer."""
        ids: list[int] = self._call("chat", messages)
        return ids

    def detokenizer(self, prompt: Sequence[int]) -> TokenDecoder:
        """A decoder of the tokens that follow a prompt."""
        self._call("begin", prompt)
        return _Detokenizer(self._call)

    def _call(self, name: str, *arguments: Any) -> Any:
        return self.process.call(name, *arguments, is_stopped=self.is_stopped)


@dataclass(frozen=True)
class _Detokenizer:
    call: Callable[..., Any]

    def push(self, token: int) -> str:
        """Add a token. Returns the text that is certain now."""
        return str(self.call("push", token))

    def rest(self, *, is_cut: bool = False) -> str:
        """The text still held at the end."""
        return str(self.call("rest", is_cut))


@dataclass
class _Model:
    path: Path
    num_file_bytes: int
    loading: threading.Lock = field(default_factory=threading.Lock)
    network: PreTrainedModel | None = None
    processes: list[TokenizerProcess] = field(default_factory=list)  # that no generation uses
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)

    @property
    def num_bytes(self) -> int:
        """What it needs: on a CPU 16-bit weights become fp32, twice the size; the rest is for KV cache and logits."""
        return int(2.5 * self.num_file_bytes)

    @property
    def limit_bytes(self) -> int:
        """What it may use at most."""
        cache = _cache_bytes(self.network) if self.network is not None else 0
        return LIMIT_PER_FILE_BYTE * self.num_file_bytes + self.users * cache

    def close(self) -> None:
        """End its processes."""
        for process in self.processes:
            process.close()


class Models:
    """The models in memory: those in use and the most recently used."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._models: dict[Path, _Model] = {}
        self._base_bytes = data_bytes()
        self.memory_limit = 0  # of this process, in bytes, or 0

    @contextmanager
    def acquire(self, path: Path, is_stopped: IsStopped) -> Iterator[SandboxedModel]:
        """The model of a checkpoint, loaded at first use and not dropped inside the block. Raises GenerationRefused."""
        if not path.is_dir():
            raise GenerationRefused("checkpoint_gone")
        with self._lock:
            model = self._models.setdefault(path, _Model(path, _num_file_bytes(path)))
            model.users += 1
            process = model.processes.pop() if model.processes else TokenizerProcess(path)
            self._limit_memory()
        try:
            with model.loading:
                if model.network is None:
                    self._evict_idle(model)
                    model.network = self._load(path)
            with self._lock:
                self._limit_memory()
            yield SandboxedModel(model.network, process, is_stopped)
        except BaseException:
            process.close()  # it may be in the middle of an answer
            raise
        else:
            model.processes.append(process)
        finally:
            self._release(model)

    def _release(self, model: _Model) -> None:
        with self._lock:
            model.users -= 1
            model.used_at = time.monotonic()
            if model.network is None and not model.users:
                self._drop(model)
            self._limit_memory()

    def _drop(self, model: _Model) -> None:
        del self._models[model.path]
        model.close()

    def _evict_idle(self, incoming: _Model) -> None:
        with self._lock:
            while len(self._models) > MODELS_KEPT or _free_bytes(self._device) < incoming.num_bytes:
                idle = [model for model in self._models.values() if not model.users]
                if not idle:
                    break
                self._drop(min(idle, key=lambda model: model.used_at))
                gc.collect()
        free = _free_bytes(self._device)
        if free < incoming.num_bytes:
            raise GenerationRefused("memory_short", free=free, needed=incoming.num_bytes)

    def _load(self, path: Path) -> PreTrainedModel:
        try:
            return generation.load_model(path, self._device)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if is_memory_error(error):
                raise
            log.warning("checkpoint %s cannot be opened: %s", path, error)
            raise GenerationRefused("checkpoint_broken") from error

    def _limit_memory(self) -> None:
        """Limit the memory of this process to what its models may use, on a CPU: a GPU's driver maps what it likes."""
        if self._device != "cpu":
            return
        models = sum(model.limit_bytes for model in self._models.values())
        self.memory_limit = self._base_bytes + MARGIN_BYTES + models
        limit_memory(self.memory_limit)


def is_memory_error(error: BaseException) -> bool:
    """Whether an allocation failed, in Python or in torch."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def _cache_bytes(network: PreTrainedModel) -> int:
    """The KV cache of one generation that fills the context: keys and values of each layer, fp32."""
    config = network.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * 4 * config.num_hidden_layers * heads * width * context_of(network))


def _num_file_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def _free_bytes(device: str) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device != "cpu" else int(psutil.virtual_memory().available)
