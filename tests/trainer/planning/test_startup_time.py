"""What a job does before its first step."""

from tests.trainer.runs import small_spec
from trainer.planning.hardware import NodeHardware
from trainer.planning.plan import plan
from trainer.planning.startup_time import LOAD_SECONDS, estimate_startup
from trainer.planning.training_data import TrainingData

CPU = NodeHardware(memory_bytes=16 << 30, num_cpus=2)
TEXT = TrainingData(num_bytes=60_000_000)


def test_a_new_tokenizer_is_trained_on_the_text_up_to_a_limit() -> None:
    # Measured on 20 MB of Python source: 7.0 s of one thread.
    assert 15 < estimate_startup(small_spec(), CPU, TEXT).tokenizer < 30
    huge, larger = (estimate_startup(small_spec(), CPU, TrainingData(num_bytes=size)) for size in (10**10, 10**11))
    assert huge.tokenizer == larger.tokenizer
    assert huge.tokenizing < larger.tokenizing


def test_a_chosen_tokenizer_is_not_trained_and_what_was_counted_is_not_tokenized() -> None:
    chosen = estimate_startup(small_spec(tokenizer="t", vocab_size=None), CPU, TEXT)
    assert chosen.tokenizer == 0 < chosen.tokenizing
    counted = estimate_startup(small_spec(), CPU, TEXT.model_copy(update={"num_tokens": 10**7}))
    assert counted.seconds == LOAD_SECONDS["cpu"]


def test_a_plan_has_the_time_before_the_first_step_as_a_part_of_all() -> None:
    cold = plan(small_spec(), 384, CPU, TEXT).figures
    warm = plan(small_spec(), 384, CPU, TEXT.model_copy(update={"num_tokens": 10**7})).figures
    saved = cold["startup_seconds"].value - warm["startup_seconds"].value
    assert saved > 15
    assert abs(cold["total_seconds"].value - warm["total_seconds"].value - saved) < 1e-6
    assert "Training the tokenizer" in str(cold["startup_seconds"].reason)
    assert "tokenized already" in str(warm["startup_seconds"].reason)
