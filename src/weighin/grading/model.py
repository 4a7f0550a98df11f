"""Opens an ONNX file that nobody vouches for: what it may hold is listed here, all else is refused.

A gradable model is one self-contained file of at most `MAX_BYTES`, of default-domain operators
from operators.py, with one input `images` (batch, 3, H, W) and one output `logits` (batch, K), both
float32. Its metadata says what labels mean:

    classes     JSON list of the K class names, in the order of the logits
    fallback    the class of a picture that cannot be read (the commonest of the training data)
    turn_tall   "true" if tall pictures were laid on their side in training, else "false"
    macs        optional claim; recount.py compares it with what the graph does
"""

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from weighin.errors import ModelError
from weighin.file_names import printable
from weighin.files import sha256
from weighin.grading.graph import StaticGraph, array, independent_graph, refuse
from weighin.grading.operators import FIX, refused
from weighin.grading.runtime import one_line

MAX_BYTES = 256 * 2**20
MAX_NODES = 10_000
MAX_SIDE = 1024  # pixels
MAX_CLASSES = 100_000
MAX_NAME = 200  # characters of a class name
MAX_METADATA = 2**24  # characters
OPSETS = range(13, 24)
TENSOR_TYPES = {TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}
JOINERS = "\u200c\u200d"  # characters of format that names of some languages need


@dataclass(frozen=True)
class Model:
    """A checked ONNX graph and what its metadata says."""

    graph: StaticGraph
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
    data = read(Path(path))
    try:
        return _gradable(parse(data), sha256(data))
    except ModelError as error:
        raise ModelError(f"{path}: {error.problem}", error.fix) from None
    except MemoryError:
        raise
    except Exception as error:  # protobuf, onnx and NumPy raise anything on a file made to harm
        kind = type(error).__name__
        raise ModelError(f"{path}: it is damaged ({kind}: {one_line(error)})", FIX) from None


def read(path: Path) -> bytes:
    """Return the bytes of a file that is no larger than a model may be.

    Raises:
        ModelError: it is larger, missing or not readable.
    """
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


