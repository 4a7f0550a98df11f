"""Losses over one shard's logits (B, K) and target distributions (B, K); each is a scalar.

Targets are soft, because mixup, CutMix and label smoothing make them so.
"""

import torch.nn.functional as F
from torch import Tensor

from weighin.params import Loss


def smooth(targets: Tensor, amount: float) -> Tensor:
    """Return targets with `amount` spread over all classes (Szegedy et al., 2016)."""
    return targets * (1 - amount) + amount / targets.shape[1]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of soft targets."""
    return -(targets * F.log_softmax(logits, 1)).sum(1).mean()


def focal(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Return cross-entropy weighted by (1 - p)^gamma (Lin et al., 2017)."""
    log_p = F.log_softmax(logits, 1)
    return -(targets * (1 - log_p.exp()).clamp(min=1e-6) ** gamma * log_p).sum(1).mean()


def soft_f1(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - macro F1 with probabilities in place of counts, over the shard's classes."""
    p = F.softmax(logits, 1)
    hits, support = (p * targets).sum(0), targets.sum(0)
    f1 = 2 * hits / (p.sum(0) + support).clamp(min=1e-6)
    present = (support > 0).to(f1.dtype)
    return 1 - (f1 * present).sum() / present.sum()


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) at temperature T (Hinton et al., 2015)."""
    log_q = F.log_softmax(logits / temperature, 1)
    p = F.softmax(teacher / temperature, 1)
    return temperature**2 * F.kl_div(log_q, p, reduction="batchmean")


class Criterion:
    """The weighted sum that a recipe names."""

    def __init__(self, weights: Loss, prior: Tensor, distillation: float = 1.0) -> None:
        """Take the recipe's weights, the training prior (K,), and the weight of a teacher's labels.

        The prior shifts the logits.

        Logit adjustment: Menon et al., "Long-tail learning via logit adjustment", 2021.
        """
        self.weights, self.distillation = weights, distillation
        self.shift = weights.logit_adjustment * prior.log() if weights.logit_adjustment else None

    def __call__(self, logits: Tensor, targets: Tensor, teacher: Tensor | None = None) -> Tensor:
        """Return the loss of a shard; `teacher` holds another network's logits (B, K)."""
        w = self.weights
        total = logits.new_zeros(())
        if teacher is not None:
            total = total + self.distillation * distillation(logits, teacher, w.temperature)
        if self.shift is not None:
            logits = logits + self.shift
        if w.cross_entropy:
            total = total + w.cross_entropy * cross_entropy(logits, smooth(targets, w.smoothing))
        if w.soft_f1:
            total = total + w.soft_f1 * soft_f1(logits, targets)
        if w.focal:
            total = total + w.focal * focal(logits, targets, w.focal_gamma)
        return total
