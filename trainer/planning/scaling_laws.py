"""Scaling laws: vocabulary, batch size, learning rate and expected loss by parameters and tokens. Arithmetic only.

Sources. Size and tokens: Hoffmann et al. 2022 (Chinchilla), arXiv 2203.15556, with the exponents of Besiroglu et al.
2024, arXiv 2404.10102. Loss by compute: Kaplan et al. 2020, arXiv 2001.08361. Repeated text: Muennighoff et al. 2023,
arXiv 2305.16264. Learning rate and batch size: DeepSeek LLM, Bi et al. 2024, arXiv 2401.02954, section 3.1.
"""

import math

TOKENS_PER_PARAMETER = 20
MAX_EPOCHS = 16  # worth 10.6 epochs of new text; beyond that a further one is worth less than a third of the first
# Loss on the compute-efficient frontier, in nats per token of GPT-2's tokenizer: (FRONTIER_FLOPS / C)^0.05, equation
# 1.3 of Kaplan et al. (3.1e8 PF-days), measured from 1e11 to 1e21 FLOPs. WebText2, on which they trained and measured,
# has 96 GB of text in 22.9 billion tokens.
FRONTIER_FLOPS, FRONTIER_EXPONENT = 3.1e8 * 8.64e19, 0.050
FRONTIER_BYTES_PER_TOKEN = 96 / 22.9
# Hoffmann's law A / N^0.348 + B / D^0.366: one exponent for both makes 20 tokens per parameter the optimum of any size.
SIZE_EXPONENT = 0.357
REPEATED_EPOCHS = 15.4  # R*_D of Muennighoff et al.: repeated tokens are worth at most so many times the text


def choose_vocab_size(num_bytes: int) -> int:
    """Vocabulary size for a text of `num_bytes`: the square root of its bytes, from 2,048 to 65,536.

    Heaps' law: the number of distinct words grows about with the square root of a text's length, so this lets each
    token occur more often the longer the text is. 1 GB gives 31,680; up to 65,536 ids fit two bytes.
    """
    return min(65_536, max(2_048, round(math.sqrt(num_bytes) / 64) * 64))


def effective_tokens(num_tokens: float, text_tokens: float) -> float:
    """How many tokens of new text are worth as much as `num_tokens` from a text of `text_tokens` (equation 5)."""
    repeats = max(0.0, num_tokens / text_tokens - 1)
    return min(num_tokens, text_tokens) + text_tokens * REPEATED_EPOCHS * -math.expm1(-repeats / REPEATED_EPOCHS)


def expected_bits_per_byte(num_parameters: int, num_tokens: float) -> float:
    """Expected validation loss in bits per byte of English web text, after training on so many tokens of new text.

    The frontier's loss at the compute of the balanced model of the same loss: the one with 20 tokens per parameter.
    """
    inverse = num_parameters**-SIZE_EXPONENT + math.pow(num_tokens / TOKENS_PER_PARAMETER, -SIZE_EXPONENT)
    balanced = math.pow(inverse / 2, -1 / SIZE_EXPONENT)  # parameters
    flops = 6 * TOKENS_PER_PARAMETER * balanced**2
    return math.pow(FRONTIER_FLOPS / flops, FRONTIER_EXPONENT) / FRONTIER_BYTES_PER_TOKEN / math.log(2)


def optimal_batch_tokens(flops: float) -> float:
    """Tokens of a batch for a training of so many FLOPs (DeepSeek LLM, equation 1)."""
    return float(0.2920 * flops**0.3271)


def optimal_learning_rate(flops: float) -> float:
    """The learning rate for a training of so many FLOPs, in two digits (DeepSeek LLM, equation 1)."""
    return float(f"{0.3118 * flops**-0.1250:.2g}")
