"""The job proposed for a text, a node and a time."""

import pytest

from trainer.planning.config_search import fits_in_memory
from trainer.planning.counts import num_parameters
from trainer.planning.hardware import NodeHardware
from trainer.planning.plan import plan
from trainer.planning.proposals import BUDGETS, Proposal, TextData, propose, propose_each
from trainer.planning.scaling_laws import choose_vocab_size
from trainer.planning.training_data import TrainingData
from trainer.spec import resolve

CPU = NodeHardware(memory_bytes=16 << 30, num_cpus=2)
EIGHT = NodeHardware(kind="cuda", name="NVIDIA H100", count=8, memory_bytes=80 * 10**9, host_memory_bytes=10**12)
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
TEXTS = (20_000, 4 * 10**6, 10**9, 10**12)


def of(num_bytes: int, node: NodeHardware, seconds: float) -> Proposal:
    return propose(TextData(num_bytes=num_bytes), node, seconds)


def reason(proposal: Proposal, name: str) -> str:
    return str(proposal.reasons[name])


@pytest.mark.parametrize("node", [CPU, EIGHT], ids=["cpu", "gpus"])
@pytest.mark.parametrize("seconds", [MINUTE, HOUR, DAY, 30 * DAY])
@pytest.mark.parametrize("num_bytes", TEXTS)
def test_a_proposal_is_a_spec_that_fits_memory_and_text_and_has_reasons(
    num_bytes: int, seconds: float, node: NodeHardware
) -> None:
    proposal = of(num_bytes, node, seconds)
    spec = resolve({"corpora": ["c"], **proposal.fields})

    assert spec.vocab_size in (None, proposal.vocab_size)
    assert (spec.vocab_size is None) == (proposal.vocab_size == choose_vocab_size(num_bytes))
    assert proposal.num_parameters == num_parameters(spec, proposal.vocab_size)
    assert proposal.num_tokens == spec.total_steps * spec.tokens_per_step
    assert fits_in_memory(spec, proposal.vocab_size, node)
    assert proposal.num_tokens <= 16 * num_bytes / 3  # epochs, bytes per token at least
    for name in ("size", "tokens", "loss", "limit", "vocab_size", "learning_rate", "train_batch_size"):
        assert reason(proposal, name)


@pytest.mark.parametrize("node", [CPU, EIGHT], ids=["cpu", "gpus"])
@pytest.mark.parametrize("num_bytes", [60 * 10**6, 10**9])
def test_a_proposal_is_planned_to_take_its_time_or_says_what_ends_it(num_bytes: int, node: NodeHardware) -> None:
    startup = 1.1 * (num_bytes * 0.36e-6 + 20)  # seconds
    for seconds, proposal in zip(BUDGETS, propose_each(TextData(num_bytes=num_bytes), node, BUDGETS), strict=True):
        spec = resolve({"corpora": ["c"], **proposal.fields})
        planned = plan(spec, proposal.vocab_size, node, TrainingData(num_bytes=num_bytes))
        assert planned.figures["total_seconds"].value == pytest.approx(proposal.seconds)
        if seconds > startup:
            assert proposal.seconds <= 1.001 * seconds
            assert proposal.seconds >= 0.9 * seconds or proposal.limit == "text"


def test_what_an_earlier_job_prepared_leaves_more_time_for_training() -> None:
    new = of(60 * 10**6, CPU, MINUTE)
    sizes = frozenset({new.vocab_size})
    prepared = propose(TextData(num_bytes=60 * 10**6, prepared_vocab_sizes=sizes), CPU, MINUTE)
    assert prepared.num_tokens * prepared.num_parameters > 1.3 * new.num_tokens * new.num_parameters
    assert prepared.seconds == pytest.approx(MINUTE, rel=0.1)


