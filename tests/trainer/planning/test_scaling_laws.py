"""The job proposed for a text, a node and a time."""

import pytest

from trainer.planning.config_search import fits_in_memory
from trainer.planning.counts import num_parameters
from trainer.planning.hardware import NodeHardware
from trainer.planning.scaling_laws import BYTES_PER_TOKEN, Proposal, choose_vocab_size, propose
from trainer.spec import resolve

CPU = NodeHardware(memory_bytes=16 << 30, num_cpus=2)
EIGHT = NodeHardware(kind="cuda", name="NVIDIA H100", count=8, memory_bytes=80 * 10**9, host_memory_bytes=10**12)
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
TEXTS = (20_000, 4 * 10**6, 10**9, 10**12)


def reason(proposal: Proposal, name: str) -> str:
    return str(proposal.reasons[name])


@pytest.mark.parametrize("node", [CPU, EIGHT], ids=["cpu", "gpus"])
@pytest.mark.parametrize("seconds", [MINUTE, HOUR, DAY, 30 * DAY])
@pytest.mark.parametrize("num_bytes", TEXTS)
def test_a_proposal_is_a_spec_that_fits_memory_and_text_and_has_reasons(
    num_bytes: int, seconds: float, node: NodeHardware
) -> None:
    proposal = propose(num_bytes, node, seconds)
    spec = resolve({"corpora": ["c"], **proposal.fields})

    assert spec.vocab_size is not None
    assert proposal.num_parameters == num_parameters(spec, spec.vocab_size)
    assert proposal.num_tokens == spec.max_steps * spec.tokens_per_step
    assert fits_in_memory(spec, spec.vocab_size, node)
    assert proposal.num_tokens <= 1.1 * 4 * num_bytes / BYTES_PER_TOKEN
    for name in ("size", "tokens", "vocab_size", "learning_rate", "train_batch_size"):
        assert reason(proposal, name)


def test_with_enough_text_and_time_a_proposal_is_compute_optimal() -> None:
    proposal = propose(10**12, EIGHT, DAY)

    assert proposal.num_tokens / proposal.num_parameters == pytest.approx(20, rel=0.05)
    assert "Hoffmann et al. 2022" in reason(proposal, "size")
    assert proposal.seconds <= DAY


def test_little_text_limits_the_size_and_is_repeated_at_most_four_times() -> None:
    proposal = propose(10**8, EIGHT, 30 * DAY)

    assert proposal.num_tokens <= 1.1 * 4 * 10**8 / BYTES_PER_TOKEN
    assert "more text would help" in reason(proposal, "size")
    tiny = propose(20_000, EIGHT, 30 * DAY)
    assert "Muennighoff et al. 2023" in reason(tiny, "tokens")


def test_a_node_with_little_memory_limits_the_size() -> None:
    small = EIGHT.model_copy(update={"memory_bytes": 8 * 10**9})
    proposal = propose(10**12, small, 300 * DAY)

    assert "memory" in reason(proposal, "size")
    with pytest.raises(ValueError, match="too little memory"):
        propose(10**9, NodeHardware(memory_bytes=1 << 20), HOUR)
    with pytest.raises(ValueError, match="too few to learn"):
        propose(100, CPU, HOUR)


def test_more_time_and_more_text_never_propose_a_smaller_model() -> None:
    for node in (CPU, EIGHT):
        by_time = [propose(10**10, node, seconds).num_parameters for seconds in (HOUR, DAY, 10 * DAY, 100 * DAY)]
        assert by_time == sorted(by_time)
        assert by_time[0] < by_time[-1]
    by_text = [propose(num_bytes, EIGHT, 30 * DAY).num_parameters for num_bytes in TEXTS]
    assert by_text == sorted(by_text)


def test_larger_trainings_take_lower_rates_and_larger_batches() -> None:
    small, large = propose(10**8, CPU, HOUR).fields, propose(10**12, EIGHT, 10 * DAY).fields

    assert large["learning_rate"] < small["learning_rate"]
    tokens = [fields["train_batch_size"] * fields["sequence_length"] for fields in (small, large)]
    assert tokens[0] < tokens[1]


def test_most_of_the_time_is_used() -> None:
    proposal = propose(10**12, EIGHT, 10 * DAY)
    assert 5 * DAY < proposal.seconds <= 10 * DAY


def test_the_vocabulary_follows_the_text_within_limits() -> None:
    assert [choose_vocab_size(size) for size in (0, 10**9, 10**14)] == [2048, 31_616, 65_536]


@pytest.mark.parametrize(
    ("num_bytes", "seconds", "lack"), [(20_000, HOUR, "too little text"), (10**9, 1.0, "too little time")]
)
def test_the_reason_of_the_smallest_size_says_what_there_is_too_little_of(
    num_bytes: int, seconds: float, lack: str
) -> None:
    assert lack in reason(propose(num_bytes, CPU, seconds), "size")
