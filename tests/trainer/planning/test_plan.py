"""The plan of a job: whether it fits, what it costs, and the reasons it gives."""

import json
import math

import pytest

from tests.trainer.runs import small_spec
from trainer.planning.hardware import NodeHardware
from trainer.planning.plan import Plan, plan
from trainer.planning.training_data import TrainingData
from trainer.spec import TrainSpec, recipe, resolve

GB = 10**9
LAPTOP = NodeHardware(memory_bytes=16 << 30, num_cpus=4)
EIGHT = NodeHardware(
    kind="cuda", name="NVIDIA H100 80GB HBM3", count=8, memory_bytes=80 * GB, host_memory_bytes=2000 * GB
)


def seven_billion(**fields: object) -> TrainSpec:
    return resolve({"recipe": "llama-7b", "corpora": ["c"], **fields})


def reason(job: Plan) -> str:
    return str(job.verdict)


@pytest.mark.parametrize(("name", "millions"), [("gpt2-124m", 124.4), ("llama-7b", 6738.4)])
def test_recipes_have_the_sizes_in_their_names(name: str, millions: float) -> None:
    fields = recipe(name)
    spec = resolve({"recipe": name, "corpora": ["c"]})

    assert plan(spec, fields["vocab_size"]).num_parameters / 1e6 == pytest.approx(millions, abs=0.1)


def test_tokens_and_epochs_follow_from_steps() -> None:
    job = plan(small_spec(max_steps=100), 384, None, TrainingData(num_bytes=33_000, num_tokens=10_000))

    assert job.num_tokens == 100 * 8 * 32
    num_sequences = (10_000 - 1) // 32
    assert job.num_epochs == 100 * 8 / (num_sequences - int(num_sequences * 0.05))


def test_steps_follow_from_epochs() -> None:
    data = TrainingData(num_bytes=33_000, num_tokens=10_000)
    job = plan(small_spec(max_steps=None, num_train_epochs=2.5, save_steps=30), 384, None, data)

    num_train = 312 - 15  # sequences of 32 tokens, 5 % of them held out
    assert job.max_steps == math.ceil(2.5 * num_train / 8) == 93
    assert job.num_epochs == 2.5
    assert job.figures["disk_bytes"].reason.values["num_checkpoints"] == 4
    with pytest.raises(ValueError, match="size of the corpora"):
        plan(small_spec(max_steps=None, num_train_epochs=1), 384)


def test_epochs_of_records_count_records() -> None:
    classifier = small_spec(objective="classification", model_type="bert", num_key_value_heads=4, max_steps=100)
    data = TrainingData(num_bytes=20_000, num_records=64)
    assert plan(classifier, 384, None, data).num_epochs == pytest.approx(100 * 8 / 61)  # 5 % of 64 are held out

    unpacked = small_spec(objective="completion", packing=False, max_steps=100)
    assert plan(unpacked, 384, None, data).num_epochs == pytest.approx(100 * 8 / 61)
    packed = small_spec(objective="completion", sequence_length=128, max_steps=100)
    counted = TrainingData(num_bytes=20_000, num_records=64, num_tokens=64 * 30, lengths={8: 64})
    # 20 to 40 tokens a record, 30 on average: four to a sequence of 128
    assert plan(packed, 384, None, counted).num_epochs == pytest.approx(100 * 8 / (61 / 4), rel=0.05)


def test_it_says_whether_a_job_fits() -> None:
    spec = seven_billion()
    tight = EIGHT.model_copy(update={"memory_bytes": 8 * GB})

    assert (plan(spec, 32_000, EIGHT).fits, plan(spec, 32_000, tight).fits, plan(spec, 32_000).fits) == (
        True,
        False,
        None,
    )
    assert "and has" in reason(plan(spec, 32_000, EIGHT))
    assert plan(spec, 32_000, tight).verdict.values["available_bytes"] == 8 * GB


def test_a_job_that_barely_fits_is_reported_as_tight() -> None:
    spec = seven_billion()
    needed = plan(spec, 32_000, EIGHT).memory_bytes
    job = plan(spec, 32_000, EIGHT.model_copy(update={"memory_bytes": needed}))

    assert job.fits
    assert "may only just fit" in reason(job)


def test_the_verdict_of_a_job_that_does_not_fit_names_the_cheapest_fix() -> None:
    job = plan(seven_billion(zero_stage=0), 32_000, EIGHT)

    assert job.fits is False
    assert job.remedy is not None
    assert job.remedy.text in reason(job)
    assert "zero_stage=" in reason(job)


def test_more_processes_than_gpus_are_refused_with_the_range() -> None:
    job = plan(seven_billion(num_processes=16), 32_000, EIGHT)

    assert job.fits is False
    assert "num_processes is 16" in reason(job)
    assert "from 1 to 8" in reason(job)


def test_gpu_processes_need_host_memory_too() -> None:
    job = plan(seven_billion(), 32_000, EIGHT.model_copy(update={"host_memory_bytes": 1 << 30}))

    assert job.fits is False
    assert "host memory" in reason(job)


