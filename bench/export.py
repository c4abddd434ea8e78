"""How much memory an export takes: the peak of the command and of the process that proves it, beside the weights.

`PYTHONPATH=. python bench/export.py [--smoke]`. A Llama of about 160 million parameters with random weights in bf16, as
GPUs train them, once in each format.
"""

import json
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.support.arguments import IS_SMOKE
from bench.support.forked import Forked, start_module
from tests.trainer.runs import english, write_corpus
from trainer.data import tokenizer
from trainer.run_dir import write_manifest

SHAPE = {"hidden_size": 1024, "intermediate_size": 2752, "num_hidden_layers": 12, "num_attention_heads": 16}
FORMS = (("safetensors",), ("gguf", "f32"), ("gguf", "q8_0"))
# A small process starts the command: a process counts the memory of the one that it was started from.
PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        # In a fork where others are forked from this process: torch's threads do not survive one.
        checkpoint = Path(str(Forked(partial(make, home)).result()) if IS_SMOKE else make(home))
        weights = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
        empty = peak("trainer.export.export")
        for form, *quantization in FORMS:
            options = [f"--format={form}", "--max-shard-bytes=100000000"]
            options += [f"--quantization={name}" for name in quantization]
            out = home / "-".join((form, *quantization))
            largest = peak("trainer", "export", str(checkpoint), str(out), *options)
            figures = {"form": out.name, "weights_bytes": weights, "libraries_bytes": empty, "peak_bytes": largest}
            figures["peak_without_libraries_in_weights"] = round((largest - empty) / weights, 2)
            sys.stdout.write(json.dumps(figures) + "\n")


def make(home: Path) -> str:
    source = write_corpus(home / "corpus", [english(200_000)])
    tokenizer.save(tokenizer.train([source], 2048, lambda done, total: None), home / "checkpoint")
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=2048, **SHAPE, **ids)).bfloat16().save_pretrained(home / "checkpoint")
    write_manifest(home / "checkpoint", {"step": 1})
    return str(home / "checkpoint")


def peak(*arguments: str) -> int:
    """Bytes that the largest process of `python -m` with these arguments held at a time; each holds the libraries."""
    if IS_SMOKE:
        kibibytes = Forked(partial(peak_of_forks, arguments)).result()
    else:
        done = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        kibibytes = done.stdout
    return int(kibibytes) * (1 if sys.platform == "darwin" else 1024)


def peak_of_forks(arguments: tuple[str, ...]) -> int:
    """The same in kibibytes for a command that is forked from this process, whose memory counts then."""
    code = start_module(*arguments).wait()
    assert code == 0, f"{arguments} ended with {code}"
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


if __name__ == "__main__":
    if IS_SMOKE:
        SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        FORMS = FORMS[:1]
    main()
