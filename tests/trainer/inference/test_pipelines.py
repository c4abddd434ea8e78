"""What `pipeline()` says of a checkpoint is what the job measured: the same tokens at the ends of a text."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from tests.trainer.bases import random_checkpoint
from tests.trainer.tokenizers_of_bases import byte_fallback, byte_level, fast
from trainer.data.record_encoding import RecordEncoder
from trainer.data.tokenizer import start_ids

TEXTS = ["In the beginning God created", "the earth", "And", "light 天<|endoftext|>"]


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "bert", "roberta"])
def test_a_classifier_pipeline_gives_the_probabilities_of_the_job(tmp_path: Path, model_type: str) -> None:
    out, loaded = random_checkpoint(tmp_path, model_type, "classification")
    encoder = RecordEncoder("classification", loaded.tokenizer)
    classify = pipeline("text-classification", model=str(out), top_k=None)

    for text in TEXTS[:3]:
        (segment,) = encoder.segments({"text": text})
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.tensor([segment.ids])).logits[0]
        measured = dict(zip(("no", "yes", "maybe"), logits.softmax(-1).tolist(), strict=True))
        said: dict[str, Any] = {entry["label"]: entry["score"] for entry in classify([text])[0]}
        assert np.allclose([said[name] for name in measured], list(measured.values()), atol=1e-5)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2"])
def test_the_text_generation_pipeline_tokenizes_like_the_playground(tmp_path: Path, model_type: str) -> None:
    out, loaded = random_checkpoint(tmp_path, model_type, "causal")
    generator = pipeline("text-generation", model=str(out))

    for text in TEXTS:
        assert generator.tokenizer(text)["input_ids"] == loaded.encode(text)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_training_adds_the_prefix_tokens_of_the_tokenizer(tmp_path: Path, adds_bos: bool) -> None:
    hf_tokenizer = fast(byte_fallback() if adds_bos else byte_level())  # both have <s>, and only one adds it
    (segment,) = RecordEncoder("completion", hf_tokenizer).segments({"prompt": "The old", "completion": " kettle"})
    prompt = hf_tokenizer("The old")["input_ids"]

    assert start_ids(hf_tokenizer) == ([hf_tokenizer.bos_token_id] if adds_bos else [])
    assert segment.ids[: len(prompt)] == prompt
