"""Models that share weights: copies of one, and LoRA checkpoints of one base. Imports torch, transformers and peft.

See docs/decisions/0043-adapters-share-their-base.md.
"""

import copy
import json
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from trainer.modeling import lora
from trainer.modeling.base_identity import base_sha256
from trainer.run_dir import MANIFEST, RunDir

# What a job writes into the configuration of its base: which tokens mean what, and notes that no network reads.
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_NOTES = ("_name_or_path", "dtype", "transformers_version", "use_cache", *_TOKENS)


def copy_sharing_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A model with the same tensors and a configuration of its own, which can be changed while others use the first."""
    tensors = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def shared_base(checkpoint: Path) -> Path | None:
    """The base model whose weights a checkpoint of a LoRA job can share, so that only its adapter takes memory.

    None for checkpoints of other jobs, and where the base is gone, has changed, or is another network, as that of a
    classifier: their own weights, which are complete, have to be opened. Reads all of a base once.
    """
    try:
        run_dir = RunDir(checkpoint.parents[1])
        if run_dir.spec().tuning != "lora":  # qlora trained next to four-bit weights, which the base's are not
            return None
        base = Path(run_dir.inputs(int(checkpoint.name.rpartition("-")[2])).base or "")
        adapter = json.loads((checkpoint / lora.DIRECTORY / "adapter_config.json").read_text())
        if adapter["modules_to_save"] or _network(checkpoint) != _network(base):
            return None
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        return base if manifest["base_sha256"] == _identity(base) else None
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _network(directory: Path) -> dict[str, Any]:
    """What the configuration of a model says about its network."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True).to_dict()
    return {name: value for name, value in config.items() if name not in _NOTES}


_identity = lru_cache(maxsize=64)(base_sha256)  # a directory never changes: another base has another one


def with_adapter(base: PreTrainedModel, checkpoint: Path) -> PreTrainedModel:
    """A LoRA checkpoint: the tensors of its base, and its adapter. Raises ValueError if the adapter does not fit."""
    model = copy_sharing_weights(base)
    lora.add_saved_adapter(model, checkpoint / lora.DIRECTORY)
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    for name in _TOKENS:
        setattr(model.config, name, getattr(config, name))
    model.generation_config = GenerationConfig.from_pretrained(checkpoint, local_files_only=True)
    return model.eval()
