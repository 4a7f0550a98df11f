"""Opens an ONNX file that nobody vouches for: what it may hold is listed here, all else is refused.

A gradable model is one self-contained file of at most `MAX_BYTES`, of default-domain operators
from operators.py, with one input of images and one output of a number a class, both float32. A
contract (contract.py) in its metadata or beside it says what they mean; `macs` in its metadata is
a claim, which recount.py compares with what the graph does.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

from weighin.errors import HiddenWorkError, ModelError
from weighin.file_names import printable
from weighin.files import sha256
from weighin.grading.contract import MAX_TEXT, Contract, from_metadata
from weighin.grading.graph import StaticGraph, array, independent_graph, inputs_of, refuse
from weighin.grading.operators import FIX, called, refused
from weighin.grading.runtime import one_line

MAX_BYTES = 256 * 2**20
MAX_NODES = 10_000
MAX_SIDE = 1024  # pixels
MAX_BATCH = 1024  # images, of a file that fixes it
OPSETS = range(13, 24)
MOST_SIDES = 32  # numbers: what shapes are computed from has a number or two for each side
INTO_ONE = (
    "export it into one file: torch.onnx.export(..., external_data=False), or dynamo=False; or "
    "make one of both: python -c \"import onnx; onnx.save(onnx.load('FILE'), 'ONE')\""
)
Key = tuple[str, str, str]  # of a function: domain, name and overload
Extent = tuple[int, int, int]  # operators, bytes, and places that take something over from a call
ENDLESS: Extent = (-1, -1, -1)  # of a function that is being measured
TENSOR_TYPES = {
    *(TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL),
    *(TensorProto.INT8, TensorProto.UINT8),  # of quantized graphs
}


@dataclass(frozen=True)
class Model:
    """A checked ONNX graph and what its metadata says."""

    graph: StaticGraph
    sha256: str
    bytes: int  # of the file
    size: tuple[int, int]  # (H, W) in pixels
    contract: Contract
    claimed_macs: str | None

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the outputs."""
        return self.contract.classes

    @property
    def fallback(self) -> str:
        """The class of a picture that cannot be read."""
        return self.contract.fallback

    @property
    def turn_tall(self) -> bool:
        """Whether tall pictures are laid on their side."""
        return self.contract.turn_tall


def open_model(path: Path, contract: Contract | None = None) -> Model:
    """Return the model in an ONNX file, checked before anything of it runs.

    `contract` takes the place of the one in the file's metadata.

    Raises:
        ModelError: names the file and the first thing in it that is not allowed.
    """
    data = read(Path(path))
    with damage_told(path):
        proto = parse(data)
        check_plain(proto)
        check_valid(proto)
        return _gradable(proto, data, contract)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Name the file in every error, and turn what libraries raise on damage into one."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{path}: {error.problem}", error.fix) from None
    except (MemoryError, HiddenWorkError):
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


