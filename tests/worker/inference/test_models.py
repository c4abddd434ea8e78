"""LoRA checkpoints of one base share its weights: the texts are those of the merged weights, the memory is base plus
adapters.
"""

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.trainer.adapters import AdaptedModels, train_adapters
from tests.trainer.gangs import GangForkServer
from trainer.inference import generation
from trainer.inference.engine import create_engine
from trainer.inference.sampling import SamplingSettings
from trainer.inference.shared_weights import shared_base
from trainer.run_dir import RunDir, write_atomically
from worker.inference.models import LIBRARY_BYTES, TOKENIZER_BYTES, Models, SandboxedModel

TOLERANCE = 1e-4  # of logits: the merged weights were rounded once, to fp32
PROMPTS = [list(range(start, start + length)) for start in (5, 40, 90) for length in (3, 11, 20)]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdaptedModels]:
    """Three LoRA checkpoints of one base, trained in fp32."""
    gangs = GangForkServer()
    yield train_adapters(gangs, tmp_path_factory.mktemp("runs"), precision="fp32")
    gangs.close()


@pytest.fixture
def models() -> Iterator[Models]:
    models = Models("cpu")
    yield models
    for model in models._models.values():
        model.close()
    models._reservation.close()


def acquire(models: Models, paths: Iterable[Path], stack: ExitStack) -> list[SandboxedModel]:
    return [stack.enter_context(models.acquire(path, lambda: False)) for path in paths]


def num_bytes(modules: Iterable[nn.Module]) -> int:
    """The memory of all tensors, each counted once."""
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def logits(model: nn.Module, prompt: list[int]) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(torch.tensor([prompt])).logits[0]
    return result


def write(engine: Any, prompt: list[int]) -> list[int]:
    text = engine.submit(prompt, SamplingSettings(temperature=0), max_tokens=12, stop_token_ids=frozenset())
    return [choice.token for choice in text]


def test_adapters_write_the_texts_of_merged_weights(adapted: AdaptedModels, models: Models) -> None:
    first_logits = []
    for checkpoint in adapted.checkpoints:
        merged = generation.load_model(checkpoint, "cpu")
        alone = create_engine(merged)
        with models.acquire(checkpoint, lambda: False) as model:
            for prompt in PROMPTS:
                assert torch.allclose(logits(model.model, prompt), logits(merged, prompt), atol=TOLERANCE)
            first_logits.append(logits(model.model, PROMPTS[0]))
            assert [write(model.engine, prompt) for prompt in PROMPTS] == [write(alone, prompt) for prompt in PROMPTS]
            assert model.stop_token_ids == {merged.generation_config.eos_token_id}
        alone.close()
    for one, other in itertools.combinations(first_logits, 2):
        assert (one - other).abs().max() > 10 * TOLERANCE, "the adapters matter"


def test_n_adapters_take_the_memory_of_the_base_and_n_adapters(adapted: AdaptedModels, models: Models) -> None:
    base_bytes = num_bytes([generation.load_model(adapted.base, "cpu")])
    files = [load_file(path / "adapter" / "adapter_model.safetensors") for path in adapted.checkpoints]
    adapter_bytes = sum(tensor.nbytes for file in files for tensor in file.values())
    with ExitStack() as stack:
        loaded = acquire(models, [*adapted.checkpoints, adapted.base], stack)
        engines = [model.engine.model for model in loaded]
        assert num_bytes([*engines, *(model.model for model in loaded)]) == base_bytes + adapter_bytes


def test_the_budget_of_the_node_counts_the_base_once(adapted: AdaptedModels, models: Models) -> None:
    file_bytes = sum(path.stat().st_size for path in adapted.base.glob("*.safetensors"))
    file_bytes += sum(path.stat().st_size for one in adapted.checkpoints for path in one.glob("adapter/*.safetensors"))
    with ExitStack() as stack:
        acquire(models, [adapted.base, *adapted.checkpoints], stack)
        expected = LIBRARY_BYTES + 4 * TOKENIZER_BYTES + int(2.5 * file_bytes)
        assert models._reservation.use.memory_bytes == expected


def test_the_base_leaves_the_memory_with_the_last_of_its_adapters(adapted: AdaptedModels, models: Models) -> None:
    first, second, _third = adapted.checkpoints
    with ExitStack() as stack:
        acquire(models, [first, second], stack)
    one, other = models._models[first], models._models[second]
    models._drop(one)
    assert other.weights.network is not None
    with models.acquire(second, lambda: False) as model:
        assert write(model.engine, PROMPTS[0])
    models._drop(other)
    assert other.weights.network is None


def change(directory: Path, name: str, **fields: Any) -> None:
    """Replace fields of a JSON file."""
    write_atomically(directory / name, json.dumps({**json.loads((directory / name).read_text()), **fields}))


@pytest.mark.parametrize("reason", ["base gone", "base changed", "other network", "new head", "qlora", "no inputs"])
def test_a_checkpoint_whose_base_cannot_be_shared_is_opened_by_its_own_weights(
    adapted: AdaptedModels, models: Models, tmp_path: Path, reason: str
) -> None:
    shutil.copytree(adapted.checkpoints[0].parents[1], tmp_path / "run")
    base, run = shutil.copytree(adapted.base, tmp_path / "base"), RunDir(tmp_path / "run")
    checkpoint = run.path / "checkpoints" / adapted.checkpoints[0].name
    inputs = run.inputs(1).model_copy(update={"base": str(base)})
    run.create(run.spec(), inputs, fence=1)
    assert shared_base(checkpoint) == base
    if reason == "base gone":
        run.create(run.spec(), inputs.model_copy(update={"base": str(tmp_path / "gone")}), fence=1)
    elif reason == "base changed":
        other = shutil.copytree(base, tmp_path / "other")
        shutil.copy(checkpoint / "model.safetensors", other)
        run.create(run.spec(), inputs.model_copy(update={"base": str(other)}), fence=1)
    elif reason == "other network":
        change(checkpoint, "config.json", rms_norm_eps=1e-3)
    elif reason == "new head":
        change(checkpoint / "adapter", "adapter_config.json", modules_to_save=["score"])
    elif reason == "qlora":
        change(run.path, "spec.json", tuning="qlora", precision="bf16")
    else:
        run.inputs_path(1).unlink()

    assert shared_base(checkpoint) is None
    with models.acquire(checkpoint, lambda: False) as model:
        assert write(model.engine, PROMPTS[0])
        assert not models._models[checkpoint].is_adapter
