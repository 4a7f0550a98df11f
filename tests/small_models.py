"""Small ONNX models and pictures, made by hand so that each fault can be put where it belongs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

CLASSES = ["blue", "green", "red"]
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
METADATA = {"classes": json.dumps(CLASSES), "fallback": "green", "turn_tall": "false"}


def stored(name: str, values: Any) -> Any:
    array = np.asarray(values)
    kind = {"i": np.int64, "b": np.bool_}.get(array.dtype.kind, np.float32)
    return numpy_helper.from_array(array.astype(kind), name)


def colour_nodes(source: str = "images") -> list[Any]:
    return [
        helper.make_node("GlobalAveragePool", [source], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], name="head", transB=1),
    ]


def make_model(
    nodes: list[Any] | None = None,
    before: list[Any] | None = None,
    weights: dict[str, Any] | None = None,
    metadata: dict[str, str | None] | None = None,
    size: tuple[int, int] = (8, 8),
    classes: int = 3,
) -> Any:
    """Return a model that names the strongest colour.

    `before` are operators between `images` and the `x` that is pooled; `nodes` are all operators.
    """
    if before:
        nodes = [*before, *colour_nodes("x")]
    tensors = {"w": np.eye(3)[::-1], "b": np.zeros(3)} | (weights or {})
    graph = helper.make_graph(
        nodes or colour_nodes(),
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, *size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [stored(name, values) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = METADATA | (metadata or {})
    helper.set_model_props(model, {k: v for k, v in facts.items() if v is not None})
    return model


def write_pictures(folder: Path) -> None:
    """Write six pictures: two of each colour, one of them in a folder below."""
    for name, colour in COLOURS.items():
        for place in (f"{name}.png", f"below/{name}.jpg"):
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 9), colour).save(path)
