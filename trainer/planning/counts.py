"""Parameters of a model by what is done with them, and the operations that training on one token takes."""

from dataclasses import dataclass
from functools import lru_cache

from pydantic import BaseModel

from trainer.spec import ENCODERS, TrainSpec

NUM_LABELS = 2  # of a classifier, where nobody has counted the labels yet
KINDS_OF_TEXT = {"bert": 2, "roberta": 1}
POSITIONS_BEYOND = {"bert": 0, "roberta": 2}  # RoBERTa's begin behind the number of its padding
POSITION_BUCKETS = 32  # of T5's relative positions

Sides = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class BlockStack:
    """Blocks of one shape above one another. `matrices` are rows and columns of those in a block, `source` of those
    that multiply the other stack's tokens; `vectors` are the values of its norms and biases.
    """

    num_blocks: int
    matrices: Sides
    vectors: int
    source: Sides = ()

    @property
    def block(self) -> int:
        return _area(self.matrices) + _area(self.source) + self.vectors


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by what is done with them; a tied head is the embedding again and counts once in `total`."""

    embedding: int  # of tokens and positions: looked up, never multiplied
    stacks: tuple[BlockStack, ...]  # the only one, or the encoder's and the decoder's
    norm: int  # what stands beside blocks and head
    head: int  # what each predicted token is multiplied with
    total: int

    @property
    def blocks(self) -> int:
        return sum(stack.num_blocks * stack.block for stack in self.stacks)

    @property
    def matmul_parameters(self) -> int:
        """What is not only looked up."""
        return self.blocks + self.norm + self.head

    @property
    def block_matrix_parameters(self) -> int:
        """Values of the blocks' matrices."""
        return sum(stack.num_blocks * _area(stack.matrices + stack.source) for stack in self.stacks)


def _area(sides: Sides) -> int:
    return sum(rows * columns for rows, columns in sides)