def parse(data: bytes, values: bool = True) -> Any:
    """Return the onnx.ModelProto in `data`, all in one file.

    Without `values` weights may be in another file, which is not read: they are zeros.

    Raises:
        ModelError: names the first thing in it that is not.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise refuse("not an ONNX file") from None
    if not proto.graph.node:
        raise refuse("not an ONNX file, or one without a graph")
    if len(proto.graph.node) > MAX_NODES:
        raise refuse(f"{len(proto.graph.node):,} operators, over {MAX_NODES:,}")
    if len(proto.functions):
        proto = _inlined(proto)
    used = {"", "ai.onnx", *(node.domain for node in operators(proto.graph.node))}
    imports = [entry for entry in proto.opset_import if entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    for node in proto.graph.node:
        words = (node.name, node.op_type, node.domain, *node.input, *node.output)
        if not all(isinstance(word, str) for word in words):
            raise refuse("the name of an operator or of a tensor is not valid text")
    room = 0 if values else MAX_BYTES
    for tensor in stored_tensors(proto.graph):
        if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
            room -= _emptied(tensor, room)
    return proto


def _emptied(tensor: Any, room: int) -> int:
    """Put zeros in place of a tensor of another file, and return their bytes, four a number.

    Raises:
        ModelError: there is less room, or the tensor is so small that a shape may depend on it.
    """
    many: int = prod(tensor.dims)
    if not MOST_SIDES < many <= room // 4:
        name = printable(str(tensor.name)[:80])
        raise ModelError(f"tensor {name} is kept in another file", INTO_ONE)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, dtype), tensor.name))
    return 4 * many


def _inlined(proto: Any) -> Any:
    """Return a model whose functions, as PyTorch writes modules, stand in place of their calls.

    What they come to is measured before they are written out, for functions that call each other
    double at every step.

    Raises:
        ModelError: a function calls itself, or the graph is too large.
    """
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    nodes, size, _ = _extent(proto.graph.node, functions, {})
    if nodes > MAX_NODES or size > MAX_BYTES:
        raise refuse(
            f"its functions written out are {nodes:,} operators and up to {size:,} bytes, over "
            f"{MAX_NODES:,} or {MAX_BYTES:,}"
        )
    found = onnx.inliner.inline_local_functions(proto)
    for function in found.functions:  # with `convert_version` some would be left too
        name = printable(function.name[:80])
        raise refuse(f"its function {name} is of another opset than its graph")
    return found


def operators(nodes: Any) -> Iterator[Any]:
    """Yield operators, and those of the graphs that they hold, at any depth."""
    for node in nodes:
        yield node
        for graph in graphs_of(node):
            yield from operators(graph.node)


def graphs_of(node: Any) -> list[Any]:
    """Return the graphs that an operator holds: a branch's, a loop's."""
    return [graph for entry in node.attribute for graph in (entry.g, *entry.graphs)]


def _extent(nodes: Any, functions: dict[Key, Any], known: dict[Key, Extent]) -> Extent:
    """Return what operators come to at most when the calls in them are written out."""
    many = size = places = 0
    for node in operators(nodes):
        many, size = many + 1, size + node.ByteSize()
        places += len(node.input) + len(node.output)
        places += sum(bool(entry.ref_attr_name) for entry in node.attribute)
        key = (node.domain, node.op_type, node.overload)
        if key not in functions:
            continue
        if key not in known:
            known[key] = ENDLESS  # until it is known: what it holds does not call it
            known[key] = _extent(functions[key].node, functions, known)
        if known[key] is ENDLESS:
            raise refuse(f"its function {printable(node.op_type[:80])} calls itself")
        inner, inner_size, inner_places = known[key]
        many, size = many + inner, size + inner_size + inner_places * node.ByteSize()
        places += inner_places
    return many, size, places


def check_valid(proto: Any) -> None:
    """Check a model by ONNX's own checker: attributes, names, order, the sizes of tensors.

    Shapes are inferred: an output needs none.

    Raises:
        ModelError: says what is not valid.
    """
    for value in proto.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    for kind, values in (("input", inputs_of(proto.graph)), ("output", proto.graph.output)):
        for value in values:
            found = value.type.WhichOneof("value")
            if not found or (
                found == "tensor_type" and not value.type.tensor_type.HasField("shape")
            ):
                what = "shape" if found else "type"
                raise ModelError(
                    f"its {kind} {printable(value.name[:80])} has no {what}",
                    "export it with an example of the images' size: torch.onnx.export(model, "
                    "torch.zeros(1, 3, H, W), FILE)",
                )
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # ValidationError, and what C++ raises
        raise refuse(f"not valid ONNX: {one_line(error)}") from None


def stored_tensors(graph: Any) -> list[Any]:
    """Return the tensors that a graph holds, those of Constant operators included."""
    constants = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    return [*graph.initializer, *constants]


def check_plain(proto: Any) -> None:
    """Check that a model is a plain graph of ONNX's own operators on known kinds of tensors.

    Raises:
        ModelError: names the first thing that is not.
    """
    imports = [(entry.domain or "ai.onnx", entry.version) for entry in proto.opset_import]
    foreign = sorted(domain for domain, _ in imports if domain != "ai.onnx")
    if foreign:
        raise refuse(f'operators of the domain "{printable(foreign[0])}"; only ONNX\'s are allowed')
    if len(imports) != 1 or imports[0][1] not in OPSETS:
        versions = " and ".join(str(version) for _, version in imports)
        raise ModelError(
            f"opset {versions}; one of {OPSETS.start} to {OPSETS.stop - 1} is known",
            "export it again with such a one: torch.onnx.export(..., opset_version=17)",
        )
    holders = (proto, "training_info"), (proto.graph, "sparse_initializer")
    for holder, what in (*holders, (proto.graph, "quantization_annotation")):
        if len(getattr(holder, what)):
            raise refuse(f"it holds {what}; only a plain graph of dense tensors is allowed")
    for node in proto.graph.node:
        _check_operator(node)
    for tensor in stored_tensors(proto.graph):
        _check_tensor(tensor)


def _check_operator(node: Any) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise refused(node.op_type, called(node), f'it is of the domain "{printable(node.domain)}"')
    if any(entry.HasField("g") or len(entry.graphs) for entry in node.attribute):
        raise refused(node.op_type, called(node), "it holds a graph of its own")
    given = {entry.name: entry for entry in node.attribute}
    if given.keys() >= {"auto_pad", "pads"} and given["auto_pad"].s not in (b"", b"NOTSET"):
        raise refused(node.op_type, called(node), "it gives pads and auto_pad")


def _check_tensor(tensor: Any) -> None:
    name = printable(str(tensor.name)[:80])
    if tensor.data_type not in TENSOR_TYPES:
        kinds = {number: kind for kind, number in TensorProto.DataType.items()}
        kind = kinds.get(tensor.data_type, "of no known type")
        raise ModelError(
            f"tensor {name} is {kind}; only FLOAT and whole numbers are counted",
            "export it in float32 (model.float() in PyTorch), or quantize it to 8 bits",
        )
    if any(side < 0 for side in tensor.dims):
        raise refuse(f"tensor {name} has a negative side")
    array(tensor)


def _gradable(proto: Any, data: bytes, given: Contract | None) -> Model:
    facts = _metadata(proto)
    contract = given or from_metadata(facts)
    size, batch = _input(proto.graph, contract.layout)
    if len(proto.graph.output) != 1:
        names = ", ".join(printable(value.name[:40]) for value in proto.graph.output) or "none"
        problem = f"its outputs are {names}; a classifier has one"
        raise ModelError(problem, "export the logits alone")
    graph = independent_graph(proto, batch)
    name = proto.graph.output[0].name
    if graph.shapes.get(name) != (graph.batch, len(contract.classes)):
        raise refuse(
            f"its output {printable(name[:80])} comes out as {graph.shapes.get(name)}, "
            f"not one number for each of {len(contract.classes)} classes"
        )
    return Model(graph, sha256(data), len(data), size, contract, facts.get("macs"))


def _metadata(proto: Any) -> dict[str, str]:
    facts: dict[str, str] = {}
    for entry in proto.metadata_props:
        if not isinstance(entry.key, str) or not isinstance(entry.value, str):
            raise refuse("its metadata is not valid UTF-8")
        facts[entry.key] = entry.value
    if sum(len(key) + len(value) for key, value in facts.items()) > MAX_TEXT:
        raise refuse(f"its metadata is over {MAX_TEXT:,} characters")
    return facts


def check_sides(graph: Any) -> None:
    """Refuse inputs of which another side than the batch is free: their work is no number.

    A free side has a name, or nothing; some exporters write -1 or 0.

    Raises:
        ModelError: names the first of them, and the command that gives it numbers.
    """
    for value in inputs_of(graph):
        sides = [side.dim_value for side in value.type.tensor_type.shape.dim]
        if all(side > 0 for side in sides[1:]):
            continue
        shown = [str(side) if side > 0 else "?" for side in sides]
        free = iter("HWDLMN")
        fixed = ("1", *(str(side) if side > 0 else next(free, "N") for side in sides[1:]))
        name = printable(value.name[:80])
        raise ModelError(
            f"its input {name} is {' x '.join(shown)}: its work depends on sides that are free",
            "export it with fixed sides but for the batch, or give the free ones numbers: "
            f"python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name {shlex.quote(name)}"
            f" --input_shape {','.join(fixed)} FILE FIXED",
        )


def _input(graph: Any, layout: str) -> tuple[tuple[int, int], int]:
    """Return the (H, W) of the images, and the batch that the file fixes, 0 if it is free."""
    inputs = inputs_of(graph)
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise refuse("it has not one input of float32 images")
    check_sides(graph)
    sides = [side.dim_value for side in inputs[0].type.tensor_type.shape.dim]
    at = slice(2, 4) if layout == "NCHW" else slice(1, 3)
    channel = layout.index("C")
    if len(sides) != 4 or sides[channel] != 3 or not all(1 <= s <= MAX_SIDE for s in sides[at]):
        other = {"NCHW": "NHWC", "NHWC": "NCHW"}[layout]
        turned = len(sides) == 4 and sides[other.index("C")] == 3
        raise ModelError(
            f"its input {printable(inputs[0].name[:80])} is {sides}: not {layout} of 3 colors and "
            f"fixed sides of 1 to {MAX_SIDE} pixels",
            f"say that it is {other}: weighin wrap MODEL --classes a,b,c --layout {other}"
            if turned
            else FIX,
        )
    if not 0 <= sides[0] <= MAX_BATCH:
        raise refuse(f"its batch is fixed at {sides[0]:,}; up to {MAX_BATCH} or none is allowed")
    height, width = sides[at]
    return (height, width), sides[0]
