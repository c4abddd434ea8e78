"""Training objectives: each is a model together with its loss. Imports torch and transformers."""

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

    `forward` takes the arrays of a batch as tensors (see trainer/data/batch.py) and returns fp32 (1 + num_metrics,):
    the summed loss in nats and, in evaluation, the sums that `metric_names` names.
    """

    metric_names: tuple[str, ...] = ()

    def __init__(self, model: PreTrainedModel, spec: TrainSpec) -> None:
        super().__init__()
        self.model = model
        self.spec = spec

    def metrics(self, counted: Sequence[float], num_targets: float) -> dict[str, float]:
        """Metrics by name from the sums that follow the loss: each divided by the number of targets."""
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
    """Masked language modeling (BERT, Devlin et al. 2019): cross-entropy at the masked positions.

    input_ids, labels, attention_mask (samples, tokens); labels are IGNORE_INDEX where nothing is masked. In evaluation
    it also counts the correct predictions.
    """

    metric_names = ("accuracy",)

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        loss_sum = weighted_cross_entropy(logits, labels, None)
        if self.training:
            return loss_sum.reshape(1)
        num_correct = (logits.argmax(-1) == labels).sum()  # no token has the id IGNORE_INDEX
        return torch.stack([loss_sum, num_correct.to(loss_sum.dtype)])


class SequenceClassification(Objective):
    """Classification: cross-entropy over the classes.

    input_ids, attention_mask (samples, tokens), labels (samples). In evaluation it counts, for each class, the texts
    that have the label, the predictions of it, and the correct ones.
    """

    def __init__(self, model: PreTrainedModel, spec: TrainSpec) -> None:
        super().__init__(model, spec)
        self._num_labels = int(model.config.num_labels)
        self.metric_names = tuple(
            f"{count}_{n}" for count in ("actual", "predicted", "correct") for n in range(self._num_labels)
        )

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor) -> Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        loss_sum = weighted_cross_entropy(logits, labels, None).reshape(1)
        if self.training:
            return loss_sum
        actual, predicted = labels[labels != IGNORE_INDEX], logits.argmax(-1)[labels != IGNORE_INDEX]
        correct = actual[actual == predicted]
        counts = [torch.bincount(classes, minlength=self._num_labels) for classes in (actual, predicted, correct)]
        return torch.cat([loss_sum, *(count.to(loss_sum.dtype) for count in counts)])

    def metrics(self, counted: Sequence[float], num_targets: float) -> dict[str, float]:
        """Accuracy, and macro F1: the mean over the classes that occur among labels or predictions."""
        size = self._num_labels
        actual, predicted, correct = (counted[start : start + size] for start in (0, size, 2 * size))
        f1 = [2 * c / (a + p) for a, p, c in zip(actual, predicted, correct, strict=True) if a + p]
        return {"accuracy": sum(correct) / num_targets, "f1": sum(f1) / len(f1)}


class Seq2SeqLM(Objective):
    """Sequence to sequence: cross-entropy of each target token, given the source and the target before it.

    input_ids, attention_mask (samples, source tokens), labels, decoder_input_ids (samples, target tokens).
    """

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
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290).

    The loss of a pair is -log sigmoid(reward of the chosen answer - reward of the rejected one). The reward of an
    answer is `dpo_beta` times its log-probability minus that under the reference: the model before its first step, so
    create the objective before loading a checkpoint's weights into its model.

    input_ids, labels, answered (samples, 2, tokens), the chosen answer first; `answered` is true where an answer's
    tokens are predicted. weights (samples).
    """

    metric_names = ("reward_accuracy", "reward_margin")

    def __init__(self, model: PreTrainedModel, spec: TrainSpec) -> None:
        super().__init__(model, spec)
        is_full = spec.tuning == "full"  # with LoRA the model without its adapters is the reference
        self.reference = deepcopy(model).requires_grad_(False).eval() if is_full else None

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
    """The log-probability in nats of each answer (samples, 2).

    input_ids, labels, answered (samples, 2, tokens).
    """
    inputs, positions = {"input_ids": input_ids.flatten(0, 1), "use_cache": False}, answered.flatten(0, 1)
    if fused_ops.has_linear_lm_head(model):  # then the prompts, which are most of the tokens, need no logits
        hidden = model.base_model(**inputs).last_hidden_state[positions]
        logits = cpu_matmul.linear(hidden, fused_ops.lm_head_weight(model))
    else:
        logits = model(**inputs).logits[positions]
    losses = torch.zeros(labels.shape, device=labels.device)
    losses[answered] = F.cross_entropy(logits.float(), labels[answered], reduction="none")
    return -losses.sum(-1)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """The summed cross-entropy, in nats, of logits (..., classes) against labels (...) other than IGNORE_INDEX, each
    times its weight (...).
    """
    flat, targets = logits.float().flatten(0, -2), labels.flatten()
    if weights is None:
        return F.cross_entropy(flat, targets, ignore_index=IGNORE_INDEX, reduction="sum")
    losses = F.cross_entropy(flat, targets, ignore_index=IGNORE_INDEX, reduction="none")
    return torch.dot(losses, weights.flatten().float())


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