def count_parameters(spec: TrainSpec, vocab_size: int) -> ParameterCounts:
    """Exactly the parameters of the model that a spec builds, without adapters."""
    return _counts(
        spec.model_type,
        spec.objective == "classification",
        spec.hidden_size,
        spec.intermediate_size,
        spec.num_hidden_layers,
        spec.num_attention_heads,
        spec.num_key_value_heads,
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
    vocab: int,
    length: int,
    is_tied: bool,
) -> ParameterCounts:
    stacks = _stacks(model_type, hidden, inner, layers, hidden // heads * key_value_heads)
    embedding, norm, head, biases = vocab * hidden, hidden, vocab * hidden, 0
    if model_type == "gpt2":
        embedding, norm = (vocab + length) * hidden, 2 * hidden
    elif model_type == "t5":
        norm = 2 * (hidden + POSITION_BUCKETS * heads)
    elif model_type in ENCODERS:
        embedding = (vocab + length + POSITIONS_BEYOND[model_type] + KINDS_OF_TEXT[model_type]) * hidden
        norm, biases = 2 * hidden, hidden * hidden + 3 * hidden + vocab  # a layer and a norm before the last matrix
        biases += 0 if is_tied else vocab  # the head's own, and one that only untied weights do not share
    # transformers ties T5's head whatever its configuration says.
    own_head = (0 if is_tied or model_type == "t5" else head) + biases
    if is_classifier:
        own_head = head = NUM_LABELS * hidden
        if model_type in ENCODERS:
            own_head = head = hidden * hidden + hidden + NUM_LABELS * (hidden + 1)
    else:
        head += biases
    total = embedding + sum(stack.num_blocks * stack.block for stack in stacks) + norm + own_head
    return ParameterCounts(embedding=embedding, stacks=stacks, norm=norm, head=head, total=total)


def _stacks(model_type: str, hidden: int, inner: int, layers: int, key_value: int) -> tuple[BlockStack, ...]:
    square = (hidden, hidden)
    attention: Sides = (square, (hidden, key_value), (hidden, key_value), square)
    plain: Sides = ((hidden, inner), (inner, hidden))
    gated: Sides = ((hidden, inner), *plain)
    if model_type == "t5":
        encoder = BlockStack(layers, (*attention, *gated), 2 * hidden)
        return encoder, BlockStack(layers, (*attention, square, square, *gated), 3 * hidden, source=(square, square))
    if model_type == "gpt2":  # biases everywhere, and norms have one too
        return (BlockStack(layers, ((hidden, 3 * hidden), square, *plain), 9 * hidden + inner),)
    if model_type in ENCODERS:
        return (BlockStack(layers, (*attention, *plain), 9 * hidden + inner),)
    biases = hidden + 2 * key_value if model_type == "qwen2" else 0
    return (BlockStack(layers, (*attention, *gated), 2 * hidden + biases),)


def num_parameters(spec: TrainSpec, vocab_size: int) -> int:
    """Exactly as many as the model has; tied embeddings count once, adapters not at all."""
    return count_parameters(spec, vocab_size).total


def num_adapter_parameters(spec: TrainSpec) -> int:
    """Parameters of LoRA adapters on every matrix of every block: rank x (rows + columns) each."""
    stacks = count_parameters(spec, 0).stacks
    sides = sum(stack.num_blocks * sum(map(sum, stack.matrices + stack.source)) for stack in stacks)
    return spec.lora_rank * sides


def num_trainable_parameters(spec: TrainSpec, vocab_size: int) -> int:
    """Parameters that the optimizer steps: all, or adapters and the new head of a classifier."""
    sizes = count_parameters(spec, vocab_size)
    if spec.tuning == "full":
        return sizes.total
    return num_adapter_parameters(spec) + (sizes.head if spec.objective == "classification" else 0)


# ---- tokens ---------------------------------------------------------------------------------------------------------


def sample_lengths(spec: TrainSpec) -> tuple[int, int]:
    """Tokens of a sample that go through the encoder, and through the decoder; at most, where texts are shorter."""
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
    """The longest text whose corruption gives at most so many input tokens, and its target tokens, as T5 counts them.

    A sentinel stands for each span on both sides, and each side ends with one token.
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
    """All that is computed for one."""
    return sum(sample_lengths(spec))


def tokens_per_step(spec: TrainSpec) -> int:
    """All that is computed in one optimizer step."""
    return spec.train_batch_size * tokens_per_sample(spec)


def num_predicted(spec: TrainSpec) -> int:
    """Tokens of a sample for which logits are computed."""
    source, target = sample_lengths(spec)
    return 1 if spec.objective == "classification" else target or source


# ---- operations -----------------------------------------------------------------------------------------------------


class Flops(BaseModel):
    """Operations that training takes for one token, as a mean over those of a sample.

    `matmuls`: six for each multiplied weight (two forward, four backward; four in all where the weight is frozen; two
    more for DPO's reference). `attention`: its quadratic part, what a causal mask hides not counted. `recomputed`: the
    second forward pass of gradient checkpointing. `published`: 6 N + 12 L d T, how most published utilizations count.
    """

    matmuls: int
    attention: int
    recomputed: int
    published: int

    @property
    def model_flops(self) -> int:
        """What the model needs, however it is computed: for utilization in the strict sense."""
        return self.matmuls + self.attention

    @property
    def hardware_flops(self) -> int:
        """What the device really computes."""
        return self.model_flops + self.recomputed


def flops(spec: TrainSpec, vocab_size: int) -> Flops:
    """Operations for one token."""
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
    """Of a sample: values of blocks times the tokens that they multiply, and the operations of attention."""
    source, target = sample_lengths(spec)
    width = spec.num_hidden_layers * spec.hidden_size
    if source == 0:  # a decoder: half of what each token could attend to is hidden
        return sizes.blocks * target, 2 * width * spec.sequence_length * target
    if target == 0:
        return sizes.blocks * source, 4 * width * source * source
    encoder, decoder = sizes.stacks
    by_source = encoder.num_blocks * encoder.block + decoder.num_blocks * _area(decoder.source)
    by_target = decoder.num_blocks * (decoder.block - _area(decoder.source))
    attention = 4 * width * (source * source + source * target) + 2 * width * target * target
    return by_source * source + by_target * target, attention
