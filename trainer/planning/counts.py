"""Parameter counts of a model by role, and the floating-point operations of training on one token. Arithmetic only.

Operations follow Kaplan et al. 2020, arXiv 2001.08361, section 2.1 (six for each parameter and token), and the appendix
of PaLM, Chowdhery et al. 2022, arXiv 2204.02311 (attention, model and hardware FLOPs utilization).
"""

from dataclasses import dataclass
from functools import lru_cache

from pydantic import BaseModel

from trainer.families import ENCODERS
from trainer.spec import TrainSpec

NUM_LABELS = 2  # assumed for a classifier before its corpus has been read
NUM_TOKEN_TYPES = {"bert": 2, "roberta": 1}
POSITION_OFFSET = {"bert": 0, "roberta": 2}  # RoBERTa's position ids start at pad_token_id + 1
POSITION_BUCKETS = 32  # of T5's relative position bias
EVAL_SEQUENCES = 64  # validation sequences of one evaluation, at most
EVAL_SAMPLE_TOKENS = 80  # tokens generated for a sample of an evaluation, at most

Shapes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class BlockStack:
    """A stack of equal transformer blocks: the shapes (rows, columns) of a block's matrices, and its other parameters.

    `matrices` multiply this stack's tokens. `source` multiply the encoder's tokens: the keys and values of a decoder's
    cross-attention. `vectors` counts the values of norms and biases.
    """

    num_blocks: int
    matrices: Shapes
    vectors: int
    source: Shapes = ()

    @property
    def block(self) -> int:
        """Parameters of one block."""
        return _area(self.matrices) + _area(self.source) + self.vectors


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model by role. A tied head shares the embedding's matrix, which `total` counts once."""

    embedding: int  # token, position and token type embeddings: looked up, not multiplied
    stacks: tuple[BlockStack, ...]  # one, or the encoder's and the decoder's
    norm: int  # outside the blocks: final norms, relative position bias
    head: int  # multiplied with each predicted token
    total: int

    @property
    def blocks(self) -> int:
        """Parameters of all blocks."""
        return sum(stack.num_blocks * stack.block for stack in self.stacks)

    @property
    def matmul_parameters(self) -> int:
        """Parameters that tokens are multiplied with: all but the embeddings."""
        return self.blocks + self.norm + self.head

    @property
    def block_matrix_parameters(self) -> int:
        """Values in the matrices of all blocks, without norms and biases."""
        return sum(stack.num_blocks * _area(stack.matrices + stack.source) for stack in self.stacks)


def _area(shapes: Shapes) -> int:
    return sum(rows * columns for rows, columns in shapes)


def count_parameters(spec: TrainSpec, vocab_size: int) -> ParameterCounts:
    """Count the parameters of the model that a spec builds, exactly, without LoRA adapters."""
    return _counts(
        spec.model_type,
        spec.objective == "classification",
        spec.hidden_size,
        spec.intermediate_size,
        spec.num_hidden_layers,
        spec.num_attention_heads,
        spec.num_key_value_heads,
        spec.head_width,
        vocab_size,
        spec.sequence_length,
        spec.tie_word_embeddings,
    )


@lru_cache(maxsize=4096)
def _counts(
    model_type: str,
    is_classifier: bool,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    key_value_heads: int,
    head_width: int,
    vocab: int,
    length: int,
    is_tied: bool,
) -> ParameterCounts:
    stacks = _stacks(model_type, hidden, inner, layers, heads * head_width, key_value_heads * head_width)
    embedding, norm, head, biases = vocab * hidden, hidden, vocab * hidden, 0
    if model_type == "gpt2":
        embedding, norm = (vocab + length) * hidden, 2 * hidden
    elif model_type == "t5":
        norm = 2 * (hidden + POSITION_BUCKETS * heads)
    elif model_type in ENCODERS:
        embedding = (vocab + length + POSITION_OFFSET[model_type] + NUM_TOKEN_TYPES[model_type]) * hidden
        norm, biases = 2 * hidden, hidden * hidden + 3 * hidden + vocab  # the head's dense layer, norm and bias
        biases += 0 if is_tied else vocab  # untied, transformers keeps a second bias of the decoder matrix
    # transformers ties T5's head regardless of tie_word_embeddings.
    own_head = (0 if is_tied or model_type == "t5" else head) + biases
    if is_classifier:
        own_head = head = NUM_LABELS * hidden
        if model_type in ENCODERS:
            own_head = head = hidden * hidden + hidden + NUM_LABELS * (hidden + 1)
    else:
        head += biases
    total = embedding + sum(stack.num_blocks * stack.block for stack in stacks) + norm + own_head
    return ParameterCounts(embedding=embedding, stacks=stacks, norm=norm, head=head, total=total)


