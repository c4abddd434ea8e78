"""Whole runs of the trainer whose peak memory is set against the plan: real records and held-out text, evaluations,
samples and saves, in the processes that a job has.

SHAPES are chosen: large vocabularies, long sequences, large micro-batches, records. What the plan says of the allocator
of a CPU was fitted to them; the shapes that `drawn_shapes` draws took no part in it.
"""

import json
import random
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bench.support.forked import start_module
from tests.trainer.runs import SAMPLES, english, of_kind, write_corpus
from trainer.data import tokenizer
from trainer.data.chat_template import preset
from trainer.families import DEFAULT_CHAT_TEMPLATE
from trainer.run_dir import Inputs, RunDir
from trainer.spec import TrainSpec, resolve

TEXT_BYTES, NUM_RECORDS = 200_000, 200
LLAMA, QWEN2, GPT2 = ({"model_type": name, "objective": "causal"} for name in ("llama", "qwen2", "gpt2"))
BERT, ROBERTA = ({"model_type": name, "objective": "masked"} for name in ("bert", "roberta"))
CHAT = {"model_type": "llama", "objective": "chat"}
LABELS = {"objective": "classification"}
BASE = {"model_type": "llama", "base_model": "base", "hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 32_000}
LORA = {"tuning": "lora", "lora_rank": 8}
TWO_RANKS = {"num_processes": 2, "train_batch_size": 16}


def shape(kind: dict[str, Any], vocabulary: int, sequence: int, micro_batch: int, **fields: Any) -> dict[str, Any]:
    """Fields of a spec: the objective and the sizes that memory depends on most."""
    sizes = {"vocab_size": vocabulary, "sequence_length": sequence, "per_device_batch_size": micro_batch}
    return {"hidden_size": 256, "num_hidden_layers": 4, "train_batch_size": micro_batch, **sizes, **kind, **fields}


SHAPES = [
    # Large vocabularies.
    shape(LLAMA, 50_304, 128, 32),
    shape(QWEN2, 100_352, 64, 32, hidden_size=128),
    shape(GPT2, 50_257, 256, 8, hidden_size=384),
    shape(LLAMA, 65_536, 128, 8, train_batch_size=32),
    shape(ROBERTA, 50_265, 256, 8),
    shape({"model_type": "t5", "objective": "span_corruption"}, 32_128, 512, 4),
    # Long sequences.
    shape(LLAMA, 8_192, 2_048, 2),
    shape(LLAMA, 4_096, 4_096, 1, hidden_size=128),
    shape(GPT2, 8_192, 1_024, 4, hidden_size=128),
    shape(QWEN2, 16_384, 2_048, 2, gradient_checkpointing=True),
    shape(CHAT, 8_192, 2_048, 2),
    # Large micro-batches.
    shape(LLAMA, 2_048, 64, 256, hidden_size=128),
    shape(GPT2, 4_096, 64, 128),
    shape(BERT, 8_192, 128, 64),
    shape(LLAMA, 4_096, 128, 16, hidden_size=128, num_hidden_layers=16),
    # Records.
    shape(CHAT, 32_000, 256, 16),
    shape({"model_type": "qwen2", "objective": "completion"}, 32_000, 128, 32),
    shape({"model_type": "bert", **LABELS}, 8_192, 128, 64),
    shape({"model_type": "llama", **LABELS}, 16_384, 256, 16),
    shape({"model_type": "t5", "objective": "seq2seq"}, 32_128, 128, 16),
    shape({**BASE, "objective": "dpo"}, 32_000, 128, 8),
    shape({**BASE, **LORA, "objective": "dpo"}, 32_000, 128, 8),
    shape({**BASE, **LORA, "objective": "chat"}, 32_000, 512, 8),
    # Several processes.
    shape(LLAMA, 32_000, 256, 4, zero_stage=2, **TWO_RANKS),
    shape(CHAT, 32_000, 256, 4, zero_stage=3, **TWO_RANKS),
]


# Each kind of training that is drawn, as often as it is.
KINDS = [
    LLAMA,
    LLAMA,
    QWEN2,
    GPT2,
    CHAT,
    CHAT,
    {"model_type": "qwen2", "objective": "completion"},
    BERT,
    {"model_type": "bert", **LABELS},
    {"model_type": "t5", "objective": "seq2seq"},
    {**BASE, "objective": "dpo"},
    {**BASE, **LORA, "objective": "chat"},
]
CHOICES = {
    "vocab_size": (4_096, 16_384, 32_768, 65_536),
    "sequence_length": (64, 128, 256, 512, 1_024),
    "per_device_batch_size": (1, 2, 4, 8, 16, 32, 64),
    "hidden_size": (128, 256, 384),
    "num_hidden_layers": (2, 4, 8),
    "gradient_checkpointing": (False, False, True),
    "ranks": (1, 1, 1, 2),
    "zero_stage": (0, 0, 1, 2, 3),
}
MIN_TOKENS, MAX_TOKENS = 512, 4_096  # in a micro-batch


def drawn_shapes(number: int, seed: int) -> list[dict[str, Any]]:
    """Fields of `number` specs: all kinds in turn, the sizes drawn. The same seed draws the same ones."""
    generator = random.Random(seed)
    shapes: list[dict[str, Any]] = []
    while len(shapes) < number:
        sizes = {name: generator.choice(values) for name, values in CHOICES.items()}
        if MIN_TOKENS <= sizes["sequence_length"] * sizes["per_device_batch_size"] <= MAX_TOKENS:
            ranks = sizes.pop("ranks")
            batch_size = ranks * sizes["per_device_batch_size"]
            shapes.append(
                {**KINDS[len(shapes) % len(KINDS)], **sizes, "num_processes": ranks, "train_batch_size": batch_size}
            )
    return shapes


def make_spec(fields: dict[str, Any]) -> TrainSpec:
    """The spec of two steps that evaluate and sample before and after, and save twice."""
    heads = fields["hidden_size"] // 32
    sizes = {"intermediate_size": fields["hidden_size"] * 3, "num_attention_heads": heads, "num_key_value_heads": heads}
    schedule = {"warmup_steps": 1, "max_steps": 2, "eval_steps": 2, "save_steps": 1, "sample_prompt": "In the"}
    return resolve({"recipe": "tiny", "corpora": ["c"], "validation_corpora": ["v"], **schedule, **sizes, **fields})


def whole_run_peak(spec: TrainSpec, home: Path) -> int:
    """Train the spec in processes of its own. Returns the peak memory of the largest rank in bytes, saving included."""
    documents, kind = _documents(spec.objective)
    corpora = [write_corpus(home / name, part, kind) for name, part in _split(documents).items()]
    vocabulary = _tokenizer(home, spec)
    base = str(_base_model(home, spec, vocabulary)) if spec.base_model else None
    run_dir = RunDir(home / "run")
    run_dir.path.mkdir()
    held_out = [corpora[1].model_copy(update={"id": "v"})]
    inputs = Inputs(
        corpora=[corpora[0].model_copy(update={"id": "c"})],
        validation=held_out,
        tokenizer=None if base else str(vocabulary),
        base=base,
        cache=str(home / "cache"),
    )
    run_dir.create(spec, inputs, fence=1)
    launcher = (
        [] if spec.num_processes == 1 else ["torch.distributed.run", f"--nproc-per-node={spec.num_processes}", "-m"]
    )
    code = start_module(*launcher, "trainer", "train", str(run_dir.path)).wait()
    if code:
        raise RuntimeError(f"the trainer ended with {code}; its log is above")
    return int(of_kind(run_dir, "usage")[-1].peak_bytes)


def _documents(objective: str) -> tuple[list[str], str]:
    """Documents of a corpus, and their kind: shipped text, or records made of shipped conversations."""
    if objective in ("causal", "masked", "span_corruption"):
        text = english(TEXT_BYTES)
        return [text[at : at + 10_000] for at in range(0, len(text), 10_000)], "text"
    lines = (SAMPLES / "small-talk.jsonl").read_text(encoding="utf-8").splitlines()[:NUM_RECORDS]
    conversations = [json.loads(line)["messages"] for line in lines]
    if objective == "chat":
        return lines, "chat"
    pairs = [(turns[0]["content"], turns[1]["content"]) for turns in conversations]
    others = [answer for _question, answer in pairs[1:] + pairs[:1]]
    records: dict[str, list[dict[str, str]]] = {
        "completion": [{"prompt": question, "completion": answer} for question, answer in pairs],
        "seq2seq": [{"source": question, "target": answer} for question, answer in pairs],
        "classification": [{"text": answer, "label": "ab"[at % 2]} for at, (_, answer) in enumerate(pairs)],
        "dpo": [
            {"prompt": question, "chosen": answer, "rejected": other}
            for (question, answer), other in zip(pairs, others, strict=True)
            if answer != other
        ],
    }
    kind = "preference" if objective == "dpo" else objective
    return [json.dumps(record) for record in records[objective]], kind


def _split(documents: list[str]) -> dict[str, list[str]]:
    tenth = max(len(documents) // 10, 2)
    return {"training": documents[tenth:], "held-out": documents[:tenth]}


def _tokenizer(home: Path, spec: TrainSpec) -> Path:
    """A tokenizer with as many tokens as the spec's vocabulary: a small one of English, filled up with tokens that no
    text becomes.
    """
    directory = home / "tokenizer"
    source = write_corpus(home / "tokenizer-text", [english()])
    special = tokenizer.SPECIAL.get(spec.model_type, ())
    trained = tokenizer.train([source], 1024, lambda done, total: None, list(special))
    tokenizer.save(trained, directory)
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    tokens, added = content["model"]["vocab"], {token["id"] for token in content["added_tokens"]}
    first = max(added | set(tokens.values())) + 1
    assert spec.vocab_size is not None
    tokens |= {f"unused {number}": number for number in range(first, spec.vocab_size)}
    path.write_text(json.dumps(content), encoding="utf-8")
    return directory


def _base_model(home: Path, spec: TrainSpec, vocabulary: Path) -> Path:
    """A Llama of the spec's sizes with random weights, in Hugging Face layout."""
    texts = PreTrainedTokenizerFast.from_pretrained(vocabulary)
    texts.chat_template = preset(DEFAULT_CHAT_TEMPLATE, texts)
    texts.save_pretrained(home / "base")
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    sizes = {name: getattr(spec, name) for name in names}
    config = LlamaConfig(vocab_size=len(texts), **sizes, bos_token_id=0, eos_token_id=0, pad_token_id=1)
    LlamaForCausalLM(config).save_pretrained(home / "base")
    return home / "base"
