"""The memory and speed of LoRA checkpoints that share their base, beside the same checkpoints with merged weights.

Run: PYTHONPATH=. python bench/adapters.py [--smoke]. A 28 M Llama with random weights, fp32, adapters of rank 16.
"""

import ctypes
import gc
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from bench.support.arguments import IS_SMOKE
from trainer.inference.engine import create_engine
from trainer.inference.sampling import SamplingSettings
from trainer.inference.shared_weights import with_adapter
from trainer.modeling import lora
from trainer.spec import resolve

ADAPTERS = 2 if IS_SMOKE else 8
TOKENS = 8 if IS_SMOKE else 64
USERS = 8
SIZE = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8}
SHAPE = {**SIZE, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 4000}
GREEDY = SamplingSettings(temperature=0)


def network() -> PreTrainedModel:
    """The base."""
    torch.manual_seed(0)
    model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**SHAPE, max_position_embeddings=1024, eos_token_id=None))
    return model.eval()


def checkpoint(directory: Path) -> Path:
    """A LoRA checkpoint without merged weights."""
    spec = resolve({"corpora": ["text"], "sequence_length": 1024, "base_model": "base", "tuning": "lora", **SHAPE})
    model = network()
    lora.add_lora(model, spec)
    weights = {lora.key(name): value.data for name, value in model.named_parameters() if value.requires_grad}
    model.config.save_pretrained(directory)
    GenerationConfig().save_pretrained(directory)
    lora.save(
        model, {name: torch.randn_like(value) / 50 for name, value in weights.items()}, directory / lora.DIRECTORY
    )
    return directory


def merged(checkpoint_dir: Path) -> PreTrainedModel:
    """The same model with weights of its own."""
    adapted, model = with_adapter(network(), checkpoint_dir), network()
    model.load_state_dict({weight.name: weight.value() for weight in lora.merged_weights(adapted)}, strict=False)
    return model


def megabytes() -> float:
    """The memory of this process alone, without what it has freed."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return float(psutil.Process().memory_full_info().uss) / 1e6


def tokens_per_cpu_second(model: PreTrainedModel) -> tuple[float, list[list[int]]]:
    """The speed of some users' texts together, and the texts."""
    engine = create_engine(model)
    prompts = [list(range(5 * user + 5, 5 * user + 30)) for user in range(USERS)]
    began = time.process_time()
    texts = [engine.submit(one, GREEDY, max_tokens=TOKENS, stop_token_ids=frozenset()) for one in prompts]
    tokens = [[choice.token for choice in text] for text in texts]
    seconds = time.process_time() - began
    engine.close()
    return USERS * TOKENS / seconds, tokens


def main() -> None:
    """Print the figures."""
    with TemporaryDirectory() as home:
        checkpoint_dir = checkpoint(Path(home) / "checkpoint")
        adapter_bytes = (checkpoint_dir / lora.DIRECTORY / lora.WEIGHTS).stat().st_size
        print(f"file of an adapter {adapter_bytes / 1e6:.1f} MB")
        empty = megabytes()
        base = network()
        with_base = megabytes()
        print(f"base {with_base - empty:.1f} MB")
        models = [with_adapter(base, checkpoint_dir) for _ in range(ADAPTERS)]
        each = (megabytes() - with_base) / ADAPTERS
        print(f"each of {ADAPTERS} adapters {each:.1f} MB more")
        before = megabytes()
        own = merged(checkpoint_dir)
        print(f"a model with merged weights {megabytes() - before:.1f} MB")
        ids = torch.arange(5, 105).reshape(1, -1)
        with torch.inference_mode():
            difference = float((models[0](ids).logits - own(ids).logits).abs().max())
            print(f"logits differ by at most {difference:.1e}, the largest is {float(own(ids).logits.max()):.1f}")
        for name, model in (("adapter", models[0]), ("merged", own), ("adapter", models[0]), ("merged", own)):
            speed, texts = tokens_per_cpu_second(model)
            print(f"{name}: {speed:.0f} tokens per CPU second, {USERS} users; first text {texts[0][:4]} ...")


if __name__ == "__main__":
    main()
