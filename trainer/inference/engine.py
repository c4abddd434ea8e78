"""Generates many texts with one model at once. Imports torch and transformers.

Decoders run in transformers' continuous batching (see docs/decisions/0031-inference-engine.md): texts join and leave
the batch at each step, and prompts that begin alike share their cache. Encoder-decoders run one after the other in
transformers' `generate`. Both choose tokens by sampling.py.
"""

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.requests import FutureRequestState, GenerationOutput
from transformers.utils.import_utils import is_flash_attn_2_available

from trainer.inference.sampling import SamplingSettings, TokenChoice, TokenConstraint, choose
from trainer.inference.shared_weights import copy_sharing_weights
from trainer.planning.context_length import context_length

PAGE_TOKENS = 32  # of the cache; prompts share whole pages
STEP_TOKENS = 256  # read in a step at most: longer prompts take several, so that other texts go on meanwhile
MAX_TEXTS = 64  # in a step
CACHE_CONTEXTS = 8  # full contexts that the cache holds at most
CACHE_BYTES = 2 << 30  # of a cache, unless one context needs more
END_SECONDS = 10.0
LOOK_SECONDS = 0.25  # between checks whether a text is still wanted


class EngineStopped(RuntimeError):
    """The engine was closed, or a library failed: the reason is the message."""


@dataclass
class Generation:
    """A text that is being generated. Iterating gives its tokens as they are chosen, the one that ends it too.

    Raises EngineStopped if the engine ends before the text does.
    """

    prompt: list[int]
    settings: SamplingSettings
    max_tokens: int
    stop_token_ids: Set[int]
    constraint: TokenConstraint | None = None
    id: str = ""  # within its engine
    text: list[int] = field(default_factory=list)  # tokens chosen so far
    is_cancelled: bool = False
    _results: "queue.SimpleQueue[TokenChoice | EngineStopped]" = field(default_factory=queue.SimpleQueue)

    @property
    def is_over(self) -> bool:
        """Whether the last token has been chosen."""
        return len(self.text) >= self.max_tokens or (bool(self.text) and self.text[-1] in self.stop_token_ids)

    def __iter__(self) -> Iterator[TokenChoice]:
        return chain.from_iterable(self.batches())

    def batches(
        self, is_stopped: Callable[[], bool] = lambda: False, seconds: float = 0.0
    ) -> Iterator[list[TokenChoice]]:
        """The tokens as they are chosen, until `is_stopped`: the first at once, then those of `seconds` together."""
        left, due = self.max_tokens, 0.0
        while left and not is_stopped():
            batch: list[TokenChoice] = []
            while len(batch) < left and not (batch and batch[-1].token in self.stop_token_ids):
                timeout = max(0.0, due - time.monotonic()) if batch else LOOK_SECONDS
                try:
                    result = self._results.get(timeout=timeout) if timeout else self._results.get_nowait()
                except queue.Empty:
                    break
                if isinstance(result, EngineStopped):
                    if batch:
                        yield batch
                    raise result
                batch.append(result)
            if batch:
                yield batch
                left = 0 if batch[-1].token in self.stop_token_ids else left - len(batch)
                due = time.monotonic() + seconds

    def choose(self, scores: Tensor, before: Sequence[int]) -> int:
        """Choose the next token from scores of shape (vocab_size), and hand it out. `before` are the tokens that a
        repetition penalty counts beside those of the text.
        """
        choice = choose(scores.float().cpu(), self.settings, before, self.text, self.constraint)
        self.text.append(choice.token)
        self._results.put(choice)
        return choice.token

    def fail(self, reason: str) -> None:
        """End the text with an error."""
        self._results.put(EngineStopped(reason))


# Called after each step, with a function that says whether a text is still wanted: sleeps while others need the
# processors more.
Pause = Callable[[Callable[[], bool]], None]


def no_pause(_is_wanted: Callable[[], bool]) -> None:
    """Continue at once."""