def parse(data: bytes) -> Any:
    """Return the onnx.ModelProto in `data`, a plain graph of known tensors.

    Raises:
        ModelError: names the first thing in it that is not allowed.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise refuse("not an ONNX file") from None
    if not proto.graph.node:
        raise refuse("not an ONNX file, or one without a graph")
    _check_parts(proto)
    for node in proto.graph.node:
        _check_operator(node)
    _check_tensors(proto.graph)
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # ValidationError, and what C++ raises
        raise refuse(f"not valid ONNX: {one_line(error)}") from None
    return proto


def _check_parts(proto: Any) -> None:
    imports = [(entry.domain or "ai.onnx", entry.version) for entry in proto.opset_import]
    foreign = sorted(domain for domain, _ in imports if domain != "ai.onnx")
    if foreign:
        raise refuse(f'operators of the domain "{printable(foreign[0])}"; only ONNX\'s are allowed')
    if len(imports) != 1 or imports[0][1] not in OPSETS:
        versions = " and ".join(str(version) for _, version in imports)
        raise refuse(f"opset {versions}; one of {OPSETS.start} to {OPSETS.stop - 1} is known")
    for what in ("functions", "training_info"):
        if len(getattr(proto, what)):
            raise refuse(f"it holds {what}; only a plain graph is allowed")
    if len(proto.graph.node) > MAX_NODES:
        raise refuse(f"{len(proto.graph.node):,} operators, over {MAX_NODES:,}")
    for what in ("sparse_initializer", "quantization_annotation"):
        if len(getattr(proto.graph, what)):
            raise refuse(f"it holds a {what}; only dense tensors are allowed")


def _check_operator(node: Any) -> None:
    if not all(
        isinstance(name, str) for name in (node.name, node.op_type, *node.input, *node.output)
    ):
        raise refuse("the name of an operator or of a tensor is not valid text")
    if node.domain not in ("", "ai.onnx"):
        raise refused(node.op_type, node.name, f'it is of the domain "{printable(node.domain)}"')
    if any(entry.HasField("g") or len(entry.graphs) for entry in node.attribute):
        raise refused(node.op_type, node.name, "it holds a graph of its own")
    names = {entry.name: entry for entry in node.attribute}
    if names.keys() >= {"auto_pad", "pads"} and names["auto_pad"].s not in (b"", b"NOTSET"):
        raise refused(node.op_type, node.name, "it gives pads and auto_pad")


def _check_tensors(graph: Any) -> None:
    seen = set()
    constants = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    for tensor in [*graph.initializer, *constants]:
        name = printable(str(tensor.name)[:80])
        if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
            raise refuse(f"tensor {name} is kept in another file")
        if tensor.data_type not in TENSOR_TYPES:
            kinds = {number: kind for kind, number in TensorProto.DataType.items()}
            kind = kinds.get(tensor.data_type, "of no known type")
            raise refuse(f"tensor {name} is {kind}; only FLOAT and whole numbers are counted")
        if any(side < 0 for side in tensor.dims):
            raise refuse(f"tensor {name} has a negative side")
        array(tensor)
    for tensor in graph.initializer:
        if tensor.name in seen:
            raise refuse(f"two tensors are called {printable(str(tensor.name)[:80])}")
        seen.add(tensor.name)


def _gradable(proto: Any, digest: str) -> Model:
    facts = _metadata(proto)
    classes = _classes(facts)
    size, batch = _input(proto.graph)
    _check_output(proto.graph, len(classes))
    graph = independent_graph(proto, batch)
    if graph.shapes.get("logits") != (graph.batch, len(classes)):
        shape = graph.shapes.get("logits")
        raise refuse(f"`logits` comes out as {shape}, not one number a class for each image")
    return Model(
        graph=graph,
        sha256=digest,
        size=size,
        classes=classes,
        fallback=_fallback(facts, classes),
        turn_tall=_flag(facts, "turn_tall"),
        claimed_macs=facts.get("macs"),
    )


def _metadata(proto: Any) -> dict[str, str]:
    facts: dict[str, str] = {}
    for entry in proto.metadata_props:
        if not isinstance(entry.key, str) or not isinstance(entry.value, str):
            raise refuse("its metadata is not valid UTF-8")
        facts[entry.key] = entry.value
    if sum(len(key) + len(value) for key, value in facts.items()) > MAX_METADATA:
        raise refuse(f"its metadata is over {MAX_METADATA:,} characters")
    return facts


def _classes(facts: dict[str, str]) -> tuple[str, ...]:
    if "classes" not in facts:
        raise refuse("its metadata has no `classes`")
    try:
        names = json.loads(facts["classes"])
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise refuse("its metadata `classes` is not a JSON list of names")
    if len(set(names)) < len(names):
        raise refuse("its metadata `classes` names a class twice")
    if not 2 <= len(names) <= MAX_CLASSES:
        raise refuse(f"its metadata names {len(names)} classes; 2 to {MAX_CLASSES:,} are allowed")
    for name in names:
        if len(name) > MAX_NAME or any(_unprintable(character) for character in name):
            shown = printable(name[:40])
            raise refuse(f"the class name {shown} is no printable text of at most {MAX_NAME}")
    return tuple(names)


def _unprintable(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Cf", "Zl", "Zp") and character not in JOINERS


def _fallback(facts: dict[str, str], classes: tuple[str, ...]) -> str:
    fallback = facts.get("fallback")
    if fallback not in classes:
        raise refuse("its metadata has no `fallback` that is one of its classes")
    return fallback


def _flag(facts: dict[str, str], name: str) -> bool:
    if facts.get(name) not in ("true", "false"):
        raise refuse(f'its metadata `{name}` is not "true" or "false"')
    return facts[name] == "true"


def _input(graph: Any) -> tuple[tuple[int, int], int]:
    """Return the (H, W) of the images, and the batch that the file fixes, 0 if it is free."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if [value.name for value in inputs] != ["images"]:
        raise refuse("its input is not one tensor called `images`")
    sides = _float_sides(inputs[0])
    if len(sides) != 4 or sides[1] != 3 or not all(1 <= side <= MAX_SIDE for side in sides[2:]):
        raise refuse(f"`images` is {sides}, not float32 (batch, 3, H, W) up to {MAX_SIDE} pixels")
    if not 0 <= sides[0] <= 1024:
        raise refuse(f"its batch is fixed at {sides[0]:,}; 1 to 1,024 or none is allowed")
    return (sides[2], sides[3]), sides[0]


def _check_output(graph: Any, classes: int) -> None:
    if [value.name for value in graph.output] != ["logits"]:
        raise refuse("its output is not one tensor called `logits`")
    sides = _float_sides(graph.output[0])
    if len(sides) != 2 or sides[1] != classes:
        raise refuse(f"`logits` is {sides}, not float32 (batch, {classes}): one a class")


def _float_sides(value: Any) -> list[int]:
    """Return a value's sides, 0 for one without a fixed length; empty if it is not float32."""
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        return []
    return [side.dim_value for side in tensor.shape.dim]
