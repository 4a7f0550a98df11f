"""Every loss against torch's, scikit-learn's or a sum by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from small_job import LOSS
from torch import Tensor

from weighin.training.trainer import (
    Criterion,
    cross_entropy,
    distillation,
    focal,
    smooth,
    soft_f1,
)

OFF = replace(LOSS, cross_entropy=0, smoothing=0, soft_f1=0)
LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.5, 0.3], [-0.7, 0.2, 1.1], [0.4, 0.4, 0.4]])
LABELS = torch.tensor([0, 1, 2, 1])
HARD = F.one_hot(LABELS, 3).float()
SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6], [0.5, 0.0, 0.5]])


def test_cross_entropy_is_torchs() -> None:
    assert cross_entropy(LOGITS, HARD) == pytest.approx(float(F.cross_entropy(LOGITS, LABELS)))
    assert cross_entropy(LOGITS, SOFT) == pytest.approx(float(F.cross_entropy(LOGITS, SOFT)))


def test_label_smoothing_is_torchs() -> None:
    found = cross_entropy(LOGITS, smooth(HARD, 0.2))
    assert found == pytest.approx(float(F.cross_entropy(LOGITS, LABELS, label_smoothing=0.2)))
    assert smooth(HARD, 0.3)[0].tolist() == pytest.approx([0.8, 0.1, 0.1])


def test_focal_by_hand_and_as_cross_entropy_at_zero() -> None:
    p = F.softmax(LOGITS, 1)[torch.arange(4), LABELS]
    by_hand = (-((1 - p) ** 2) * p.log()).mean()
    assert focal(LOGITS, HARD, 2) == pytest.approx(float(by_hand))
    assert focal(LOGITS, SOFT, 0) == pytest.approx(float(F.cross_entropy(LOGITS, SOFT)))


def test_focal_has_a_finite_gradient_where_an_answer_is_sure() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    focal(logits, HARD[:1], 0.5).backward()
    assert torch.isfinite(logits.grad).all()


def test_soft_f1_of_sure_answers_is_one_less_macro_f1() -> None:
    truth, answers = np.array([0, 0, 1, 2, 2, 1, 0]), np.array([0, 1, 1, 2, 0, 1, 0])
    logits = 100 * F.one_hot(torch.from_numpy(answers), 3).float()
    found = soft_f1(logits, F.one_hot(torch.from_numpy(truth), 3).float())
    assert found == pytest.approx(1 - f1_score(truth, answers, average="macro"), abs=1e-6)


def test_soft_f1_counts_the_classes_of_the_shard_only() -> None:
    logits = 100 * F.one_hot(torch.tensor([0, 0]), 3).float()
    assert soft_f1(logits, F.one_hot(torch.tensor([0, 0]), 3).float()) == pytest.approx(0)


def test_distillation_is_the_divergence() -> None:
    teacher, t = torch.flip(LOGITS, (0,)), 3.0
    p, q = F.softmax(teacher / t, 1), F.softmax(LOGITS / t, 1)
    by_hand = t * t * (p * (p / q).log()).sum(1).mean()
    assert distillation(LOGITS, teacher, t) == pytest.approx(float(by_hand), rel=1e-5)
    assert distillation(LOGITS, LOGITS, t) == pytest.approx(0, abs=1e-6)


def test_logit_adjustment_adds_the_log_prior() -> None:
    prior = torch.tensor([0.7, 0.2, 0.1])
    criterion = Criterion(replace(OFF, cross_entropy=1, logit_adjustment=1.5), prior)
    shifted = LOGITS + 1.5 * prior.log()
    assert criterion(LOGITS, HARD) == pytest.approx(float(F.cross_entropy(shifted, LABELS)))


def test_the_weighted_sum() -> None:
    weights = replace(OFF, cross_entropy=2, smoothing=0.1, soft_f1=3, focal=0.5)
    parts: list[Tensor] = [
        2 * F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1),
        3 * soft_f1(LOGITS, HARD),
        0.5 * focal(LOGITS, HARD, weights.focal_gamma),
        4 * distillation(LOGITS, SOFT, weights.temperature),
    ]
    criterion = Criterion(weights, torch.ones(3) / 3, distillation=4)
    assert criterion(LOGITS, HARD, SOFT) == pytest.approx(float(sum(parts)), rel=1e-6)
    assert criterion(LOGITS, HARD) == pytest.approx(float(sum(parts[:3])), rel=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "soft_f1", "focal"])
def test_each_loss_falls_along_its_gradient(name: str) -> None:
    criterion = Criterion(replace(OFF, **{name: 1.0}), torch.ones(3) / 3)
    logits = LOGITS.clone().requires_grad_()
    before = criterion(logits, HARD)
    (step,) = torch.autograd.grad(before, logits)
    assert criterion(logits - 0.1 * step, HARD) < before