class InferenceEngine(ABC):
    """Generates texts with one model. Any number of threads may use it."""

    def __init__(self, model: PreTrainedModel, pause: Pause) -> None:
        self.model = model
        self._pause = pause
        self._is_closed = False

    def submit(
        self,
        prompt: Sequence[int],
        settings: SamplingSettings,
        *,
        max_tokens: int,
        stop_token_ids: Set[int],
        constraint: TokenConstraint | None = None,
    ) -> Generation:
        """Generate a text. The caller limits prompt and max_tokens to the model's context. Raises EngineStopped."""
        generation = Generation(list(prompt), settings, max_tokens, stop_token_ids, constraint)
        if max_tokens:
            self._add(generation)
        return generation

    @abstractmethod
    def _add(self, generation: Generation) -> None: ...

    @abstractmethod
    def cancel(self, generation: Generation) -> None:
        """Stop computing a text, at the latest after the present step."""

    @abstractmethod
    def close(self) -> None:
        """End all texts with EngineStopped."""


def create_engine(model: PreTrainedModel, pause: Pause = no_pause) -> InferenceEngine:
    """The engine for a model's kind."""
    return SequentialEngine(model, pause) if model.config.is_encoder_decoder else BatchEngine(model, pause)


# ---- decoders -------------------------------------------------------------------------------------------------------


class BatchEngine(InferenceEngine):
    """Generates texts in one batch, which they join and leave at each step."""

    def __init__(self, model: PreTrainedModel, pause: Pause) -> None:
        # The library changes the configuration of its model in each step: others who use it at that moment would get
        # attention that looks ahead.
        model = copy_sharing_weights(model)
        super().__init__(model, pause)
        self._generations: dict[str, Generation] = {}  # by request ID
        self._ids = count()
        self._manager = ContinuousBatchingManager(model, GenerationConfig(do_sample=False), _config(model))
        chooser = _TokenChooser(self._generations, self._pause_if_wanted)
        processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([chooser]))
        processors.tensors_required = 1
        self._manager.logit_processor = processors
        self._manager.start()
        self._collector = threading.Thread(target=self._collect, name="generation-ends", daemon=True)
        self._collector.start()

    def _add(self, generation: Generation) -> None:
        request_id = generation.id = str(next(self._ids))
        self._generations[request_id] = generation
        accepted = self._manager.add_request(
            generation.prompt,
            request_id,
            max_new_tokens=generation.max_tokens,
            eos_token_id=sorted(generation.stop_token_ids) or -1,
        )
        if accepted is None:
            raise EngineStopped("the engine was closed")

    def cancel(self, generation: Generation) -> None:
        if self._generations.pop(generation.id, None) is not None:
            self._manager.cancel_request(generation.id)

    def _pause_if_wanted(self) -> None:
        self._pause(lambda: bool(self._generations) and not self._is_closed)

    def close(self) -> None:
        self._is_closed = True
        self._manager.stop(hard_stop=True, timeout=END_SECONDS)
        self._collector.join(END_SECONDS)

    def _collect(self) -> None:
        """Forget the texts that are over, and end those that fail."""
        for output in self._manager:
            self._end(output)
        while (output := self._manager.get_result(timeout=0)) is not None:
            self._end(output)
        for request_id in list(self._generations):
            self._generations.pop(request_id).fail("the engine was closed")

    def _end(self, output: GenerationOutput) -> None:
        generation = self._generations.pop(output.request_id, None)
        if generation is not None and output.error is not None:
            generation.fail(output.error)


