"""Rejected specs: out of range, contradictory or too large for the machine. One sentence names the field and a fix."""

from typing import Any

import pytest

from trainer.planning.hardware import NodeHardware
from trainer.planning.plan import plan
from trainer.spec import TrainSpec, resolve
from trainer.spec_errors import SpecError

GB = 10**9


def numeric_bounds() -> dict[str, tuple[float, float, bool, bool]]:
    """Lower and upper bound of every numeric field, and whether each bound is itself allowed."""
    bounds = {}
    for name, field in TrainSpec.model_fields.items():
        limits = {
            kind: getattr(limit, kind)
            for limit in field.metadata
            for kind in ("ge", "gt", "le", "lt")
            if hasattr(limit, kind)
        }
        if limits:
            low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
            bounds[name] = (low, high, "ge" in limits, "le" in limits)
    return bounds


OUT_OF_RANGE = [
    (name, value)
    for name, (low, high, is_low_allowed, is_high_allowed) in numeric_bounds().items()
    for value in (low - 1 if is_low_allowed else low, high + 1 if is_high_allowed else high)
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_an_out_of_range_value_is_rejected_with_both_bounds(name: str, value: float) -> None:
    low, high, *_allowed = numeric_bounds()[name]
    with pytest.raises(SpecError) as error:
        resolve({"corpora": ["c"], name: value})

    problem = next(problem for problem in error.value.problems if problem.field == name)
    sentence = f"{name} {problem.message}"
    assert str(low) in sentence
    assert str(high) in sentence
    assert f"but is {value}" in sentence


CONTRADICTORY: list[tuple[dict[str, Any], str]] = [
    (
        {"max_steps": 100, "num_train_epochs": 2},
        "num_train_epochs must be empty if max_steps is set: choose one of the two (epochs are 2.0, steps 100)",
    ),
    ({"max_steps": 10, "warmup_steps": 11}, "warmup_steps must not exceed max_steps (10), but is 11"),
    ({"hidden_size": 130}, "hidden_size must be a multiple of num_attention_heads (4), but is 130: 136 would do"),
    ({"num_attention_heads": 5, "num_key_value_heads": 5}, "num_attention_heads (5), but is 128: 130 would do"),
    (
        {"hidden_size": 132, "model_type": "llama"},
        "an odd width (33), which rotary embeddings cannot use: 136 would do",
    ),
    ({"num_key_value_heads": 3}, "num_key_value_heads must divide num_attention_heads (4), but is 3: 1 would do"),
    ({"num_key_value_heads": 6}, "num_key_value_heads must divide num_attention_heads (4), but is 6: 2 would do"),
    ({"model_type": "gpt2", "num_key_value_heads": 2}, "must equal num_attention_heads (4) for gpt2, but is 2"),
    (
        {"per_device_batch_size": 12},
        "train_batch_size must be a multiple of per_device_batch_size x num_processes (12)",
    ),
    ({"per_device_batch_size": 12}, "but is 16: 24 would do"),
    ({"num_processes": 3}, "num_processes (48), but is 16: 48 would do"),
    ({"train_batch_size": 8}, "num_processes (16), but is 8: 16 would do"),
    ({"warmup_steps": 500}, "warmup_steps must not exceed max_steps (400), but is 500"),
    ({"max_steps": 10}, "warmup_steps must not exceed max_steps (10), but is 20"),
]

MORE_CONTRADICTORY: list[tuple[dict[str, Any], str]] = [
    ({"decay_steps": 500}, "decay_steps must not exceed max_steps - warmup_steps (380), but is 500"),
    ({"objective": "masked"}, "model_type must be one of bert, roberta for the objective masked, but is llama"),
    ({"objective": "span_corruption"}, "model_type must be one of t5 for the objective span_corruption"),
    (
        {"objective": "chat", "model_type": "bert"},
        "model_type must be one of llama, qwen2, gpt2 for the objective chat",
    ),
    ({"objective": "dpo"}, "base_model is required: dpo fine-tunes a model that already answers"),
    ({"tuning": "lora"}, "tuning must be full without a base_model"),
    ({"tuning": "lora", "base_model": "b", "optimizer": "muon"}, "optimizer must be adamw for lora, but is muon"),
    ({"tuning": "qlora", "base_model": "b", "precision": "fp32"}, "precision must be auto or bf16 for qlora"),
    ({"tuning": "qlora", "base_model": "b", "zero_stage": 3}, "zero_stage must be 0, 1 or 2 for qlora, but is 3"),
    ({"optimizer": "muon", "zero_stage": 1}, "zero_stage must be 0 for muon, which updates whole matrices, but is 1"),
    ({"offload_optimizer": True}, "zero_stage must be 1, 2 or 3 for offload_optimizer, but is 0"),
    ({"offload_parameters": True, "zero_stage": 2}, "zero_stage must be 3 for offload_parameters, but is 2"),
    ({"vocab_size": 300, "objective": "span_corruption", "model_type": "t5"}, "vocab_size must be at least 358 for t5"),
    (
        {"objective": "span_corruption", "model_type": "t5", "tie_word_embeddings": False},
        "tie_word_embeddings must be true for t5",
    ),
    ({"validation_corpora": ["c"]}, "validation_corpora contains c, which is also a training corpus"),
]


@pytest.mark.parametrize(("fields", "sentence"), [*CONTRADICTORY, *MORE_CONTRADICTORY])
def test_contradictory_fields_are_rejected(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as error:
        resolve({"corpora": ["c"], **fields})
    assert sentence in str(error.value)


@pytest.mark.parametrize(("fields", "_sentence"), CONTRADICTORY[:-2])
def test_the_suggested_value_is_accepted(fields: dict[str, Any], _sentence: str) -> None:
    for _ in range(3):  # one change may show the next contradiction
        try:
            resolve({"corpora": ["c"], **fields})
            return
        except SpecError as error:
            problem = error.problems[0]
            values = problem.message.values
            fields = {**fields, problem.field: values.get("next", values.get("num_attention_heads"))}
    pytest.fail(f"{fields} still contradict each other")


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "rnn"}, "model_type must be one of 'llama', 'qwen2', 'gpt2', 'bert', 'roberta' or 't5'"),
    ({"objective": "other"}, "objective must be one of 'causal'"),
    (
        {"lr_scheduler_type": "step"},
        "lr_scheduler_type must be one of 'cosine', 'linear', 'constant' or 'warmup_stable_decay'",
    ),
    ({"precision": "fp8"}, "precision must be one of 'auto', 'fp32' or 'bf16'"),
    ({"zero_stage": 4}, "zero_stage must be one of 0, 1, 2 or 3"),
    ({"on_divergence": "pray"}, "on_divergence must be one of 'stop' or 'skip'"),
    ({"priority": "now"}, "priority must be one of 'low', 'normal' or 'high'"),
    ({"recipe": "huge"}, "recipe must be one of tiny, gpt2-124m, llama-7b"),
    ({"corpora": []}, "corpora must have at least 1 entry"),
    ({"name": ""}, "name must not be empty"),
    ({"max_steps": 1.5}, "max_steps must be a whole number"),
    ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
    ({"tie_word_embeddings": "perhaps"}, "tie_word_embeddings must be true or false"),
    ({"layers": 3}, "layers is not a field of a spec"),
]


