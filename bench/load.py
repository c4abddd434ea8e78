"""What a hundred times loading a model, generating and dropping it leave in the memory of an inference process.

Run: PYTHONPATH=. python bench/load.py [--smoke]. A tiny Llama with its tokenizer process, as a node loads them.
"""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from app.playground.schemas import GenerationTask
from bench.support.arguments import IS_SMOKE
from trainer.data import tokenizer
from worker.inference.models import Models
from worker.inference.server import TASKS

CYCLES = 4 if IS_SMOKE else 100
WARM_UP = CYCLES // 4  # cycles after which the memory is compared


def write_model(directory: Path) -> Path:
    """A model in Hugging Face layout."""
    hf_tokenizer = tokenizer.untrained()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(hf_tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(hf_tokenizer, directory)
    return directory


def cycle(models: Models, path: Path) -> None:
    """Load the model, generate with it, and drop it."""
    models.keep([path])
    task = GenerationTask(id="bench", path=str(path), prompt="In", max_tokens=8, temperature=0)
    with models.acquire(path, lambda: False) as model:
        events = [message.event for message in TASKS[task.task](model, task)]
    assert events[-1] == "done", events
    models.keep([])


def main() -> None:
    """All cycles."""
    process = psutil.Process()
    with TemporaryDirectory() as scratch:
        path = write_model(Path(scratch) / "model")
        models, sizes = Models("cpu"), list[int]()
        begin = time.perf_counter()
        for _number in range(CYCLES):
            cycle(models, path)
            sizes.append(process.memory_info().rss)
    seconds = (time.perf_counter() - begin) / CYCLES
    after, last = sizes[WARM_UP - 1], sizes[-1]
    print(f"{CYCLES} cycles, {seconds:.2f} s each, {os.cpu_count()} cores")
    print(f"  after {WARM_UP}: {after / 1e6:.1f} MB   after {CYCLES}: {last / 1e6:.1f} MB   x{last / after:.3f}")
    print(f"  {process.num_threads()} threads, {len(process.children())} child processes")


if __name__ == "__main__":
    main()
