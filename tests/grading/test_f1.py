"""F1 and its tables against scikit-learn and by hand."""

import numpy as np
import pytest

from weighin.determinism import generator
from weighin.grading.score import ClassRow, confusion


def test_by_hand() -> None:
    found = confusion(["a", "a", "a", "b"], ["a", "a", "b", "b"])
    assert found.counts.tolist() == [[2, 1], [0, 1]]
    assert found.accuracy == 0.75
    assert found.f1 == (4 / 5 + 2 / 3) / 2
    assert found.rows() == [
        ClassRow("a", 3, 2, 1.0, 2 / 3, 0.8),
        ClassRow("b", 1, 2, 0.5, 1.0, 2 / 3),
    ]


def test_a_class_that_is_only_predicted_counts_as_nought() -> None:
    assert confusion(["a", "a"], ["a", "z"]).f1 == (2 / 3 + 0) / 2


@pytest.mark.parametrize("case", range(12))
def test_equals_scikit_learn(case: int) -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    random = generator("f1", case)
    classes = np.array([f"c{i}" for i in range(9)])
    truth = list(classes[random.integers(0, 3 + case % 7, 40)])  # some classes never true
    predicted = list(classes[random.integers(case % 4, 9, 40)])  # some never predicted
    found = confusion(truth, predicted)
    macro = f1_score(truth, predicted, average="macro", zero_division=0)
    assert found.f1 == pytest.approx(macro, abs=1e-15)
    assert found.accuracy == accuracy_score(truth, predicted)
    assert np.array_equal(found.counts, confusion_matrix(truth, predicted))
    each = f1_score(truth, predicted, average=None, zero_division=0)
    assert [row.f1 for row in found.rows()] == pytest.approx(list(each), abs=1e-15)