def test_more_time_never_gives_a_higher_loss_or_a_smaller_model() -> None:
    for node in (CPU, EIGHT):
        proposals = propose_each(TextData(num_bytes=10**9), node, BUDGETS)
        for values in (
            [proposal.num_parameters for proposal in proposals],
            [-proposal.bits_per_byte for proposal in proposals],
        ):
            assert values == sorted(values)
            assert values[0] < values[-1]
    by_text = [of(num_bytes, EIGHT, 30 * DAY).num_parameters for num_bytes in TEXTS]
    assert by_text == sorted(by_text)


def test_each_of_several_times_gets_what_it_gets_alone() -> None:
    text = TextData(num_bytes=10**9)
    together = propose_each(text, CPU, [DAY, MINUTE, HOUR])
    assert [each.fields for each in together] == [propose(text, CPU, time).fields for time in (DAY, MINUTE, HOUR)]


def test_with_enough_text_a_model_sees_about_20_tokens_per_parameter() -> None:
    for seconds in (DAY, 10 * DAY, 100 * DAY):
        proposal = of(10**12, EIGHT, seconds)
        assert 8 < proposal.num_tokens / proposal.num_parameters < 40
        assert "Hoffmann et al. 2022" in reason(proposal, "size")


def test_little_text_limits_the_size_and_is_repeated_at_most_16_times() -> None:
    proposal = of(10**8, EIGHT, 30 * DAY)

    assert (proposal.limit, proposal.seconds < DAY) == ("text", True)
    assert "more text would help" in reason(proposal, "size")
    assert "With ten times the text" in reason(proposal, "limit")
    values = proposal.reasons["limit"].values
    assert 10 < values["gain"] < 30  # 10^2 times the compute: 1 - 100^-0.05 = 21 %
    assert values["possible_seconds"] > 5 * values["used_seconds"]
    tiny = of(20_000, EIGHT, 30 * DAY)
    assert "Muennighoff et al. 2023" in reason(tiny, "tokens")


def test_ten_times_the_time_lowers_the_loss_by_the_exponent_of_the_law() -> None:
    proposal = of(10**9, CPU, HOUR)
    assert proposal.limit == "time"
    assert proposal.reasons["limit"].values["gain"] == pytest.approx(11, abs=2)  # 1 - 10^-0.05


def test_a_node_with_little_memory_limits_the_size() -> None:
    small = EIGHT.model_copy(update={"memory_bytes": 8 * 10**9})
    proposal = of(10**12, small, 300 * DAY)

    assert proposal.limit == "memory"
    assert "memory" in reason(proposal, "size")
    assert "four times the memory" in reason(proposal, "limit")
    with pytest.raises(ValueError, match="too little memory"):
        of(10**9, NodeHardware(memory_bytes=1 << 20), HOUR)
    with pytest.raises(ValueError, match="too few to learn"):
        of(100, CPU, HOUR)


def test_the_loss_of_earlier_jobs_corrects_the_expected_one() -> None:
    plain = propose(TextData(num_bytes=10**9), CPU, HOUR)
    learned = propose(TextData(num_bytes=10**9, loss_ratio=0.7, num_earlier_jobs=2), CPU, HOUR)
    assert learned.bits_per_byte == pytest.approx(0.7 * plain.bits_per_byte)
    assert (learned.fields, learned.reasons["loss"].values) == (plain.fields, {"num_jobs": 2})


def test_larger_trainings_take_lower_rates_and_larger_batches() -> None:
    small, large = of(10**8, CPU, HOUR).fields, of(10**12, EIGHT, 10 * DAY).fields

    assert large["learning_rate"] < small["learning_rate"]
    tokens = [fields["train_batch_size"] * fields["sequence_length"] for fields in (small, large)]
    assert tokens[0] < tokens[1]


@pytest.mark.parametrize(
    ("num_bytes", "seconds", "lack"), [(20_000, HOUR, "too little text"), (10**9, 1.0, "too little time")]
)
def test_the_reason_of_the_smallest_size_says_what_there_is_too_little_of(
    num_bytes: int, seconds: float, lack: str
) -> None:
    assert lack in reason(of(num_bytes, CPU, seconds), "size")
