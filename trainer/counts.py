"""Parameters of a model by what is done with them, and the operations that training on one token takes."""

from functools import lru_cache

from pydantic import BaseModel

from trainer.spec import TrainSpec


class Counts(BaseModel):
    """Parameters by what is done with them; a tied head is the embedding again and counts once in `total`."""

    embedding: int  # of tokens and positions: looked up, never multiplied
    block: int
    num_blocks: int
    norm: int  # the last one
    head: int
    total: int

    @property
    def blocks(self) -> int:
        return self.num_blocks * self.block

    @property
    def multiplied(self) -> int:
        """What every token is multiplied with."""
        return self.blocks + self.norm + self.head


def counts(spec: TrainSpec, vocab_size: int) -> Counts:
    """Exactly the parameters of the model that a spec builds."""
    return _counts(
        spec.model_type,
        spec.hidden_size,
        spec.intermediate_size,
        spec.num_hidden_layers,
        spec.hidden_size // spec.num_attention_heads * spec.num_key_value_heads,
        vocab_size,
        spec.sequence_length if spec.model_type == "gpt2" else 0,
        spec.tie_word_embeddings,
    )


@lru_cache(maxsize=4096)
def _counts(
    model_type: str, hidden: int, inner: int, layers: int, key_value: int, vocab: int, positions: int, is_tied: bool
) -> Counts:
    if model_type == "gpt2":  # biases everywhere, and norms have one too
        attention = 4 * hidden * hidden + 4 * hidden
        feed_forward = 2 * hidden * inner + inner + hidden
        block, norm = attention + feed_forward + 4 * hidden, 2 * hidden
    else:
        attention = 2 * hidden * hidden + 2 * hidden * key_value
        block, norm = attention + 3 * hidden * inner + 2 * hidden, hidden
    head = vocab * hidden
    embedding = (vocab + positions) * hidden
    total = embedding + layers * block + norm + (0 if is_tied else head)
    return Counts(embedding=embedding, block=block, num_blocks=layers, norm=norm, head=head, total=total)


def num_parameters(spec: TrainSpec, vocab_size: int) -> int:
    """Exactly as many as the model has; tied embeddings count once."""
    return counts(spec, vocab_size).total


def num_adapter_parameters(spec: TrainSpec, rank: int) -> int:
    """Parameters of LoRA adapters on every matrix of every block: rank x (rows + columns) each."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    if spec.model_type == "gpt2":
        sides = (hidden + 3 * hidden) + 2 * hidden + 2 * (hidden + inner)
    else:
        key_value = hidden // spec.num_attention_heads * spec.num_key_value_heads
        sides = 2 * (2 * hidden) + 2 * (hidden + key_value) + 3 * (hidden + inner)
    return spec.num_hidden_layers * rank * sides


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


class Flops(BaseModel):
    """Operations that training takes for one token.

    `matmuls`: six for each multiplied weight (two forward, four backward; four in all where the weight is frozen).
    `attention`: its quadratic part, what a causal mask hides not counted. `recomputed`: the second forward pass of
    gradient checkpointing. `published`: 6 N + 12 L d T, how most published utilizations count.
    """

    matmuls: int
    attention: int
    recomputed: int
    published: int

    @property
    def model(self) -> int:
        """What the model needs, however it is computed: for utilization in the strict sense."""
        return self.matmuls + self.attention

    @property
    def hardware(self) -> int:
        """What the device really computes."""
        return self.model + self.recomputed


def flops(spec: TrainSpec, vocab_size: int, lora_rank: int | None = None) -> Flops:
    """Operations for one token."""
    sizes = counts(spec, vocab_size)
    quadratic = spec.num_hidden_layers * spec.hidden_size * spec.sequence_length
    matmuls = 6 * sizes.multiplied
    if lora_rank is not None:
        matmuls = 4 * sizes.multiplied + 6 * num_adapter_parameters(spec, lora_rank)
    return Flops(
        matmuls=matmuls,
        attention=6 * quadratic,
        recomputed=2 * sizes.blocks + 2 * quadratic if spec.gradient_checkpointing else 0,
        published=6 * sizes.total + 12 * quadratic,
    )
