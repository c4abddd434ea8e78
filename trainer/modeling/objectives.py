"""What a model can learn: each objective is a model together with its loss. Imports torch and transformers."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from trainer.data.batch import IGNORE_INDEX
from trainer.modeling import cpu_matmul, fused_ops, lora
from trainer.spec import TrainSpec


class Objective(nn.Module):
    """A model together with its loss, so that DeepSpeed sees one module.

    `forward` takes the arrays of a batch as tensors (see trainer/data/batch.py) and returns a tensor of one dimension,
    fp32: the summed loss in nats and, where the module does not train, behind it what `metric_names` names, summed the
    same way.
    """

    metric_names: tuple[str, ...] = ()

    def __init__(self, model: PreTrainedModel, spec: TrainSpec) -> None:
        super().__init__()
        self.model = model
        self.spec = spec

    def metrics(self, counted: Sequence[float], num_targets: float) -> dict[str, float]:
        """What the sums of `counted` say about a batch, by name: without more, the mean of each."""
        return {name: value / num_targets for name, value in zip(self.metric_names, counted, strict=True)}


class CausalLM(Objective):
    """Next-token prediction: cross-entropy of each position's label, times its weight where the batch has weights.

    input_ids, labels, weights, position_ids (samples, tokens). `position_ids` start at 0 again for each record that
    shares a sequence; transformers then masks attention between records.
    """

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        weights: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        inputs = {"input_ids": input_ids, "position_ids": position_ids, "use_cache": False}
        if not fused_ops.has_linear_lm_head(self.model):
            return weighted_cross_entropy(self.model(**inputs).logits, labels, weights).reshape(1)
        if weights is None and not self.training:
            weights = labels != IGNORE_INDEX  # the rows that fill up the last batch of an evaluation
        hidden, head = self.model.base_model(**inputs).last_hidden_state, fused_ops.lm_head_weight(self.model)
        return fused_ops.fused_linear_cross_entropy(hidden, head, labels, weights).reshape(1)


class MaskedLM(Objective):
    """Finds the words that are hidden: cross-entropy at their places."""

    metric_names = ("accuracy",)

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        nats = weighted_cross_entropy(logits, labels, None)
        if self.training:
            return nats.reshape(1)
        right = ((logits.argmax(-1) == labels) & (labels != IGNORE_INDEX)).sum()
        return torch.stack([nats, right.to(nats.dtype)])


class SequenceClassification(Objective):
    """Gives a text its label: cross-entropy over the classes. Of each class it counts how often a text has it, how
    often it is given, and how often rightly.
    """

    def __init__(self, model: PreTrainedModel, spec: TrainSpec) -> None:
        super().__init__(model, spec)
        self._num_labels = int(model.config.num_labels)
        self.metric_names = tuple(f"{what}_{n}" for what in ("is", "given", "right") for n in range(self._num_labels))

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor) -> Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        nats = weighted_cross_entropy(logits, labels, None).reshape(1)
        if self.training:
            return nats
        true, given = labels[labels != IGNORE_INDEX], logits.argmax(-1)[labels != IGNORE_INDEX]
        counts = [torch.bincount(found, minlength=self._num_labels) for found in (true, given, true[true == given])]
        return torch.cat([nats, *(count.to(nats.dtype) for count in counts)])

    def metrics(self, counted: Sequence[float], num_targets: float) -> dict[str, float]:
        """Accuracy, and F1 as the mean over the classes that a text has or is given."""
        size = self._num_labels
        true, given, right = (counted[start : start + size] for start in (0, size, 2 * size))
        f1 = [2 * r / (t + g) for t, g, r in zip(true, given, right, strict=True) if t + g]
        return {"accuracy": sum(right) / num_targets, "f1": sum(f1) / len(f1)}


class Seq2SeqLM(Objective):
    """Writes a target, given a source and, at each place, what stands before it."""

    def forward(
        self, input_ids: Tensor, labels: Tensor, decoder_input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        logits = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            use_cache=False,
        ).logits
        return weighted_cross_entropy(logits, labels, None).reshape(1)


class DPO(Objective):
    """Direct preference optimization: moves a model to the chosen one of two answers, measured from where it started.

    The reward of an answer is `dpo_beta` times how much likelier it is now than under the reference, the model before
    its first step, so an objective is made before a checkpoint's weights are put into its model.
    """

    metric_names = ("reward_accuracy", "reward_margin")

    def __init__(self, model: PreTrainedModel, spec: TrainSpec) -> None:
        super().__init__(model, spec)
        is_whole = spec.tuning == "full"  # beside adapters the model's own weights are what they were
        self.reference = deepcopy(model).requires_grad_(False).eval() if is_whole else None

    def train(self, mode: bool = True) -> "DPO":
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    def forward(self, input_ids: Tensor, labels: Tensor, answered: Tensor, weights: Tensor) -> Tensor:
        reference = self.model if self.reference is None else self.reference
        with torch.no_grad(), lora.disabled(self.model):
            before = answer_log_probs(reference, input_ids, labels, answered)
        rewards = self.spec.dpo_beta * (answer_log_probs(self.model, input_ids, labels, answered) - before)
        margins = rewards[:, 0] - rewards[:, 1]
        loss = torch.dot(-F.logsigmoid(margins), weights)
        if self.training:
            return loss.reshape(1)
        return torch.stack([loss, torch.dot((margins > 0).float(), weights), torch.dot(margins, weights)])


def answer_log_probs(model: PreTrainedModel, input_ids: Tensor, labels: Tensor, answered: Tensor) -> Tensor:
    """The log-probability of each answer (samples, 2), of pairs (samples, 2, tokens)."""
    given, places = {"input_ids": input_ids.flatten(0, 1), "use_cache": False}, answered.flatten(0, 1)
    if fused_ops.has_linear_lm_head(model):  # then the prompts, which are most of the tokens, need no logits
        logits = cpu_matmul.linear(model.base_model(**given).last_hidden_state[places], fused_ops.lm_head_weight(model))
    else:
        logits = model(**given).logits[places]
    nats = torch.zeros(labels.shape, device=labels.device)
    nats[answered] = F.cross_entropy(logits.float(), labels[answered], reduction="none")
    return -nats.sum(-1)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """The summed cross-entropy of logits (..., vocabulary) against labels (...) that are not IGNORED."""
    flat, targets = logits.float().flatten(0, -2), labels.flatten()
    if weights is None:
        return F.cross_entropy(flat, targets, ignore_index=IGNORE_INDEX, reduction="sum")
    nats = F.cross_entropy(flat, targets, ignore_index=IGNORE_INDEX, reduction="none")
    return torch.dot(nats, weights.flatten().float())


OBJECTIVES: dict[str, type[Objective]] = {
    "causal": CausalLM,
    "masked": MaskedLM,
    "span_corruption": Seq2SeqLM,
    "seq2seq": Seq2SeqLM,
    "chat": CausalLM,
    "completion": CausalLM,
    "classification": SequenceClassification,
    "dpo": DPO,
}


def objective(spec: TrainSpec, model: PreTrainedModel) -> Objective:
    """The model with the loss that a spec asks for."""
    return OBJECTIVES[spec.objective](model, spec)