def _stacks(
    model_type: str, hidden: int, inner: int, layers: int, query: int, key_value: int
) -> tuple[BlockStack, ...]:
    """`query` and `key_value` are the widths of all heads together."""
    square, query_matrix, output = (hidden, hidden), (hidden, query), (query, hidden)
    attention: Shapes = (query_matrix, (hidden, key_value), (hidden, key_value), output)
    plain: Shapes = ((hidden, inner), (inner, hidden))
    gated: Shapes = ((hidden, inner), *plain)
    if model_type == "t5":
        encoder = BlockStack(layers, (*attention, *gated), 2 * hidden)
        crossed = (*attention, query_matrix, output, *gated)
        return encoder, BlockStack(layers, crossed, 3 * hidden, source=(query_matrix, query_matrix))
    if model_type == "gpt2":  # every layer and norm has a bias
        return (BlockStack(layers, ((hidden, 3 * hidden), square, *plain), 9 * hidden + inner),)
    if model_type in ENCODERS:
        return (BlockStack(layers, (*attention, *plain), 9 * hidden + inner),)
    biases = query + 2 * key_value if model_type == "qwen2" else 0
    return (BlockStack(layers, (*attention, *gated), 2 * hidden + biases),)


def num_parameters(spec: TrainSpec, vocab_size: int) -> int:
    """Parameters of the model that a spec builds; tied embeddings count once, LoRA adapters not at all."""
    return count_parameters(spec, vocab_size).total


def num_adapter_parameters(spec: TrainSpec) -> int:
    """Parameters of LoRA adapters on every matrix of every block: rank x (rows + columns) each (arXiv 2106.09685)."""
    stacks = count_parameters(spec, 0).stacks
    sides = sum(stack.num_blocks * sum(map(sum, stack.matrices + stack.source)) for stack in stacks)
    return spec.lora_rank * sides


def num_trainable_parameters(spec: TrainSpec, vocab_size: int) -> int:
    """Parameters that the optimizer updates: all, or the LoRA adapters and the new head of a classifier."""
    sizes = count_parameters(spec, vocab_size)
    if spec.tuning == "full":
        return sizes.total
    return num_adapter_parameters(spec) + (sizes.head if spec.objective == "classification" else 0)


# ---- tokens ---------------------------------------------------------------------------------------------------------


def sample_lengths(spec: TrainSpec) -> tuple[int, int]:
    """Tokens of one sample in the encoder and in the decoder, (source, target); the maximum where texts are shorter."""
    length = spec.sequence_length
    if spec.model_type in ENCODERS:
        return length, 0
    if spec.objective == "span_corruption":
        return length, span_lengths(length, spec.noise_density, spec.mean_noise_span_length)[1]
    if spec.objective == "seq2seq":
        return length, length
    return 0, length * (2 if spec.objective == "dpo" else 1)


@lru_cache(maxsize=4096)
def span_lengths(length: int, noise_density: float, mean_span: float) -> tuple[int, int]:
    """Text and target lengths of span corruption, in tokens, for encoder inputs of at most `length` tokens.

    Returns the longest text whose corrupted form fits, and the length of its target. Each hidden span becomes one
    sentinel in the input and follows that sentinel in the target; both end with one end-of-text token. Source:
    random_spans_helper of T5, arXiv 1910.10683.
    """

    def corrupted(raw: int) -> tuple[int, int]:
        noise = min(max(round(raw * noise_density), 1), raw - 1)
        spans = max(round(noise / mean_span), 1)
        return raw - noise + spans + 1, noise + spans + 1

    raw = max(2, int((length - 4) / (1 - noise_density + noise_density / mean_span)))
    while corrupted(raw + 1)[0] <= length:
        raw += 1
    return raw, corrupted(raw)[1]


