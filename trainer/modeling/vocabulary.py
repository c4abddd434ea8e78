"""Extends the vocabulary of a base model: a new token starts as the mean of the tokens that spelled it before.

Averages as in Fast Vocabulary Transfer (Gee et al. 2022); Hewitt 2021, "Initializing New Word Embeddings for Pretrained
Language Models", shows why an average is safe: a new token cannot take most of the probability, as a small random
embedding can. Imports torch and transformers.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel


@torch.no_grad()
def add_tokens(model: PreTrainedModel, pieces: Mapping[int, Sequence[int]]) -> None:
    """Give the model a row for each new token in its input embedding and, where it is not tied, its output embedding.

    `pieces` are the ids of the old tokens of each new one, by its id. Rows that the embedding has beyond its tokenizer
    are used; it grows only if they do not suffice.
    """
    needed = max(pieces) + 1
    if needed > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(needed, mean_resizing=False)
    output = model.get_output_embeddings()
    matrices = [model.get_input_embeddings().weight, *([output.weight, output.bias] if output is not None else [])]
    means: list[tuple[Tensor, int, Tensor]] = [
        (matrix, number, matrix[list(old)].mean(0))
        for matrix in {id(matrix): matrix for matrix in matrices if matrix is not None}.values()
        for number, old in pieces.items()
    ]
    for matrix, number, mean in means:
        matrix[number] = mean