class _TokenChooser(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    """Chooses the tokens of a step: leaves one token with a score above minus infinity in each row, for the argmax."""

    supported_kwargs: ClassVar[dict[str, type]] = {}
    ignored_kwargs = ()

    def __init__(self, generations: Mapping[str, Generation], pause: Callable[[], None]) -> None:
        self._generations = generations
        self._pause = pause
        self._request_ids: list[str] = []

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[FutureRequestState]) -> Tensor:
        self._request_ids = [request.state.request_id for request in requests_with_new_token]
        return torch.zeros(len(self._request_ids), dtype=torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        generations = [self._generations.get(request_id) for request_id in self._request_ids]
        rows = scores[: len(generations)].float().cpu()
        tokens = [one.choose(row, one.prompt) if one else 0 for one, row in zip(generations, rows, strict=True)]
        scores.fill_(-torch.inf)
        scores[range(len(tokens)), tokens] = 0.0
        self._pause()
        return scores


def _config(model: PreTrainedModel) -> ContinuousBatchingConfig:
    return ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=-(-cache_tokens(model.config) // PAGE_TOKENS),
        max_batch_tokens=STEP_TOKENS,
        max_requests_per_batch=MAX_TEXTS,
        use_cuda_graph=False,  # tokens are chosen on the CPU
        use_async_batching=False,
        auto_switch_to_flash=is_flash_attn_2_available(),  # without it the kernel would be downloaded
    )


def cache_tokens(config: Any) -> int:
    """The tokens that the cache of a model holds: some full contexts within CACHE_BYTES, but one at least."""
    context = context_length(config)
    assert context is not None, "the positions of a decoder have an end"
    return max(context, min(CACHE_CONTEXTS * context, CACHE_BYTES // _bytes_per_token(config))) + PAGE_TOKENS


def cache_bytes(model: PreTrainedModel) -> int:
    """What the cache of a model's engine takes when it is full."""
    if model.config.is_encoder_decoder:
        return CACHE_BYTES
    return cache_tokens(model.config) * _bytes_per_token(model.config)


def _bytes_per_token(config: Any) -> int:
    """Keys and values of all layers, fp32."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * 4 * config.num_hidden_layers * heads * width)


# ---- encoder-decoders -----------------------------------------------------------------------------------------------


class SequentialEngine(InferenceEngine):
    """Generates texts one after the other by transformers' `generate`."""

    def __init__(self, model: PreTrainedModel, pause: Pause) -> None:
        super().__init__(model, pause)
        self._queue: queue.SimpleQueue[Generation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)
        self._thread.start()

    def _add(self, generation: Generation) -> None:
        if self._is_closed:
            raise EngineStopped("the engine was closed")
        self._queue.put(generation)

    def cancel(self, generation: Generation) -> None:
        generation.is_cancelled = True

    def close(self) -> None:
        self._is_closed = True
        self._queue.put(None)
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        while (generation := self._queue.get()) is not None:
            if self._is_closed:
                generation.fail("the engine was closed")
            elif not generation.is_cancelled:
                try:
                    self._generate(generation)
                except Exception as error:  # whatever a library makes of a strange model
                    generation.fail(str(error))

    @torch.no_grad()
    def _generate(self, generation: Generation) -> None:
        def choose_token(ids: Tensor, scores: Tensor) -> Tensor:
            token = generation.choose(scores[0], ids[0].tolist())  # the source is not repeated: it is read
            chosen = torch.full_like(scores, -torch.inf)
            chosen[0, token] = 0.0
            self._pause(lambda: not generation.is_cancelled and not self._is_closed)
            return chosen

        def is_over(_ids: Tensor, _scores: Tensor, **_options: Any) -> Tensor:
            return torch.tensor([generation.is_over or generation.is_cancelled or self._is_closed])

        self.model.generate(
            torch.tensor([generation.prompt], device=self.model.device),
            GenerationConfig(
                do_sample=False,
                max_new_tokens=generation.max_tokens,
                decoder_start_token_id=self.model.config.decoder_start_token_id,
                pad_token_id=self.model.config.pad_token_id,
            ),
            logits_processor=LogitsProcessorList([choose_token]),
            stopping_criteria=StoppingCriteriaList([is_over]),
        )
        if self._is_closed and not generation.is_over:
            generation.fail("the engine was closed")
