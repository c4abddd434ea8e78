"""What a plan says of a job: whether it fits, what it costs, and why."""

import json

import pytest

from tests.trainer.runs import small_spec
from trainer.planning.hardware import Node
from trainer.planning.plan import Plan, plan
from trainer.spec import TrainSpec, recipe, resolve

GB = 10**9
LAPTOP = Node(memory_bytes=16 << 30, num_cpus=4)
EIGHT = Node(kind="cuda", name="NVIDIA H100 80GB HBM3", count=8, memory_bytes=80 * GB, host_memory_bytes=2000 * GB)


def seven_billion(**fields: object) -> TrainSpec:
    return resolve({"recipe": "llama-7b", "corpora": ["c"], **fields})


def said(made: Plan) -> str:
    return made.reason.format(**made.values)


@pytest.mark.parametrize(("name", "millions"), [("gpt2-124m", 124.4), ("llama-7b", 6738.4)])
def test_the_recipes_have_the_sizes_they_are_named_after(name: str, millions: float) -> None:
    fields = recipe(name)
    spec = resolve({"recipe": name, "corpora": ["c"]})

    assert plan(spec, fields["vocab_size"]).num_parameters / 1e6 == pytest.approx(millions, abs=0.1)


def test_tokens_and_epochs_follow_from_steps() -> None:
    made = plan(small_spec(max_steps=100), 384, None, 33_000)

    assert made.num_tokens == 100 * 8 * 32
    assert made.num_epochs == pytest.approx(made.num_tokens / (10_000 * 0.95))


def test_it_says_whether_a_job_fits() -> None:
    spec = seven_billion()
    tight = EIGHT.model_copy(update={"memory_bytes": 8 * GB})

    assert (plan(spec, 32_000, EIGHT).fits, plan(spec, 32_000, tight).fits, plan(spec, 32_000).fits) == (
        True,
        False,
        None,
    )
    assert "has" in plan(spec, 32_000, EIGHT).reason
    assert plan(spec, 32_000, tight).values["available_bytes"] == 8 * GB


def test_what_barely_fits_is_called_tight() -> None:
    spec = seven_billion()
    needed = plan(spec, 32_000, EIGHT).memory_bytes
    made = plan(spec, 32_000, EIGHT.model_copy(update={"memory_bytes": needed}))

    assert made.fits
    assert "may just fit" in made.reason


def test_a_job_that_does_not_fit_is_told_the_cheapest_change() -> None:
    made = plan(seven_billion(zero_stage=0), 32_000, EIGHT)

    assert made.fits is False
    assert made.remedy is not None
    assert made.remedy.said in said(made)
    assert "zero_stage=" in said(made)


def test_more_processes_than_gpus_are_refused_with_the_range() -> None:
    made = plan(seven_billion(num_processes=16), 32_000, EIGHT)

    assert made.fits is False
    assert "num_processes is 16" in said(made)
    assert "from 1 to 8" in said(made)


def test_processes_on_gpus_want_memory_of_the_machine_too() -> None:
    made = plan(seven_billion(), 32_000, EIGHT.model_copy(update={"host_memory_bytes": 1 << 30}))

    assert made.fits is False
    assert "machine's own memory" in made.reason


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
    made = plan(small_spec(precision="fp32"), 384)
    assert made.checkpoint_bytes == 4 * made.num_parameters


def test_to_go_on_from_a_checkpoint_takes_the_moments_and_under_bf16_the_master_copy_too() -> None:
    whole, half = (plan(small_spec(precision=precision), 384) for precision in ("fp32", "bf16"))

    assert whole.resume_bytes == 8 * whole.num_parameters
    assert half.resume_bytes == 12 * half.num_parameters


def test_the_disk_holds_the_kept_checkpoints_one_being_written_and_the_tokens() -> None:
    spec = small_spec(max_steps=1000, save_steps=10, save_total_limit=3, keep_every=20)
    made = plan(spec, 384, LAPTOP, 33_000)

    each = (4 + 8) * made.num_parameters
    kept = 3 + 100 // 20 + 1  # the newest, each twentieth of a hundred saves, the best
    assert made.figures["disk_bytes"].value == (kept + 1) * each + 10_000 * 2


