"""The engine: the tokens of transformers' `generate`, alone or among others; texts that end, leave, and fail."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.waiting import until
from trainer.inference import inspection
from trainer.inference.engine import PAGE_TOKENS, EngineStopped, InferenceEngine, create_engine
from trainer.inference.sampling import SamplingSettings, TokenChoice

VOCABULARY = 500
CONTEXT = 256
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=CONTEXT)
    ),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
    ),
}
GREEDY = SamplingSettings(temperature=0)


def network(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = MODELS[family]().eval()
    for parameter in model.parameters():
        parameter.data *= 3  # so that texts do not repeat one token
    return model


@pytest.fixture(scope="module", params=MODELS)
def engine(request: pytest.FixtureRequest) -> Iterator[InferenceEngine]:
    engine = create_engine(network(request.param))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def llama() -> Iterator[InferenceEngine]:
    engine = create_engine(network("llama"))
    yield engine
    engine.close()


def prompts(number: int) -> list[list[int]]:
    chance = random.Random(0)
    return [chance.choices(range(3, VOCABULARY), k=chance.randint(1, 100)) for _ in range(number)]


def write(
    engine: InferenceEngine, prompt: Sequence[int], settings: SamplingSettings, max_tokens: int = 12
) -> list[TokenChoice]:
    return list(engine.submit(prompt, settings, max_tokens=max_tokens, stop_token_ids=frozenset()))


def write_at_once(
    engine: InferenceEngine, requests: Sequence[tuple[list[int], SamplingSettings]]
) -> list[list[TokenChoice]]:
    generations = [
        engine.submit(prompt, settings, max_tokens=12, stop_token_ids=frozenset()) for prompt, settings in requests
    ]
    return [list(generation) for generation in generations]


def tokens(choices: Sequence[TokenChoice]) -> list[int]:
    return [choice.token for choice in choices]


def by_generate(model: PreTrainedModel, prompt: list[int], **options: Any) -> list[int]:
    length = 1 if model.config.is_encoder_decoder else len(prompt)
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    ids: list[int] = model.generate(torch.tensor([prompt]), **options)[0, length:].tolist()
    return ids


def test_greedy_tokens_of_200_prompts_equal_those_of_generate(
    engine: InferenceEngine,
) -> None:
    requests = [(prompt, GREEDY) for prompt in prompts(200)]

    texts = [tokens(text) for text in write_at_once(engine, requests)]

    assert texts == [by_generate(engine.model, prompt) for prompt, _settings in requests]
    assert len({tuple(text) for text in texts}) > 150, "the prompts matter"


def test_equal_seeds_give_equal_texts_alone_and_in_a_batch_of_eight(engine: InferenceEngine) -> None:
    settings = [SamplingSettings(temperature=1.2, top_p=0.9, top_k=100, seed=seed) for seed in range(8)]
    requests = list(zip(prompts(8), settings, strict=True))

    together = [tokens(text) for text in write_at_once(engine, requests)]

    assert together == [tokens(write(engine, *request)) for request in requests]
    others = [SamplingSettings(temperature=1.2, top_p=0.9, top_k=100, seed=seed + 100) for seed in range(8)]
    assert together != [tokens(write(engine, prompt, other)) for prompt, other in zip(prompts(8), others, strict=True)]


def test_log_probabilities_are_those_of_a_forward_pass(llama: InferenceEngine) -> None:
    prompt = prompts(1)[0]
    settings = SamplingSettings(temperature=0.7, top_k=5, repetition_penalty=1.3, seed=3, top_logprobs=4)
    (text, *_others) = write_at_once(llama, [(prompt, settings), *((other, GREEDY) for other in prompts(7))])

    with torch.no_grad():
        logits = network("llama")(torch.tensor([prompt + tokens(text)])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)

    for choice, row in zip(text, expected, strict=True):
        assert choice.logprob == pytest.approx(float(row[choice.token]), abs=1e-4)
        values, ids = row.topk(4)
        assert [number for number, _ in choice.top] == ids.tolist()
        assert [logprob for _, logprob in choice.top] == pytest.approx(values.tolist(), abs=1e-4)


def test_a_long_prompt_and_a_shared_beginning_change_nothing(llama: InferenceEngine) -> None:
    beginning = prompts(1)[0] * 3
    requests = [(beginning[:200] + ending, GREEDY) for ending in ([5], [6, 7], [8] * 40)]
    first = [tokens(text) for text in write_at_once(llama, requests)]

    assert first == [by_generate(llama.model, prompt) for prompt, _settings in requests]
    assert [tokens(write(llama, *request)) for request in requests] == first, "from the shared cache"


def test_a_beginning_that_another_text_had_is_not_computed_again() -> None:
    lengths: list[int] = []
    system = random.Random(1).choices(range(VOCABULARY), k=6 * PAGE_TOKENS)

    def num_computed(question: list[int]) -> int:
        lengths.clear()
        write(engine, [*system, *question], GREEDY, 4)
        return sum(lengths)

    with closing(create_engine(network("llama"))) as engine:
        embeddings = engine.model.get_input_embeddings()
        embeddings.register_forward_pre_hook(lambda _module, inputs: lengths.append(inputs[0].numel()))
        first, second = num_computed([5, 6, 7]), num_computed([8, 9])
    assert first >= len(system) + 3
    assert second <= first - len(system) + PAGE_TOKENS


def test_a_stop_token_ends_a_text_and_is_its_last(engine: InferenceEngine) -> None:
    prompt = prompts(1)[0]
    text = by_generate(engine.model, prompt)
    stop = text[4]

    generation = engine.submit(prompt, GREEDY, max_tokens=12, stop_token_ids={stop})
    ended = tokens(list(generation))
    write(engine, [7], GREEDY)  # so many steps after it

    assert ended == text[: text.index(stop) + 1]
    assert generation.text == ended, "nothing is computed after it"


def test_the_context_can_be_filled_to_its_end(llama: InferenceEngine) -> None:
    prompt = prompts(1)[0][:10]

    text = write(llama, prompt, GREEDY, max_tokens=CONTEXT - 10 + 1)

    assert len(text) == CONTEXT - 10 + 1


def test_more_texts_than_the_cache_holds_are_all_right() -> None:
    """The engine then restarts some of them from their prompt and what they have written."""
    engine = create_engine(network("gpt2"))
    requests = [
        ([*prompt, *([number] * 150)], SamplingSettings(seed=number)) for number, prompt in enumerate(prompts(30))
    ]
    requests = [(prompt[:200], settings) for prompt, settings in requests]
    generations = [
        engine.submit(prompt, settings, max_tokens=56, stop_token_ids=frozenset()) for prompt, settings in requests
    ]
    texts = [tokens(list(generation)) for generation in generations]
    alone = tokens(write(engine, *requests[7], max_tokens=56))
    engine.close()

    assert [len(text) for text in texts] == [56] * 30
    assert texts[7] == alone


def test_a_cancelled_text_is_no_longer_computed(engine: InferenceEngine) -> None:
    generation = engine.submit([5, 6], GREEDY, max_tokens=200, stop_token_ids=frozenset())
    next(iter(generation))
    engine.cancel(generation)
    write(engine, [7], GREEDY)  # a step after the cancellation
    length = len(generation.text)
    write(engine, [7], GREEDY)

    assert len(generation.text) == length < 200


def test_closing_ends_all_texts_with_an_error_and_refuses_new_ones() -> None:
    for family in ("llama", "t5"):
        engine = create_engine(network(family))
        running = engine.submit([5], GREEDY, max_tokens=250, stop_token_ids=frozenset())
        waiting = engine.submit([6], GREEDY, max_tokens=250, stop_token_ids=frozenset())
        next(iter(running))
        engine.close()

        for generation in (running, waiting):
            with pytest.raises(EngineStopped):
                list(generation)
        with pytest.raises(EngineStopped):
            write(engine, [5], GREEDY)


def test_a_failing_step_ends_the_texts_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine(network("llama"))

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(engine.model, "forward", fail)
    with pytest.raises(EngineStopped, match="allocate memory"):
        write(engine, [5], GREEDY)
    engine.close()


@pytest.mark.parametrize("family", MODELS)
def test_the_engine_pauses_after_each_step_as_long_as_a_text_is_wanted(family: str) -> None:
    wanted: list[bool] = []

    def pause(is_wanted: Callable[[], bool]) -> None:
        wanted.append(is_wanted())

    with closing(create_engine(network(family), pause)) as engine:
        generation = engine.submit([5, 6], GREEDY, max_tokens=6, stop_token_ids=frozenset())
        assert len(list(generation)) == 6
        until(lambda: len(wanted) == 6, what="the last pause")
        assert all(wanted[:5])


@pytest.mark.parametrize("family", MODELS)
def test_a_pause_ends_when_its_text_is_canceled_or_the_engine_closes(family: str) -> None:
    pauses: list[bool] = []

    def pause(is_wanted: Callable[[], bool]) -> None:
        pauses.append(True)
        until(lambda: not is_wanted(), what="the end of the pause")
        pauses[-1] = False

    engine = create_engine(network(family), pause)
    first = engine.submit([5, 6], GREEDY, max_tokens=6, stop_token_ids=frozenset())
    until(lambda: pauses == [True], what="the first pause")
    engine.cancel(first)
    until(lambda: pauses == [False], what="its end")
    second = engine.submit([5, 6], GREEDY, max_tokens=6, stop_token_ids=frozenset())
    until(lambda: pauses == [False, True], what="the second pause")
    engine.close()
    assert pauses == [False, False]
    with pytest.raises(EngineStopped):
        list(second)


def test_engines_leave_no_threads_and_no_models(recwarn: pytest.WarningsRecorder) -> None:
    before = threading.active_count()
    for _ in range(3):
        engine = create_engine(network("llama"))
        write(engine, [5], GREEDY)
        engine.close()
        del engine

    until(lambda: threading.active_count() <= before, what="the threads to end")


def test_the_model_computes_the_same_for_others_while_texts_are_generated() -> None:
    model = network("llama")
    ids = list(range(5, 60))
    expected = inspection.score(model, ids)
    with closing(create_engine(model)) as engine:
        for seed in range(40):
            text = engine.submit(range(20, 60), SamplingSettings(seed=seed), max_tokens=40, stop_token_ids=frozenset())
            assert inspection.score(model, ids) == expected
            engine.cancel(text)
