"""A small encoder of our own, from random weights, classifies held-out Chinese reviews as positive or negative."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bench.support.material import chinese_reviews
from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import checkpoint_of, make_run, series
from trainer.run_dir import RunDir

STEPS = 160


@pytest.fixture(scope="module")
def judge(fork_server: GangForkServer, home: Path) -> RunDir:
    reviews = [json.dumps(review, ensure_ascii=False) for review in chinese_reviews()[:6_000]]
    fields = {"kind": "classification", "objective": "classification", "model_type": "bert", "num_key_value_heads": 4}
    fields |= {"vocab_size": 2048, "sequence_length": 64, "train_batch_size": 32, "per_device_batch_size": 32}
    fields |= {
        "num_hidden_layers": 1,
        "learning_rate": 0.004,
        "warmup_steps": 20,
        "max_steps": STEPS,
        "validation_fraction": 0.1,
    }
    run_dir = make_run(home, "judge", reviews, **fields)
    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()
    return run_dir


def test_three_of_four_held_out_reviews_are_classified_correctly(judge: RunDir) -> None:
    assert series(judge, "eval_accuracy")[0] < 0.6
    assert series(judge, "eval_accuracy")[STEPS] >= 0.75
    assert series(judge, "eval_f1")[STEPS] >= 0.75


def test_its_checkpoint_classifies_with_transformers_alone(judge: RunDir) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_of(judge, STEPS))
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint_of(judge, STEPS))
    for text, label in (("非常好，很喜欢，值得推荐", "pos"), ("太差了，很失望，浪费钱", "neg")):
        logits = model(input_ids=tokenizer(text, return_tensors="pt")["input_ids"]).logits
        assert model.config.id2label[int(logits.argmax())] == label
