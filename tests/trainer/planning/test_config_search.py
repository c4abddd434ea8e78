"""The cheapest fix makes a job fit, the chosen setting is the fastest, and more memory never hurts."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.runs import small_spec
from trainer.planning.config_search import Fix, cheapest_fix, fastest_fitting_spec, fits_in_memory
from trainer.planning.hardware import NodeHardware
from trainer.planning.step_time import estimate_step_time
from trainer.spec import TrainSpec, resolve

GB = 10**9


def gpus(count: int, gigabytes: float, name: str = "NVIDIA A100", host: int | None = None) -> NodeHardware:
    return NodeHardware(
        kind="cuda",
        name=name,
        count=count,
        memory_bytes=int(gigabytes * GB),
        host_memory_bytes=host * GB if host is not None else None,
    )


def seven_billion(**fields: Any) -> TrainSpec:
    return resolve({"recipe": "llama-7b", "corpora": ["c"], **fields})


def changed(spec: TrainSpec, remedy: Fix) -> TrainSpec:
    return TrainSpec.model_validate({**spec.model_dump(), **remedy.changes})


@pytest.mark.parametrize(
    ("fields", "node", "changes"),
    [
        ({"zero_stage": 0, "num_processes": 8}, gpus(8, 80), {"zero_stage": 1}),
        ({"per_device_batch_size": 128}, gpus(8, 80), {"per_device_batch_size": 16}),
        ({"num_processes": 4, "per_device_batch_size": 1}, gpus(4, 24, host=256), {"offload_optimizer": True}),
        ({"num_processes": 1, "zero_stage": 0, "base_model": "b"}, gpus(1, 24, host=64), {"tuning": "lora"}),
    ],
    ids=["shard", "smaller micro-batch", "offload", "adapters"],
)
def test_the_cheapest_fix_for_llama_7b(fields: dict[str, Any], node: NodeHardware, changes: dict[str, Any]) -> None:
    remedy = cheapest_fix(seven_billion(**fields), 32_000, node)
    assert remedy is not None
    assert remedy.changes == changes


def test_without_a_base_model_lora_is_not_a_fix() -> None:
    remedy = cheapest_fix(seven_billion(num_processes=1, zero_stage=0), 32_000, gpus(1, 24, host=64))

    assert remedy is not None
    assert remedy.changes["num_hidden_layers"] < 32
    assert not remedy.keeps_result


def test_one_layer_more_would_not_fit() -> None:
    spec, node = seven_billion(num_processes=1, zero_stage=0), gpus(1, 24, host=32)
    remedy = cheapest_fix(spec, 32_000, node)
    assert remedy is not None
    deeper = changed(spec, remedy).model_copy(update={"num_hidden_layers": remedy.changes["num_hidden_layers"] + 1})

    assert fastest_fitting_spec(deeper, 32_000, node) is None


def test_without_any_fitting_setting_there_is_no_fix() -> None:
    assert cheapest_fix(seven_billion(num_processes=1, zero_stage=0), 32_000, gpus(1, 1)) is None
    assert fastest_fitting_spec(seven_billion(num_processes=1, zero_stage=0), 32_000, gpus(1, 24)) is None


def test_offload_is_not_a_fix_if_host_memory_is_too_small() -> None:
    spec = seven_billion(num_processes=4, per_device_batch_size=1, base_model="b")
    enough, too_little = (cheapest_fix(spec, 32_000, gpus(4, 24, host=host)) for host in (256, 100))

    assert enough is not None
    assert too_little is not None
    assert enough.changes == {"offload_optimizer": True}
    assert too_little.changes["tuning"] == "lora"


SPECS = st.fixed_dictionaries(
    {
        "num_hidden_layers": st.integers(1, 60),
        "hidden_size": st.sampled_from([64, 512, 2048, 4096]),
        "intermediate_size": st.integers(64, 16_000),
        "sequence_length": st.sampled_from([128, 1024, 4096]),
        "per_device_batch_size": st.sampled_from([1, 2, 8, 32]),
        "num_processes": st.sampled_from([1, 2, 4]),
        "zero_stage": st.integers(0, 3),
        "gradient_checkpointing": st.booleans(),
        "model_type": st.sampled_from(["llama", "gpt2"]),
    }
)
NODES = st.builds(gpus, st.sampled_from([1, 4]), st.integers(2, 140), host=st.sampled_from([32, 256])) | st.builds(
    NodeHardware, memory_bytes=st.integers(1 << 30, 256 << 30)
)


def spec_of(fields: dict[str, Any]) -> TrainSpec:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "train_batch_size": 128}
    return small_spec(**{**heads, **fields})


@settings(deadline=None)
@given(fields=SPECS, node=NODES)
def test_a_fix_makes_the_job_fit_and_is_a_valid_spec(fields: dict[str, Any], node: NodeHardware) -> None:
    spec = spec_of(fields)
    remedy = cheapest_fix(spec, 32_000, node)
    if remedy is not None:
        assert fits_in_memory(changed(spec, remedy), 32_000, node)


@settings(deadline=None)
@given(fields=SPECS, node=NODES)
def test_the_chosen_setting_fits_and_computes_the_same(fields: dict[str, Any], node: NodeHardware) -> None:
    spec = spec_of(fields)
    chosen = fastest_fitting_spec(spec, 32_000, node)
    if chosen is None:
        assert not fits_in_memory(spec, 32_000, node)
        return
    assert fits_in_memory(chosen, 32_000, node)
    same = ("hidden_size", "num_hidden_layers", "train_batch_size", "max_steps", "sequence_length", "learning_rate")
    assert all(getattr(chosen, name) == getattr(spec, name) for name in same)
    TrainSpec.model_validate(chosen.model_dump())


@settings(deadline=None)
@given(fields=SPECS, node=NODES, more=st.integers(0, 10 * GB))
def test_more_memory_never_makes_it_not_fit(fields: dict[str, Any], node: NodeHardware, more: int) -> None:
    spec = spec_of(fields)
    larger = node.model_copy(update={"memory_bytes": node.memory_bytes + more})
    assert fits_in_memory(spec, 32_000, larger) or not fits_in_memory(spec, 32_000, node)
    assert (fastest_fitting_spec(spec, 32_000, larger) is not None) or (
        fastest_fitting_spec(spec, 32_000, node) is None
    )


def test_the_choice_is_the_fastest_of_all_settings() -> None:
    spec, node = seven_billion(), gpus(8, 80)
    chosen = fastest_fitting_spec(spec, 32_000, node)
    assert chosen is not None
    best = estimate_step_time(chosen, 32_000, node).seconds
    for size in (1, 2):
        for stage in (0, 1, 2, 3):
            for is_checkpointing in (False, True):
                update = {"per_device_batch_size": size, "zero_stage": stage}
                other = spec.model_copy(update={**update, "gradient_checkpointing": is_checkpointing})
                if fits_in_memory(other, 32_000, node, fraction=0.95):
                    assert estimate_step_time(other, 32_000, node).seconds >= best / 1.1


def test_an_unsupported_precision_is_replaced_by_auto() -> None:
    chosen = fastest_fitting_spec(small_spec(precision="bf16"), 384, NodeHardware(memory_bytes=16 << 30))
    assert chosen is not None
    assert chosen.precision == "auto"