def tokens_per_sample(spec: TrainSpec) -> int:
    """Tokens processed per sample: encoder plus decoder, both answers of a DPO pair."""
    return sum(sample_lengths(spec))


def tokens_per_step(spec: TrainSpec) -> int:
    """Tokens processed per optimizer step, over all processes."""
    return spec.train_batch_size * tokens_per_sample(spec)


def num_predicted(spec: TrainSpec) -> int:
    """Tokens of one sample for which logits are computed."""
    source, target = sample_lengths(spec)
    return 1 if spec.objective == "classification" else target or source


# ---- operations -----------------------------------------------------------------------------------------------------


class Flops(BaseModel):
    """Training FLOPs for one token, averaged over the tokens of a sample.

    `matmuls`: 6 for each multiplied parameter (2 forward, 4 backward; 4 in total where it is frozen; 2 more for the
    reference model of DPO). `attention`: the quadratic part, without what a causal mask hides. `recomputed`: the second
    forward pass of gradient checkpointing. `published`: 6 N + 12 L d T for N parameters, L layers, hidden size d and
    T tokens (PaLM, arXiv 2204.02311, appendix B), which most published utilizations divide by.
    """

    matmuls: int
    attention: int
    recomputed: int
    published: int

    @property
    def model_flops(self) -> int:
        """FLOPs the model needs however it is computed, the numerator of model FLOPs utilization (MFU)."""
        return self.matmuls + self.attention

    @property
    def hardware_flops(self) -> int:
        """FLOPs the device computes, the numerator of hardware FLOPs utilization (HFU)."""
        return self.model_flops + self.recomputed


def flops(spec: TrainSpec, vocab_size: int) -> Flops:
    """Training FLOPs for one token of a job."""
    sizes, tokens = count_parameters(spec, vocab_size), tokens_per_sample(spec)
    blocks, attention = _forward(spec, sizes)
    forward = 2 * (blocks + sizes.norm * tokens + sizes.head * num_predicted(spec)) + attention
    reference = forward if spec.objective == "dpo" else 0
    matmuls, quadratic = 3 * (forward - attention), 3 * attention
    if spec.tuning != "full":
        matmuls = 2 * (forward - attention) + 6 * num_adapter_parameters(spec) * tokens // len(sizes.stacks)
    return Flops(
        matmuls=(matmuls + (reference - attention if reference else 0)) // tokens,
        attention=(quadratic + (attention if reference else 0)) // tokens,
        recomputed=(2 * blocks + attention) // tokens if spec.gradient_checkpointing else 0,
        published=6 * sizes.total + 12 * spec.num_hidden_layers * spec.hidden_size * spec.sequence_length,
    )


def _forward(spec: TrainSpec, sizes: ParameterCounts) -> tuple[int, int]:
    """Of one sample: the sum over block parameters of the tokens they multiply, and the FLOPs of attention."""
    source, target = sample_lengths(spec)
    width = spec.num_hidden_layers * spec.num_attention_heads * spec.head_width
    if source == 0:  # a decoder: the causal mask hides half of the scores
        return sizes.blocks * target, 2 * width * spec.sequence_length * target
    if target == 0:
        return sizes.blocks * source, 4 * width * source * source
    encoder, decoder = sizes.stacks
    source_parameters = encoder.num_blocks * encoder.block + decoder.num_blocks * _area(decoder.source)
    target_parameters = decoder.num_blocks * (decoder.block - _area(decoder.source))
    attention = 4 * width * (source * source + source * target) + 2 * width * target * target
    return source_parameters * source + target_parameters * target, attention


def num_held_out(count: int, fraction: float) -> int:
    """How many of `count` records are held out: none for the fraction 0, else at least one if another is left."""
    if not fraction:
        return 0
    return count if fraction == 1 else max(min(1, count - 1), int(count * fraction))
