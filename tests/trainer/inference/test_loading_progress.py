"""How far a model is loaded: bytes that are read, then tensors that are opened."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.inference import generation, loading_progress


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights in several files."""
    config = LlamaConfig(vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    return tmp_path


def test_progress_counts_bytes_and_then_tensors(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_progress, "CHUNK_BYTES", 10_000)
    parts: list[float] = []

    model = generation.load_model(checkpoint, "cpu", parts.append)

    num_bytes = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    reading = [part for part in parts if part < 0.5]
    assert reading[0] == pytest.approx(min(10_000, _first_size(checkpoint)) / num_bytes / 2)
    assert len(parts) - len(reading) - 1 == len(list(model.named_parameters()))
    assert parts == sorted(parts)
    assert parts[-1] == 1


def _first_size(checkpoint: Path) -> int:
    return min(checkpoint.glob("*.safetensors")).stat().st_size