def test_only_what_certainly_cannot_fit_is_impossible() -> None:
    spec = seven_billion()
    needed = plan(spec, 32_000, EIGHT).memory_bytes

    def on(memory_bytes: int) -> Plan:
        return plan(spec, 32_000, EIGHT.model_copy(update={"memory_bytes": memory_bytes}))

    assert not on(needed - 1).fits
    assert not on(needed - 1).is_impossible
    assert on(needed // 2).is_impossible
    assert not plan(spec, 32_000).is_impossible


def test_checkpoints_take_the_bytes_of_the_weights() -> None:
    job = plan(small_spec(precision="fp32"), 384)
    assert job.checkpoint_bytes == 4 * job.num_parameters


def test_resuming_needs_the_moments_and_under_bf16_the_fp32_weights_too() -> None:
    fp32, bf16 = (plan(small_spec(precision=precision), 384) for precision in ("fp32", "bf16"))

    assert fp32.resume_bytes == 8 * fp32.num_parameters
    assert bf16.resume_bytes == 12 * bf16.num_parameters


def test_the_disk_holds_the_kept_checkpoints_one_being_written_and_the_tokens() -> None:
    spec = small_spec(max_steps=1000, save_steps=10, save_total_limit=3, keep_every=20)
    job = plan(spec, 384, LAPTOP, TrainingData(num_bytes=33_000))

    each = (4 + 8) * job.num_parameters
    kept = 3 + 100 // 20 + 1  # the newest, each twentieth of a hundred saves, the best
    assert job.figures["disk_bytes"].value == (kept + 1) * each + 10_000 * 2


def test_without_a_limit_all_checkpoints_are_kept() -> None:
    job = plan(small_spec(max_steps=95, save_steps=10), 384, LAPTOP)
    assert job.figures["disk_bytes"].reason.values["num_checkpoints"] == 10


def test_every_figure_lies_in_its_interval_and_has_a_reason() -> None:
    for spec, node in ((small_spec(), LAPTOP), (seven_billion(), EIGHT)):
        job = plan(spec, 32_000, node, TrainingData(num_bytes=10**9))
        assert {"memory_bytes", "flops", "disk_bytes", "step_seconds", "total_seconds"} <= set(job.figures)
        for name, figure in job.figures.items():
            assert figure.low <= figure.value <= figure.high, name
            assert str(figure.reason)


def test_without_a_node_there_is_no_time_estimate() -> None:
    assert set(plan(small_spec(), 384).figures) == {"memory_bytes", "flops", "disk_bytes"}


def test_energy_needs_a_known_power_and_cost_needs_a_price() -> None:
    spec = small_spec()
    priced = LAPTOP.model_copy(update={"watts": 100.0, "price_per_hour": 2.0, "price_per_kwh": 0.5})
    job, plain = plan(spec, 384, priced), plan(spec, 384, LAPTOP)

    seconds = job.figures["total_seconds"].value
    assert job.figures["energy_kwh"].value == pytest.approx(100 * seconds / 3.6e6)
    assert job.figures["cost"].value == pytest.approx(2 * seconds / 3600 + 0.5 * 100 * seconds / 3.6e6)
    assert not {"energy_kwh", "cost"} & set(plain.figures)
    assert plan(seven_billion(), 32_000, EIGHT).figures["energy_kwh"].reason.values == {"num_devices": 8, "watts": 700}


def notes(spec: TrainSpec, node: NodeHardware, num_bytes: int = 0) -> str:
    return " ".join(str(note) for note in plan(spec, 384, node, TrainingData(num_bytes=num_bytes)).notes)


def test_a_note_says_where_the_rates_come_from() -> None:
    assert "CPU cores (4 here)" in notes(small_spec(), LAPTOP)
    assert "speed measured on this machine" in notes(small_spec(), LAPTOP.model_copy(update={"gemm_flops": 1e11}))
    assert "published specs of NVIDIA H100" in notes(small_spec(), EIGHT)
    assert "No published specs for Oddity" in notes(small_spec(), EIGHT.model_copy(update={"name": "Oddity"}))


def test_a_note_says_when_sharding_is_not_needed() -> None:
    assert "not needed" in notes(small_spec(num_processes=2, zero_stage=2), LAPTOP)
    assert "not needed" not in notes(small_spec(num_processes=2), LAPTOP)
    assert "not needed" not in " ".join(str(note) for note in plan(seven_billion(), 32_000, EIGHT).notes)


def test_notes_warn_of_emulated_bf16_and_of_too_many_epochs() -> None:
    assert "emulates bf16" in notes(small_spec(precision="bf16"), LAPTOP)
    assert "emulates bf16" not in notes(small_spec(), LAPTOP)
    assert "beyond about 16" in notes(small_spec(max_steps=1000), LAPTOP, 10_000)


def test_a_plan_is_plain_data() -> None:
    job = plan(seven_billion(zero_stage=0), 32_000, EIGHT, TrainingData(num_bytes=10**9))
    assert Plan.model_validate(json.loads(job.model_dump_json())) == job


def test_corrections_of_a_node_scale_memory_and_time() -> None:
    spec = small_spec()
    corrected = LAPTOP.model_copy(update={"memory_correction": 1.5, "time_correction": 2.0})
    before, after = plan(spec, 384, LAPTOP), plan(spec, 384, corrected)

    assert after.figures["memory_bytes"].value == pytest.approx(1.5 * before.figures["memory_bytes"].value)
    assert after.verdict.values["needed_bytes"] == int(1.5 * before.memory_bytes)
    assert after.figures["step_seconds"].value == pytest.approx(2 * before.figures["step_seconds"].value)
    assert after.figures["total_seconds"].value == pytest.approx(2 * before.figures["total_seconds"].value)


def test_what_is_trained_already_costs_no_more_time() -> None:
    spec = small_spec(max_steps=100)
    whole, rest = plan(spec, 384, LAPTOP), plan(spec, 384, LAPTOP, first_step=75)
    assert rest.figures["flops"].value == pytest.approx(whole.figures["flops"].value / 4)
    assert rest.figures["total_seconds"].value < whole.figures["total_seconds"].value
    assert rest.max_steps == 100
