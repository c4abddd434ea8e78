"""Whether llama.cpp itself, opening our GGUF files, tokenizes texts, predicts and writes as transformers does.

`PYTHONPATH=. python bench/proofs/llamacpp.py [llama] [qwen2] [gpt2] [smollm2] [--smoke]`, a minute each. The first
three are trained here, each with a tokenizer of its own. llama.cpp comes in the wheel of xllamacpp. Yardstick from the
same run: the checkpoint in transformers, fp32.
"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import torch
import xllamacpp
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from bench.support.arguments import IS_SMOKE, names
from bench.support.material import smollm2, train
from trainer.export import gguf_tokenizer, gguf_writer, verification

BIBLE = Path(__file__).parents[2] / "app" / "corpora" / "samples" / "king-james-bible.txt"
TALK = [{"role": "user", "content": "Who made heaven and earth?"}]
NUM_PROMPT, NUM_WRITTEN, NUM_LIKELIEST = 24, 32, 10
SHAPE = {
    "vocab_size": 2048,
    "num_hidden_layers": 3,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "sequence_length": 128,
    "train_batch_size": 16,
    "per_device_batch_size": 16,
    "max_steps": 200,
    "eval_steps": 200,
    "save_steps": 200,
}
MODEL_TYPES = ("llama", "qwen2", "gpt2", "smollm2")
TEXT_BYTES = 1_000_000
if IS_SMOKE:
    NUM_WRITTEN, NUM_LIKELIEST = 2, 3
    MODEL_TYPES, TEXT_BYTES = ("llama", "smollm2"), 60_000
    SHAPE |= {"vocab_size": 384, "num_hidden_layers": 1, "max_steps": 2, "eval_steps": 2, "save_steps": 2}


def make_checkpoint(model_type: str, home: Path) -> Path:
    """A checkpoint of a model trained on some English text."""
    if model_type == "smollm2":
        return smollm2(home)
    heads = 4 if model_type == "gpt2" else 2
    text = BIBLE.read_text(encoding="utf-8")[:TEXT_BYTES]
    run_dir = train(home, model_type, None, "text", [text], **SHAPE, model_type=model_type, num_key_value_heads=heads)
    return run_dir.checkpoint_path(int(SHAPE["max_steps"]), 1)


@contextmanager
def serving(file: Path, num_parallel: int = 1, context: int = 256) -> Iterator[httpx.Client]:
    """llama.cpp's own server with this file, for texts of so many tokens."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel = str(file), num_parallel * context, num_parallel
    parameters.verbosity, parameters.fit_params, parameters.use_jinja = -1, False, True
    server = xllamacpp.Server(parameters)
    with httpx.Client(base_url=server.listening_address, timeout=60) as client:
        yield client


def ask(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    """One request."""
    answer = client.post(path, json=body)
    answer.raise_for_status()
    content: dict[str, Any] = answer.json()
    return content


def share_tokenized_alike(client: httpx.Client, tokenizer: PreTrainedTokenizerFast) -> float:
    """The share of probe texts of which llama.cpp makes the same tokens."""
    same = 0
    for text in gguf_tokenizer.TEXTS:
        tokens = ask(client, "/tokenize", content=text, add_special=True, parse_special=True)["tokens"]
        same += tokens == tokenizer(text)["input_ids"]
    return same / len(gguf_tokenizer.TEXTS)


@torch.no_grad()
def next_tokens(client: httpx.Client, model: PreTrainedModel, prompt: list[int]) -> Iterator[tuple[bool, float]]:
    """While transformers writes greedily: whether llama.cpp writes the same next token, and how far the log-probability
    of any of the likeliest tokens is off, in nats. The server has no figures where a token ends within a character.
    """
    ids = list(prompt)
    for _ in range(NUM_WRITTEN):
        expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        answer = ask(client, "/completion", prompt=ids, n_predict=1, temperature=0.0, n_probs=NUM_LIKELIEST)
        for step in answer.get("completion_probabilities", []):
            off = [abs(float(expected[likely["id"]]) - likely["logprob"]) for likely in step["top_logprobs"]]
            yield step["id"] == int(expected.argmax()), max(off)
        ids.append(int(expected.argmax()))


def compare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, file: Path) -> str:
    """What llama.cpp does with a file, against what transformers does with its model."""
    with serving(file) as client:
        same = share_tokenized_alike(client, tokenizer)
        prompts = [tokenizer(text)["input_ids"][:NUM_PROMPT] for text in gguf_tokenizer.TEXTS]
        if tokenizer.chat_template:
            ours = tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
            theirs = ask(client, "/apply-template", messages=TALK)["prompt"]
            print(f"  chat template: {'the same text' if ours == theirs else f'{ours!r} became {theirs!r}'}")
            prompts.append(tokenizer(ours)["input_ids"])
        alike, off = zip(*(step for prompt in prompts for step in next_tokens(client, model, prompt)), strict=True)
    return (
        f"texts tokenized alike {same:.0%}; next token alike {sum(alike)} of {len(alike)}; log-probabilities off by"
        f" {statistics.median(off):.2g} nats in the median, {max(off):.2g} at most"
    )


def main() -> None:
    logging.disable_progress_bar()
    for model_type in names(MODEL_TYPES):
        with TemporaryDirectory() as directory:
            home = Path(directory)
            checkpoint = make_checkpoint(model_type, home)
            model, tokenizer = verification.load(checkpoint), PreTrainedTokenizerFast.from_pretrained(checkpoint)
            for quantization in gguf_writer.FORMATS:
                gguf_writer.write(home / verification.GGUF_MODEL, model, tokenizer, quantization, model_type)
                shown = compare(model, tokenizer, home / verification.GGUF_MODEL)
                print(f"{model_type} {quantization}: {shown}", flush=True)


if __name__ == "__main__":
    main()
