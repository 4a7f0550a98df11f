"""What the grader knows of a tensor and of an operator while it walks a graph.

The grader infers every shape itself: shapes written in the file are claims. Three rules keep a
count honest, and each image's label a matter of that image alone:

    - the first axis of every activation is the batch, and no operator mixes along it;
    - weights come from the file as they are, so no layer's weights are computed by the graph;
    - whole numbers (the arithmetic on shapes that exporters leave behind) are computed here, and
      never turn into activations.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weighin.grading.model import refuse

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fact:
    """What is known of a tensor: an activation's shape, a weight's, or whole numbers' values."""

    shape: Shape
    kind: str  # "activation", "weight" or "ints"
    ints: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Node:
    """An operator with the facts of its inputs; a left-out optional input is None."""

    op: str
    name: str
    inputs: tuple[Fact | None, ...]
    attributes: dict[str, Any]
    outputs: int

    def fail(self, problem: str) -> Exception:
        """Return the error that names this operator."""
        return refuse(f"operator {self.op} {self.name}: {problem}")

    def data(self, index: int = 0) -> Shape:
        """Return the shape of an input that must be an activation."""
        fact = self.inputs[index] if index < len(self.inputs) else None
        if fact is None or fact.kind != "activation":
            raise self.fail(f"input {index} is not computed from the images")
        return fact.shape

    def weight(self, index: int) -> Shape:
        """Return the shape of an input that must be stored in the file."""
        fact = self.inputs[index] if index < len(self.inputs) else None
        if fact is None or fact.kind != "weight":
            raise self.fail(f"input {index} is not a stored tensor")
        return fact.shape

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def ints(self, index: int, attribute: str, default: list[int] | None = None) -> list[int]:
        """Return whole numbers given as an input or, in older opsets, as an attribute."""
        if self.has(index):
            fact = self.inputs[index]
            assert fact is not None
            if fact.ints is None:
                raise self.fail(f"input {index} is not known before it runs")
            return [int(value) for value in fact.ints.ravel()]
        found = self.attributes.get(attribute, default)
        if found is None:
            raise self.fail(f"it lacks {attribute}")
        return list(found)

    def axis(self, value: int, rank: int) -> int:
        """Return an axis counted from the front, checked, and never the batch's."""
        axis = value + rank if value < 0 else value
        if not 0 < axis < rank:
            raise self.fail("it works along the batch, or along an axis that does not exist")
        return axis


def activation(*sides: int) -> Fact:
    """Return the fact of an activation of this shape."""
    return Fact(tuple(sides), "activation")


def whole(values: Any) -> Fact:
    """Return the fact of whole numbers that are known."""
    ints = np.asarray(values, dtype=np.int64)
    return Fact(ints.shape, "ints", ints)
