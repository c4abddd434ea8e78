"""A second model with the weights of another. Imports torch and transformers."""

import copy
from itertools import chain

from transformers import PreTrainedModel


def copy_sharing_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A model with the same tensors and a configuration of its own, which can be changed while others use the first."""
    tensors = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
