"""The optimizer's state as whole tensors by parameter name, whatever the ZeRO stage and the number of ranks.

`resume/optimizer-<rank>-<n>.safetensors` holds, for each parameter, `exp_avg.<name>` and `exp_avg_sq.<name>`, for one
that Muon moves `momentum_buffer.<name>`, and where weights are trained in bf16 also `master.<name>`, all fp32. Which
rank wrote which file means nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from trainer.engines.base import MASTER, Engine
from trainer.modeling import lora
from trainer.modeling.safetensors_files import opened

DIRECTORY = "resume"
MAX_FILE_BYTES = 2**30
BYTES_PER_PARAMETER = 8  # of the two moments; a bf16 run has 4 more


class Writer:
    """Writes this rank's share of the state, a bounded part of it in memory. Remembers the first error, raises none:
    gathering takes all ranks, so none may leave in the middle.
    """

    def __init__(self, directory: Path, rank: int) -> None:
        self._directory, self._rank = directory, rank
        self._pending: dict[str, Tensor] = {}
        self._size = self._count = 0
        self.error: Exception | None = None

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one tensor; write all that is held where it is much."""
        if self.error is not None:
            return
        self._pending[name] = tensor.contiguous()
        self._size += tensor.numel() * tensor.element_size()
        if self._size >= MAX_FILE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        pending, self._pending, self._size = self._pending, {}, 0
        if pending and self.error is None:
            self._count += 1
            try:
                save_file(pending, self._directory / f"optimizer-{self._rank}-{self._count}.safetensors")
            except (OSError, SafetensorError) as error:
                self.error = error


def tensors(engine: Engine, beat: Callable[[], None]) -> Iterator[tuple[str, Tensor]]:
    """This rank's share of the state, by name. All ranks take part, to the end."""
    engine.link_state()
    is_on_gpu = engine.device.type == "cuda"
    for number, (name, parameter) in enumerate(_trained(engine.model)):
        is_mine = number % engine.world_size == engine.rank
        for kind in engine.state_keys(parameter):
            tensor = engine.get_optimizer_state(parameter, kind, is_mine)
            if is_mine:
                assert tensor is not None
                # What is pinned for a GPU is there for no other process, not even a fork.
                yield f"{kind}.{name}", tensor.detach().to("cpu", copy=is_on_gpu)
        beat()


def write(named: Iterable[tuple[str, Tensor]], directory: Path, rank: int) -> None:
    """Write a rank's share of the state below a checkpoint. Raises, at the end, what its disk refused."""
    writer = Writer(directory / DIRECTORY, rank)
    for name, tensor in named:
        writer.add(name, tensor)
    writer.flush()
    if writer.error is not None:
        raise writer.error


def _trained(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def load_weights(model: torch.nn.Module, directory: Path, beat: Callable[[], None]) -> None:
    """Put a checkpoint's weights into a model that is not yet sharded: where it trains adapters, only what trains.

    Raises ValueError where one is missing.
    """
    is_adapted = lora.has_lora(model)
    where = opened(directory / lora.DIRECTORY if is_adapted else directory)
    with torch.no_grad():
        for trained, parameter in _trained(model) if is_adapted else model.named_parameters():
            name = lora.key(trained) if is_adapted else trained
            if name not in where or tuple(where[name].get_slice(name).get_shape()) != tuple(parameter.shape):
                raise ValueError(f"{name} is missing in the weights or has another shape")
            if not parameter.is_meta:  # the first rank's values come to the others
                parameter.copy_(where[name].get_tensor(name))
            beat()


def load_optimizer_state(engine: Engine, directory: Path, num_updates: int, beat: Callable[[], None]) -> None:
    """Put a checkpoint's optimizer state into an engine, as if it had changed the weights so many times itself."""
    engine.init_optimizer_state(num_updates)
    where = opened(directory / DIRECTORY)
    for name, parameter in _trained(engine.model):
        for kind in engine.state_keys(parameter):
            key = f"{kind}.{name}"
            if key not in where and kind == MASTER:
                continue  # written by an fp32 run: its weights are the master copy
            if key not in where:
                raise ValueError(f"{key} is missing in the optimizer's state")
            engine.set_optimizer_state(parameter, kind, where[key].get_tensor(key))
        beat()


def flip_one_bit(model: torch.nn.Module) -> None:
    """Spoil one weight by one bit of its mantissa. For tests of what notices it."""
    matrix = next(p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    with torch.no_grad():
        matrix.view(torch.int32).view(-1)[0] ^= 1 << 20