@pytest.mark.parametrize(("fields", "sentence"), INVALID)
def test_an_invalid_value_is_rejected(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as error:
        resolve({"corpora": ["c"], **fields})
    assert sentence in str(error.value)


def gpus(count: int, gigabytes: int, host: int | None = None) -> NodeHardware:
    host_bytes = None if host is None else host * GB
    return NodeHardware(
        kind="cuda", name="NVIDIA A100", count=count, memory_bytes=gigabytes * GB, host_memory_bytes=host_bytes
    )


def cpu(gigabytes: int) -> NodeHardware:
    return NodeHardware(memory_bytes=gigabytes * GB, num_cpus=8)


SEVEN, GPT2 = {"recipe": "llama-7b"}, {"recipe": "gpt2-124m"}
TUNED = {**SEVEN, "base_model": "b"}
IMPOSSIBLE: list[tuple[dict[str, Any], NodeHardware, list[str]]] = [
    (SEVEN, gpus(4, 80), ["num_processes is 8", "from 1 to 4"]),
    (SEVEN, gpus(1, 80), ["num_processes is 8", "from 1 to 1"]),
    ({**GPT2, "num_processes": 2}, gpus(1, 80), ["num_processes is 2", "from 1 to 1"]),
    (SEVEN, gpus(8, 80, host=16), ["host memory", "14.9 GiB", "fewer processes"]),
    ({**SEVEN, "zero_stage": 0}, gpus(8, 80), ["74.5 GiB", "zero_stage="]),
    ({**SEVEN, "zero_stage": 1}, gpus(8, 40), ["37.3 GiB", "zero_stage="]),
    ({**SEVEN, "gradient_checkpointing": False, "per_device_batch_size": 16}, gpus(8, 40), ["per_device_batch_size="]),
    ({**SEVEN, "gradient_checkpointing": False, "per_device_batch_size": 1}, gpus(8, 40), ["gradient_checkpointing="]),
    ({**SEVEN, "per_device_batch_size": 128}, gpus(8, 80), ["per_device_batch_size="]),
    (
        {**SEVEN, "sequence_length": 131_072, "per_device_batch_size": 1},
        gpus(8, 40),
        ["sequence_length=", "same training"],
    ),
    ({**SEVEN, "num_processes": 4}, gpus(4, 24, host=256), ["22.4 GiB", "offload_optimizer=true"]),
    ({**TUNED, "num_processes": 1, "zero_stage": 0}, gpus(1, 24, host=64), ["tuning=lora", "same training"]),
    (
        {**SEVEN, "num_processes": 1, "zero_stage": 0},
        gpus(1, 12, host=64),
        ["num_hidden_layers=", "same training"],
    ),
    ({**SEVEN, "num_processes": 1, "zero_stage": 0}, gpus(1, 1, host=64), ["no setting", "hidden_size"]),
    ({**TUNED, "num_processes": 1, "zero_stage": 0}, cpu(32), ["29.8 GiB", "tuning=lora"]),
    ({**SEVEN, "num_processes": 2}, cpu(4), ["1.9 GiB", "no setting", "vocab_size"]),
    (GPT2, cpu(16), ["14.9 GiB", "per_device_batch_size="]),
    (GPT2, cpu(4), ["3.7 GiB", "per_device_batch_size=1 "]),
    ({**GPT2, "num_hidden_layers": 200}, gpus(1, 24), ["22.4 GiB", "per_device_batch_size="]),
    ({**GPT2, "hidden_size": 32_256, "intermediate_size": 131_072}, gpus(1, 80, host=256), ["num_hidden_layers="]),
    ({"hidden_size": 8192, "num_hidden_layers": 80}, cpu(16), ["14.9 GiB", "num_hidden_layers="]),
    ({"vocab_size": 262_144, "hidden_size": 4096, "base_model": "b"}, cpu(8), ["7.5 GiB", "tuning=lora"]),
    ({"vocab_size": 262_144, "hidden_size": 4096}, cpu(2), ["1.9 GiB", "Lower hidden_size"]),
    ({"sequence_length": 131_072}, cpu(2), ["1.9 GiB", "sequence_length=65536"]),
]


def verdict(node: NodeHardware, fields: dict[str, Any]) -> str:
    spec = resolve({"corpora": ["c"], **fields})
    job = plan(spec, spec.vocab_size or 2048, node)
    assert job.fits is False
    sizes = {name: f"{v / 2**30:.1f} GiB" for name, v in job.verdict.values.items() if name.endswith("_bytes")}
    return job.verdict.template.format(**{**job.verdict.values, **sizes})


@pytest.mark.parametrize(("fields", "node", "words"), IMPOSSIBLE)
def test_a_job_too_large_for_the_machine_is_rejected_with_a_fix(
    fields: dict[str, Any], node: NodeHardware, words: list[str]
) -> None:
    sentence = verdict(node, fields)
    assert [word for word in words if word not in sentence] == [], sentence