def test_without_a_limit_all_checkpoints_are_kept() -> None:
    made = plan(small_spec(max_steps=95, save_steps=10), 384, LAPTOP)
    assert made.figures["disk_bytes"].reason.values["num_checkpoints"] == 10


def test_every_figure_lies_in_its_interval_and_has_a_reason() -> None:
    for spec, node in ((small_spec(), LAPTOP), (seven_billion(), EIGHT)):
        made = plan(spec, 32_000, node, 10**9)
        assert {"memory_bytes", "flops", "disk_bytes", "step_seconds", "total_seconds"} <= set(made.figures)
        for name, figure in made.figures.items():
            assert figure.low <= figure.value <= figure.high, name
            assert figure.reason.text.format(**figure.reason.values)


def test_without_a_node_no_time_is_told() -> None:
    assert set(plan(small_spec(), 384).figures) == {"memory_bytes", "flops", "disk_bytes"}


def test_energy_and_cost_are_told_where_power_and_price_are_known() -> None:
    spec = small_spec()
    priced = LAPTOP.model_copy(update={"watts": 100.0, "price_per_hour": 2.0, "price_per_kwh": 0.5})
    made, plain = plan(spec, 384, priced), plan(spec, 384, LAPTOP)

    seconds = made.figures["total_seconds"].value
    assert made.figures["energy_kwh"].value == pytest.approx(100 * seconds / 3.6e6)
    assert made.figures["cost"].value == pytest.approx(2 * seconds / 3600 + 0.5 * 100 * seconds / 3.6e6)
    assert not {"energy_kwh", "cost"} & set(plain.figures)
    assert plan(seven_billion(), 32_000, EIGHT).figures["energy_kwh"].reason.values == {"num_devices": 8, "watts": 700}


def notes(spec: TrainSpec, node: Node, num_bytes: int | None = None) -> str:
    return " ".join(note.text.format(**note.values) for note in plan(spec, 384, node, num_bytes).notes)


def test_it_says_where_the_rates_come_from() -> None:
    assert "4 processor cores" in notes(small_spec(), LAPTOP)
    assert "measured at" in notes(small_spec(), LAPTOP.model_copy(update={"gemm_flops": 1e11}))
    assert "published for NVIDIA H100" in notes(small_spec(), EIGHT)
    assert "Nothing is known about Oddity" in notes(small_spec(), EIGHT.model_copy(update={"name": "Oddity"}))


def test_it_says_when_sharding_buys_nothing() -> None:
    assert "buys nothing" in notes(small_spec(num_processes=2, zero_stage=2), LAPTOP)
    assert "buys nothing" not in notes(small_spec(num_processes=2), LAPTOP)
    assert "buys nothing" not in " ".join(note.text for note in plan(seven_billion(), 32_000, EIGHT).notes)


def test_it_warns_of_emulated_bf16_and_of_text_gone_through_too_often() -> None:
    assert "emulated" in notes(small_spec(precision="bf16"), LAPTOP)
    assert "emulated" not in notes(small_spec(), LAPTOP)
    assert "beyond about 4" in notes(small_spec(max_steps=1000), LAPTOP, 10_000)


def test_a_plan_is_plain_data() -> None:
    made = plan(seven_billion(zero_stage=0), 32_000, EIGHT, 10**9)
    assert Plan.model_validate(json.loads(made.model_dump_json())) == made


def test_corrections_of_a_node_scale_memory_and_time() -> None:
    spec = small_spec()
    corrected = LAPTOP.model_copy(update={"memory_correction": 1.5, "time_correction": 2.0})
    before, after = plan(spec, 384, LAPTOP), plan(spec, 384, corrected)

    assert after.figures["memory_bytes"].value == pytest.approx(1.5 * before.figures["memory_bytes"].value)
    assert after.values["needed_bytes"] == int(1.5 * before.memory_bytes)
    assert after.figures["step_seconds"].value == pytest.approx(2 * before.figures["step_seconds"].value)
    assert after.figures["total_seconds"].value == pytest.approx(2 * before.figures["total_seconds"].value)
