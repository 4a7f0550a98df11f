"""Opens an ONNX file that nobody vouches for: what it may hold is listed here, all else is refused.

A gradable model is one self-contained file of at most `MAX_BYTES`, of default-domain operators
from shapes.py, with one input `images` (batch, 3, H, W) and one output `logits` (batch, K), both
float32. Its metadata says what labels mean:

    classes     JSON list of the K class names, sorted
    fallback    the class of a picture that cannot be read (the commonest of the training data)
    turn_tall   "true" if tall pictures were laid on their side in training, else "false"
    macs        optional claim; recount.py compares it with what the graph does
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from weighin.errors import ModelError
from weighin.files import sha256

MAX_BYTES = 256 * 2**20
MAX_NODES = 10_000
MAX_SIDE = 1024  # pixels
MAX_CLASSES = 100_000
OPSETS = range(13, 22)
TENSOR_TYPES = {TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32}
FIX = "export the model again with `weighin` (finetune stage), or fix its exporter"


@dataclass(frozen=True)
class Model:
    """A checked ONNX graph and what its metadata says."""

    proto: Any = field(repr=False)  # onnx.ModelProto
    sha256: str
    size: tuple[int, int]  # (H, W) in pixels
    classes: tuple[str, ...]
    fallback: str
    turn_tall: bool
    claimed_macs: str | None


def open_model(path: Path) -> Model:
    """Return the model in an ONNX file, checked before anything of it runs.

    Raises:
        ModelError: names the file and the first thing in it that is not allowed.
    """
    data = _read(Path(path))
    try:
        return _checked(data)
    except ModelError as error:
        raise ModelError(f"{path}: {error.problem}", error.fix) from None


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ModelError(f"{path} is not a file", "name an ONNX file that exists")
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(
                f"{path} is {path.stat().st_size:,} bytes, over {MAX_BYTES:,}",
                "a lightweight model is far smaller: was another file meant?",
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read {path}: {error.strerror}", "make it readable for this user"
        ) from None


def _checked(data: bytes) -> Model:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise refuse("not an ONNX file") from None
    if not proto.graph.node:
        raise refuse("not an ONNX file, or one without a graph")
    _check_model(proto)
    _check_tensors(proto.graph)
    facts = _metadata(proto)
    classes = _classes(facts)
    return Model(
        proto=proto,
        sha256=sha256(data),
        size=_input_size(proto.graph),
        classes=_check_output(proto.graph, classes),
        fallback=_fallback(facts, classes),
        turn_tall=_flag(facts, "turn_tall"),
        claimed_macs=facts.get("macs"),
    )


def refuse(problem: str) -> ModelError:
    """Return the error for a model that is not gradable."""
    return ModelError(problem, FIX)


def _check_model(proto: Any) -> None:
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    foreign = sorted(domain for domain in versions if domain not in ("", "ai.onnx"))
    if foreign:
        raise refuse(f'operators of the domain "{foreign[0]}"; only ONNX\'s own are allowed')
    version = versions.get("", versions.get("ai.onnx", 0))
    if version not in OPSETS:
        raise refuse(f"opset {version}; {OPSETS.start} to {OPSETS.stop - 1} are known")
    for what in ("functions", "training_info"):
        if len(getattr(proto, what)):
            raise refuse(f"it holds {what}; only a plain graph is allowed")
    if len(proto.graph.node) > MAX_NODES:
        raise refuse(f"{len(proto.graph.node):,} operators, over {MAX_NODES:,}")
    for what in ("sparse_initializer", "quantization_annotation"):
        if len(getattr(proto.graph, what)):
            raise refuse(f"it holds a {what}; only dense tensors are allowed")
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise refuse(f'{node.name}: operator {node.op_type} of the domain "{node.domain}"')


def _check_tensors(graph: Any) -> None:
    seen = set()
    constants = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    for tensor in [*graph.initializer, *constants]:
        if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
            raise refuse(f"tensor {tensor.name} is kept in another file")
        if tensor.data_type not in TENSOR_TYPES:
            kind = TensorProto.DataType.Name(tensor.data_type)
            raise refuse(f"tensor {tensor.name} is {kind}; only FLOAT and INT64 are counted")
        if any(side < 0 for side in tensor.dims):
            raise refuse(f"tensor {tensor.name} has a negative side")
    for tensor in graph.initializer:
        if tensor.name in seen:
            raise refuse(f"two tensors are called {tensor.name}")
        seen.add(tensor.name)


def _metadata(proto: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props}


def _classes(facts: dict[str, str]) -> tuple[str, ...]:
    if "classes" not in facts:
        raise refuse("its metadata has no `classes`")
    try:
        names = json.loads(facts["classes"])
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise refuse("its metadata `classes` is not a JSON list of names")
    if names != sorted(set(names)):
        raise refuse("its metadata `classes` is not sorted, or names a class twice")
    if not 2 <= len(names) <= MAX_CLASSES:
        raise refuse(f"its metadata names {len(names)} classes; 2 to {MAX_CLASSES:,} are allowed")
    return tuple(names)


def _fallback(facts: dict[str, str], classes: tuple[str, ...]) -> str:
    fallback = facts.get("fallback")
    if fallback not in classes:
        raise refuse("its metadata has no `fallback` that is one of its classes")
    return fallback


def _flag(facts: dict[str, str], name: str) -> bool:
    if facts.get(name) not in ("true", "false"):
        raise refuse(f'its metadata `{name}` is not "true" or "false"')
    return facts[name] == "true"


def _input_size(graph: Any) -> tuple[int, int]:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if [value.name for value in inputs] != ["images"]:
        raise refuse("its input is not one tensor called `images`")
    sides = _float_sides(inputs[0])
    if len(sides) != 4 or sides[1] != 3 or not all(1 <= side <= MAX_SIDE for side in sides[2:]):
        raise refuse(f"`images` is {sides}, not float32 (batch, 3, H, W) up to {MAX_SIDE} pixels")
    _check_batch(sides[0], "images")
    return sides[2], sides[3]


def _check_output(graph: Any, classes: tuple[str, ...]) -> tuple[str, ...]:
    if [value.name for value in graph.output] != ["logits"]:
        raise refuse("its output is not one tensor called `logits`")
    sides = _float_sides(graph.output[0])
    if len(sides) != 2 or sides[1] != len(classes):
        raise refuse(f"`logits` is {sides}, not float32 (batch, {len(classes)}): one a class")
    _check_batch(sides[0], "logits")
    return classes


def _float_sides(value: Any) -> list[int]:
    """Return a value's sides, 0 for one without a fixed length; empty if it is not float32."""
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        return []
    return [side.dim_value for side in tensor.shape.dim]


def _check_batch(side: int, name: str) -> None:
    if side != 0:
        raise refuse(f"the batch of `{name}` is fixed at {side}; it must be free")
