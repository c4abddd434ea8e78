"""Bytes by part, against arithmetic written out here and against what autograd keeps."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.runs import small_spec
from trainer.modeling.build import init_model
from trainer.modeling.objectives import objective
from trainer.planning.memory import MAX_LIVE, MemoryEstimate, estimate_memory, host_bytes, num_kept_checkpoints
from trainer.spec import TrainSpec, resolve

# Llama 7B: two embeddings; 32 blocks of four matrices of attention, three of the feed-forward and two norms; a norm.
P = 2 * 32_000 * 4096 + 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096) + 4096
TOKENS = 4096
BF16, FP32, MOMENTS = 2, 4, 8  # bytes of a value, and of AdamW's two for each


def seven_billion(**fields: Any) -> TrainSpec:
    return resolve({"recipe": "llama-7b", "corpora": ["c"], "per_device_batch_size": 1, **fields})


def states(parts: MemoryEstimate) -> tuple[int, int, int]:
    return parts.weights, parts.gradients, parts.optimizer


def test_full_7b_training_on_one_h200() -> None:
    parts = estimate_memory(seven_billion(num_processes=1, zero_stage=0), 32_000, "bf16")

    assert P == 6_738_415_616
    assert states(parts) == (P * BF16, P * BF16, P * (FP32 + MOMENTS))
    assert states(parts) == (13_476_831_232, 13_476_831_232, 80_860_987_392)
    # Checkpointing keeps the input of 32 blocks, and one full block: ten widths and four of the feed-forward in bf16,
    # two norms in fp32.
    of_a_token = 32 * 4096 * BF16 + (10 * 4096 + 4 * 11008) * BF16 + 2 * 4096 * FP32
    assert parts.activations == TOKENS * of_a_token
    # The logits of 2,097 places at a time in bf16 and fp32 and their gradient in bf16, the hidden states' gradient, the
    # head's in fp32.
    assert parts.logits == 2097 * 32_000 * (BF16 + FP32 + BF16) + TOKENS * 4096 * BF16 + 32_000 * 4096 * FP32
    # The optimizer steps on an fp32 copy of all gradients, when no activations are there.
    assert parts.update == P * FP32 - parts.activations - parts.logits
    assert parts.total < 141 * 10**9


def test_full_7b_training_on_eight_80_gb_gpus_with_zero_3() -> None:
    parts = estimate_memory(seven_billion(), 32_000, "bf16")

    each = P // 8
    assert each * 8 == P
    assert states(parts) == (each * BF16, each * BF16, each * (FP32 + MOMENTS))
    assert states(parts) == (1_684_603_904, 1_684_603_904, 10_107_623_424)
    # The head is gathered, so logits come as on one card; an eighth of the gradients in fp32 finds room where
    # both were, but for a little.
    assert parts.logits == 2097 * 32_000 * (BF16 + FP32 + BF16) + TOKENS * 4096 * BF16 + 32_000 * 4096 * FP32
    assert parts.update == each * FP32 - parts.activations - parts.logits
    assert parts.total < 80 * 10**9


def test_7b_on_four_24_gb_gpus_with_the_optimizer_offloaded() -> None:
    spec = seven_billion(num_processes=4, offload_optimizer=True)
    without, parts = (
        estimate_memory(seven_billion(num_processes=4), 32_000, "bf16"),
        estimate_memory(spec, 32_000, "bf16"),
    )

    each = P // 4
    assert each * 4 == P
    assert states(without) == (each * BF16, each * BF16, each * (FP32 + MOMENTS))
    assert without.total > 24 * 10**9
    assert states(parts) == (each * BF16, 0, 0) == (3_369_207_808, 0, 0)
    assert parts.total < 24 * 10**9
    # The machine holds weights, moments and gradients in fp32, and three GiB for each process.
    assert host_bytes(spec, 32_000, "bf16") == P * (FP32 + MOMENTS + FP32) + 4 * 3 * 2**30 == 120_699_551_744


def test_7b_on_four_24_gb_gpus_with_weights_offloaded_too() -> None:
    spec = seven_billion(num_processes=4, offload_optimizer=True, offload_parameters=True)

    assert states(estimate_memory(spec, 32_000, "bf16")) == (0, 0, 0)
    assert host_bytes(spec, 32_000, "bf16") == P * (FP32 + MOMENTS + FP32 + BF16) + 4 * 3 * 2**30


def test_7b_lora_on_one_24_gb_gpu() -> None:
    spec = seven_billion(num_processes=1, zero_stage=0, base_model="b", tuning="lora")
    parts = estimate_memory(spec, 32_000, "bf16")

    # Rank times rows and columns of seven matrices in each of 32 blocks.
    adapters = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert adapters == 39_976_960
    assert states(parts) == ((P + adapters) * BF16, adapters * BF16, adapters * (FP32 + MOMENTS))
    assert states(parts) == (13_556_785_152, 79_953_920, 479_723_520)
    assert parts.total < 24 * 10**9


def test_gpt2_in_fp32_by_hand() -> None:
    spec = resolve({"recipe": "gpt2-124m", "corpora": ["c"], "per_device_batch_size": 4})
    block = (768 * 3 * 768 + 3 * 768) + (768 * 768 + 768) + (768 * 3072 + 3072) + (3072 * 768 + 768) + 4 * 768
    parameters = (50_257 + 1024) * 768 + 12 * block + 2 * 768
    parts = estimate_memory(spec, 50_257, "fp32", "cpu")

    assert states(parts) == (parameters * FP32, parameters * FP32, parameters * MOMENTS)
    assert parts.activations == 4 * 1024 * 12 * (8 * 768 + 2 * 3072) * FP32
    # A part of the logits, the hidden states' gradient, and the head's gradient beside that of earlier micro-batches.
    assert parts.logits == (128 * 50_257 + 4 * 1024 * 768 + 50_257 * 768) * FP32
    once = estimate_memory(spec.model_copy(update={"train_batch_size": 4}), 50_257, "fp32", "cpu")
    assert parts.logits - once.logits == 50_257 * 768 * FP32
    assert parts.update == 0


def test_packed_records_need_four_copies_of_their_attention_mask() -> None:
    spec = resolve({"recipe": "chat", "corpora": ["c"], "sequence_length": 512, "per_device_batch_size": 4})
    packed = estimate_memory(spec, 8192, "fp32", "cpu")
    alone = estimate_memory(spec.model_copy(update={"packing": False}), 8192, "fp32", "cpu")

    assert spec.packing
    assert packed.activations - alone.activations == 4 * 4 * 512 * 512 * FP32


def test_zero_keeps_a_master_copy_even_in_fp32() -> None:
    plain, sharded = (estimate_memory(small_spec(zero_stage=stage), 384, "fp32", "cpu") for stage in (0, 1))
    assert 2 * sharded.optimizer == 3 * plain.optimizer


def test_each_zero_stage_shards_one_thing_more() -> None:
    parts = [estimate_memory(seven_billion(zero_stage=stage), 32_000, "bf16") for stage in range(4)]

    assert parts[0].optimizer == 8 * parts[1].optimizer
    assert parts[1].gradients == 8 * parts[2].gradients
    assert parts[2].weights == 8 * parts[3].weights
    assert parts[0].activations == parts[3].activations


SPECS = st.fixed_dictionaries(
    {
        "num_hidden_layers": st.integers(1, 80),
        "hidden_size": st.sampled_from([64, 256, 1024, 4096, 8192]),
        "intermediate_size": st.integers(64, 32_000),
        "sequence_length": st.integers(8, 8192),
        "per_device_batch_size": st.sampled_from([1, 2, 4, 8]),
        "num_processes": st.sampled_from([2, 4, 8]),
        "gradient_checkpointing": st.booleans(),
        "model_type": st.sampled_from(["llama", "gpt2"]),
    }
)


def drawn(fields: dict[str, Any], **more: Any) -> TrainSpec:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "train_batch_size": 64}
    return small_spec(**{**heads, **fields, **more})


@given(fields=SPECS, precision=st.sampled_from(["fp32", "bf16"]), kind=st.sampled_from(["cpu", "cuda"]))
def test_a_higher_zero_stage_never_needs_more(fields: dict[str, Any], precision: str, kind: str) -> None:
    parts = [estimate_memory(drawn(fields, zero_stage=stage), 32_000, precision, kind) for stage in range(4)]
    for lower, higher in itertools.pairwise(parts):
        assert higher.states <= lower.states
    assert parts[2].total <= parts[1].total
    if kind == "cuda":  # without a GPU, what DeepSpeed itself holds may be more than a small model's optimizer
        assert parts[1].total <= parts[0].total
    # ZeRO-3 gathers up to MAX_LIVE weights: it pays where sharding spares more than that. Its loss holds all logits.
    width = 4 if precision == "fp32" else 2
    if parts[2].weights - parts[3].weights >= MAX_LIVE * width:
        assert parts[3].total <= parts[2].total + 2 * parts[3].logits


@given(fields=SPECS, precision=st.sampled_from(["fp32", "bf16"]))
def test_more_of_anything_never_needs_less(fields: dict[str, Any], precision: str) -> None:
    spec = drawn(fields)
    total = estimate_memory(spec, 32_000, precision).total
    for name in ("num_hidden_layers", "intermediate_size", "sequence_length"):
        more = spec.model_copy(update={name: 2 * getattr(spec, name)})
        assert estimate_memory(more, 32_000, precision).total >= total, name
    larger = {name: 2 * getattr(spec, name) for name in ("per_device_batch_size", "train_batch_size")}
    assert estimate_memory(spec.model_copy(update=larger), 32_000, precision).total >= total
    assert estimate_memory(spec, 64_000, precision).total >= total


@given(fields=SPECS)
def test_offload_and_checkpointing_reduce_memory(fields: dict[str, Any]) -> None:
    spec = drawn(fields, zero_stage=3)
    on_gpu = estimate_memory(spec, 32_000, "bf16").total
    off_gpu = spec.model_copy(update={"offload_optimizer": True})
    optimizer = estimate_memory(off_gpu, 32_000, "bf16").total
    both = estimate_memory(off_gpu.model_copy(update={"offload_parameters": True}), 32_000, "bf16").total
    assert both < optimizer < on_gpu
    if spec.num_hidden_layers > 1:
        assert estimate_memory(spec.model_copy(update={"gradient_checkpointing": True}), 32_000, "bf16").total <= on_gpu


def test_kept_checkpoints_follow_the_retention_rules() -> None:
    assert num_kept_checkpoints(small_spec(max_steps=1000, save_steps=100)) == 10
    assert (
        num_kept_checkpoints(small_spec(max_steps=1000, save_steps=100, save_total_limit=2, keep_every=5)) == 2 + 2 + 1
    )
    assert num_kept_checkpoints(small_spec(max_steps=20, save_steps=10, save_total_limit=5)) == 2
    early = {"early_stopping_patience": 3, "eval_steps": 30}  # each evaluation may be the best so far, and is saved
    assert num_kept_checkpoints(small_spec(max_steps=90, save_steps=45, **early)) == 2 + 3
    assert num_kept_checkpoints(small_spec(max_steps=90, save_steps=45, save_total_limit=2, **early)) == 2 + 0 + 1


@pytest.mark.parametrize("is_bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", [{}, {"model_type": "gpt2", "num_key_value_heads": 4}], ids=["llama", "gpt2"])
def test_activations_are_about_what_autograd_keeps(shape: dict[str, Any], is_bf16: bool) -> None:
    fields = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6, "num_key_value_heads": 4}
    spec = small_spec(**{**fields, **shape})
    model = objective(spec, init_model(spec, 300, 0, 1, torch.device("cpu")).train())
    if is_bf16:
        model.bfloat16()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage
        return tensor

    tokens = torch.zeros(spec.per_device_batch_size, spec.sequence_length, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        model(tokens, tokens)
    measured = sum(storage.nbytes() for storage in saved.values())

    precision = "bf16" if is_bf16 else "fp32"
    assert estimate_memory(spec, 300, precision).activations == pytest.approx(measured, rel=0.15)
