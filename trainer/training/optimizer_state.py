"""The optimizer's state as complete tensors by parameter name, independent of the ZeRO stage and the number of ranks.

`resume/optimizer-<rank>-<n>.safetensors` holds `exp_avg.<name>` and `exp_avg_sq.<name>` for each parameter,
`momentum_buffer.<name>` for one that Muon updates, and `master.<name>` if weights are trained in bf16, all in fp32.
Reading does not depend on which rank wrote which file.
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
BYTES_PER_PARAMETER = 8  # of the two moments; a run in bf16 adds 4 for the master weights


class Writer:
    """Writes this rank's share of the state in files of about MAX_FILE_BYTES, of which one is in memory at a time.

    It does not raise: gathering needs all ranks, so none may stop early. The first error is kept in `error`.
    """

    def __init__(self, directory: Path, rank: int) -> None:
        self._directory, self._rank = directory, rank
        self._pending: dict[str, Tensor] = {}
        self._size = self._count = 0
        self.error: Exception | None = None

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor, and write a file once it is large enough."""
        if self.error is not None:
            return
        self._pending[name] = tensor.contiguous()
        self._size += tensor.numel() * tensor.element_size()
        if self._size >= MAX_FILE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the tensors that were added since the last file."""
        pending = self._pending
        self._pending = {}
        self._size = 0
        if pending and self.error is None:
            self._count += 1
            try:
                save_file(pending, self._directory / f"optimizer-{self._rank}-{self._count}.safetensors")
            except (OSError, SafetensorError) as error:
                self.error = error


def tensors(engine: Engine, beat: Callable[[], None]) -> Iterator[tuple[str, Tensor]]:
    """This rank's share of the state by name, in main memory. All ranks take part and must exhaust the iterator."""
    engine.link_state()
    is_on_gpu = engine.device.type == "cuda"
    for number, (name, parameter) in enumerate(_trained(engine.model)):
        is_mine = number % engine.world_size == engine.rank
        for kind in engine.state_keys(parameter):
            tensor = engine.get_optimizer_state(parameter, kind, is_mine)
            if is_mine:
                assert tensor is not None
                # Memory that is pinned for a GPU cannot be read in a fork, so it is copied.
                yield f"{kind}.{name}", tensor.detach().to("cpu", copy=is_on_gpu)
        beat()


def write(named: Iterable[tuple[str, Tensor]], directory: Path, rank: int) -> None:
    """Write a rank's share of the state into a checkpoint. Raises its first OSError or SafetensorError at the end."""
    writer = Writer(directory / DIRECTORY, rank)
    for name, tensor in named:
        writer.add(name, tensor)
    writer.flush()
    if writer.error is not None:
        raise writer.error


def _trained(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def load_weights(model: torch.nn.Module, directory: Path, beat: Callable[[], None]) -> None:
    """Load the weights of a checkpoint into a model that is not sharded yet; with LoRA only those of the adapters.

    Raises ValueError if a weight is missing or has another shape.
    """
    is_adapted = lora.has_lora(model)
    files = opened(directory / lora.DIRECTORY if is_adapted else directory)
    with torch.no_grad():
        for parameter_name, parameter in _trained(model) if is_adapted else model.named_parameters():
            name = lora.key(parameter_name) if is_adapted else parameter_name
            if name not in files or tuple(files[name].get_slice(name).get_shape()) != tuple(parameter.shape):
                raise ValueError(f"{name} is missing in the weights or has another shape")
            if not parameter.is_meta:  # as on the other ranks, which receive the values from rank 0
                parameter.copy_(files[name].get_tensor(name))
            beat()


def load_optimizer_state(engine: Engine, directory: Path, num_updates: int, beat: Callable[[], None]) -> None:
    """Load the optimizer's state of a checkpoint into an engine, with `num_updates` as the optimizer's step count.

    Raises ValueError if a tensor is missing.
    """
    engine.init_optimizer_state(num_updates)
    files = opened(directory / DIRECTORY)
    for name, parameter in _trained(engine.model):
        for kind in engine.state_keys(parameter):
            key = f"{kind}.{name}"
            if key not in files and kind == MASTER:
                continue  # written by an fp32 run: its weights are the master copy
            if key not in files:
                raise ValueError(f"{key} is missing in the optimizer's state")
            engine.set_optimizer_state(parameter, kind, files[key].get_tensor(key))
        beat()


def flip_one_bit(model: torch.nn.Module) -> None:
    """Flip one bit in the mantissa of one weight, to test that the deviation is detected."""
    matrix = next(p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    with torch.no_grad():
        matrix.view(torch.int32).view(-1)[0] ^= 1 << 20
