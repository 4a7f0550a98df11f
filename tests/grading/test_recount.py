"""MACs by hand for every counted operator, and the tricks that a forged graph may try."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.numpy_helper import to_array

from weighin.errors import HiddenWorkError, ModelError
from weighin.grading.model import open_model
from weighin.grading.recount import count_file, recount

Build = Callable[..., Path]
BASE = 3 * 64 + 3 * 3 + 3  # pooling of 3 x 8 x 8, then 3 x 3 and a bias


def node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    name = op.lower() + (outputs[0] if outputs[0] in ("r", "x1", "x2") else "")
    return helper.make_node(op, inputs, outputs, name=name, **attributes)


def test_the_plain_model(build: Build) -> None:
    count = count_file(build())
    assert (count.macs, count.parameters, count.unpriced) == (BASE, 12, 0)
    assert [(layer.name, layer.macs) for layer in count.layers] == [
        ("pool", 192),
        ("flatten", 0),
        ("head", 12),
    ]


def test_convolution_with_groups_stride_padding_and_bias(build: Build) -> None:
    path = build(
        before=[
            node("Conv", ["images", "k", "c"], ["x"], strides=[2, 1], pads=[1, 0, 1, 0], group=3)
        ],
        weights={"k": np.ones((3, 1, 3, 2)), "c": np.ones(3)},
    )
    # out: 3 x 4 x 7
    assert count_file(path).macs == (3 * 2) * 1 * 84 + 84 + 84 + 12
    assert count_file(path).parameters == 12 + 18 + 3


def test_batch_norm_pools_and_elementwise(build: Build) -> None:
    path = build(
        before=[
            node("Conv", ["images", "k"], ["c"]),
            node("BatchNormalization", ["c", "v", "v", "v", "v"], ["a"]),
            node("MaxPool", ["a"], ["p"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
            node("HardSwish", ["p"], ["h"]),
            node("Add", ["h", "p"], ["x"]),
        ],
        weights={"v": np.ones(3), "k": np.ones((3, 3, 1, 1))},
    )
    # 9 x 64 and 2 x 192, then 192 into the pooling, which leaves 3 x 4 x 4
    count = count_file(path)
    assert count.macs == 9 * 64 + 2 * 192 + 192 + 48 + 12
    # h-swish and the sum, and the 3 x 3 windows of the pooling beyond its input
    assert count.unpriced == 48 + 48 + (9 * 48 - 192)


def test_matrix_product_of_two_activations_is_counted(build: Build) -> None:
    path = build(
        before=[
            node("Transpose", ["images"], ["t"], perm=[0, 1, 3, 2]),
            node("MatMul", ["images", "t"], ["x"]),
        ]
    )
    assert count_file(path).macs == 3 * 8 * 8 * 8 + BASE


def test_shape_arithmetic_of_a_channel_shuffle(build: Build) -> None:
    path = build(
        before=[
            node("Shape", ["images"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Unsqueeze", ["n", "front"], ["n1"]),
            node("Concat", ["n1", "rest"], ["target"], axis=0),
            node("Reshape", ["images", "target"], ["r"]),
            node("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
            node("Reshape", ["t", "back"], ["x"]),
        ],
        weights={
            "zero": 0,
            "front": [0],
            "rest": [3, 1, 8, 8],
            "back": [0, -1, 8, 8],
        },
    )
    assert count_file(path).macs == BASE


FORGED: list[tuple[str, dict[str, Any], str]] = [
    (
        "unknown operator",
        {"before": [node("Einsum", ["images"], ["x"], equation="nchw->nchw")]},
        "operator Einsum einsum: its work cannot be counted",
    ),
    (
        "images mixed",
        {"before": [node("ReduceMean", ["images"], ["x"], axes=[0])]},
        "operator ReduceMean reducemean: it works along the batch",
    ),
    (
        "images reversed",
        {
            "before": [node("Slice", ["images", "m", "e", "z", "m"], ["x"])],
            "weights": {"m": [-1], "e": [-99], "z": [0]},
        },
        "operator Slice slice: it works along the batch",
    ),
    (
        "batch moved",
        {
            "before": [
                node("Transpose", ["images"], ["t"], perm=[1, 0, 2, 3]),
                node("Softmax", ["t"], ["s"], axis=1),
                node("Transpose", ["s"], ["x"], perm=[1, 0, 2, 3]),
            ]
        },
        "operator Transpose transpose: it moves the batch",
    ),
    (
        "batch statistics",
        {
            "before": [node("BatchNormalization", ["images", *"vvvv"], [*"xyz"], training_mode=1)],
            "weights": {"v": np.ones(3)},
        },
        "operator BatchNormalization batchnormalization: only its first output is allowed",
    ),
    (
        "outer product",
        {
            "before": [node("Mul", ["images", "k"], ["x"])],
            "weights": {"k": np.ones((5, 1, 1, 1))},
        },
        "its shapes do not fit",
    ),
    (
        "absurd padding",
        {
            "before": [node("Pad", ["images", "p"], ["x"])],
            "weights": {"p": [0, 0, 0, 0, 0, 0, 4096, 4096]},
        },
        "operator Pad pad: (1, 3, 4104, 4104) is empty or too large",
    ),
    ("from nowhere", {"before": [node("Relu", ["ghost"], ["x"])]}, "ghost"),
    (
        "does not use the images",
        {"nodes": [node("Identity", ["w"], ["logits"])]},
        "its output logits comes out as None",
    ),
    ("no attribute", {"before": [node("Concat", ["images", "images"], ["x"])]}, "axis"),
    (
        "claims less",
        {"metadata": {"macs": "100"}},
        f"its metadata claims 100 MACs, its graph does {BASE}",
    ),
]


@pytest.mark.parametrize(("parts", "words"), [f[1:] for f in FORGED], ids=[f[0] for f in FORGED])
def test_forged(build: Build, parts: dict[str, Any], words: str) -> None:
    path = build(**parts)
    with pytest.raises(ModelError) as caught:
        count_file(path)
    assert caught.value.problem.startswith(f"{path}: ")
    assert words in caught.value.problem


def test_weights_that_the_file_computes_are_stored_once(build: Build) -> None:
    path = build(
        before=[node("Add", ["k", "k"], ["kk"]), node("Conv", ["images", "kk"], ["x"])],
        weights={"k": np.ones((3, 3, 1, 1))},
    )
    graph = open_model(path).graph
    stored = {tensor.name: to_array(tensor) for tensor in graph.proto.graph.initializer}
    assert (stored["kk"] == 2).all()
    assert graph.nodes[0].op == "Conv"
    assert count_file(path).macs == 3 * 3 * 64 + BASE


def test_a_true_claim_passes(build: Build) -> None:
    assert count_file(build(metadata={"macs": str(BASE)})).macs == BASE


def test_other_work_for_several_images_is_refused(build: Build) -> None:
    """At one image the last side is 8; at 61 it is something else."""
    path = build(
        before=[
            node("Shape", ["images"], ["s"], start=0, end=1),
            node("Concat", ["zeros", "s"], ["starts"], axis=0),
            node("Slice", ["images", "starts", "ends", "axes"], ["x"]),
        ],
        weights={"zeros": [0], "ends": [8, 8], "axes": [2, 3]},
    )
    with pytest.raises(ModelError, match=r"operator Slice slice: .* is empty or too large"):
        count_file(path)


def test_elementwise_work_cannot_replace_convolutions(build: Build) -> None:
    chain = [node("Mul", [f"x{i}" if i else "images", "k"], [f"x{i + 1}"]) for i in range(3)]
    chain[-1].output[0] = "x"
    path = build(before=[*chain], weights={"k": np.ones((1, 3, 8, 8))})
    with pytest.raises(
        HiddenWorkError, match="576 operations that the rule does not see hide behind 204"
    ):
        count_file(path)


@pytest.mark.parametrize(
    "parts",
    [
        [node("Dropout", ["c"], ["x", "mask"])],
        [node("MaxPool", ["c"], ["x", "places"], kernel_shape=[1, 1])],
        [node("GroupNormalization", ["c", "v", "v"], ["x"], num_groups=8)],
        [node("InstanceNormalization", ["c", "v", "v"], ["x"])],
        [node("LayerNormalization", ["c", "s"], ["x", "mean", "inverse"])],
    ],
    ids=lambda parts: parts[0].op_type,
)
def test_what_is_graded(build: Build, parts: list[Any]) -> None:
    """Normalization of an image by itself, and operators with outputs that nothing reads."""

    def change(model: Any) -> None:
        model.opset_import[0].version = 21

    first = node("Conv", ["images", "k"], ["c"], pads=[1, 1, 1, 1])
    stored = {"k": np.ones((24, 3, 3, 3)), "v": np.ones(24), "s": np.ones(8)}
    head = {"w": np.ones((3, 24)), "b": np.ones(3)}
    path = build(change, before=[first, *parts], weights=stored | head)
    area, pooled = 24 * 64, "MaxPool" in parts[0].op_type
    normed = 3 * area if "Normalization" in parts[0].op_type else 0
    found = count_file(path)
    assert found.macs == 27 * area + pooled * area + area + 24 * 3 + 3
    assert found.unpriced == normed


def test_shapes_written_in_the_file_are_not_believed(build: Build) -> None:
    def lie(model: Any) -> None:
        model.graph.value_info.append(helper.make_tensor_value_info("pooled", 1, ["n", 3, 1, 1]))
        model.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value = 1

    assert recount(open_model(build(lie))).macs == BASE


def plain_file(path: Path, nodes: list[Any], inputs: dict[str, Any], **stored: Any) -> Path:
    """Write a graph with no contract; its results have the shapes that ONNX infers."""
    values = [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    result = onnx.ValueInfoProto(name=nodes[-1].output[0])
    graph = helper.make_graph(nodes, "plain", values, [result], tensors)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    found = onnx.shape_inference.infer_shapes(model).graph.output[0]
    model.graph.output[0].CopyFrom(found)
    path.write_bytes(model.SerializeToString())
    return path


IMAGE = {"x": (TensorProto.FLOAT, [1, 3, 8, 8])}
KERNELS = np.ones((8, 3, 3, 3), np.float32)
CONV = 8 * 3 * 3 * 3 * 8 * 8


def conv() -> Any:
    return helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1])


def test_work_in_a_branch_is_not_counted_as_none(tmp_path: Path) -> None:
    side = helper.make_graph(
        [conv()], "side", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 8, 8, 8])]
    )
    node = helper.make_node("If", ["k"], ["r"], name="fork", then_branch=side, else_branch=side)
    path = plain_file(tmp_path / "m.onnx", [node], IMAGE, w=KERNELS, k=np.array(True))
    with pytest.raises(ModelError, match=r"If fork: .*Conv"):
        count_file(path)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ConvTranspose", ["x", "w"], ["r"], name="up"),
        helper.make_node("Einsum", ["x", "w"], ["r"], name="up", equation="nchw,ndhw->ncd"),
    ],
    ids=lambda node: node.op_type,
)
def test_work_that_the_rule_has_no_line_for_is_not_counted_as_none(
    node: Any, tmp_path: Path
) -> None:
    path = plain_file(tmp_path / "m.onnx", [conv(), node], IMAGE, w=KERNELS)
    with pytest.raises(ModelError) as caught:
        count_file(path)
    words = "it multiplies, and the contest's rule has no line for it"
    assert caught.value.problem == f"{path}: operator {node.op_type} up: {words}"


@pytest.mark.parametrize("kind", ["ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"])
def test_work_on_whole_numbers(kind: str, tmp_path: Path) -> None:
    linear, scaled = "MatMul" in kind, kind.startswith("QLinear")
    names = ["x", "s", "zx", "w", "s", "zw", "s", "zx"] if scaled else ["x", "w"]
    given = {
        "s": np.array(0.1, np.float32),
        "zx": np.array(0, np.uint8),
        "zw": np.array(0, np.int8),
    }
    path = plain_file(
        tmp_path / "m.onnx",
        [helper.make_node(kind, names, ["r"], **({} if linear else {"pads": [1, 1, 1, 1]}))],
        {"x": (TensorProto.UINT8, ["n", 64] if linear else ["n", 3, 8, 8])},
        w=np.ones((64, 10), np.int8) if linear else KERNELS.astype(np.int8),
        **(given if scaled else {}),
    )
    found = count_file(path)
    expected = (64 * 10, 64 * 10) if linear else (CONV, KERNELS.size)
    assert (found.macs, found.parameters, found.unknown) == (*expected, ())


def test_a_transposed_first_factor(tmp_path: Path) -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["r"], transA=1)
    path = plain_file(
        tmp_path / "m.onnx",
        [node],
        {"x": (TensorProto.FLOAT, [64, 1])},
        w=np.ones((64, 10), np.float32),
    )
    assert count_file(path).macs == 64 * 10


@pytest.mark.parametrize(
    ("sides", "weights", "attributes", "problem"),
    [
        ([1, 3, 8, 1], [8, 3, 3, 3], {}, "its output is (1, 8, 6, -1): its window is larger"),
        ([1, 3, 1, 1], [8, 3, 3, 3], {}, "its output is (1, 8, -1, -1): its window is larger"),
        ([1, 3, 2, 8], [8, 3, 3, 3], {}, "its output is (1, 8, 0, 6): its window is larger"),
        (["h", 8, 3], [8, 8, 5], {}, "its output is (1, 8, -1): its window is larger"),
        ([1, 3, 8, 8], [8, 5, 3, 3], {}, "weights of (8, 5, 3, 3), in 1 groups, do not fit"),
        ([1, 4, 8, 8], [6, 1, 3, 3], {"group": 4}, "weights of (6, 1, 3, 3), in 4 groups, do not"),
        (
            [1, 3, 8, 8],
            [8, 3, 3, 3],
            {"kernel_shape": [1, 1]},
            "weights of (8, 3, 3, 3), in 1 groups, do not fit an input of (1, 3, 8, 8)",
        ),
    ],
)
def test_a_convolution_that_nothing_can_run(
    sides: list[Any], weights: list[int], attributes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["r"], **attributes)
    stored = np.ones(weights, np.float32)
    path = plain_file(tmp_path / "m.onnx", [node], {"x": (TensorProto.FLOAT, sides)}, w=stored)
    with pytest.raises(ModelError, match=re.escape(f"{path}: operator Conv r: {problem}")):
        count_file(path)


def test_a_bias_that_does_not_fit(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["r"])
    path = plain_file(tmp_path / "m.onnx", [node], IMAGE, w=KERNELS, b=np.ones(7, np.float32))
    with pytest.raises(ModelError, match=r"weights of \(8, 3, 3, 3\) and \(7,\), in 1 groups"):
        count_file(path)


def test_sizes_are_no_parameters(tmp_path: Path) -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    larger = helper.make_node("Resize", ["x", "", "scales"], ["y"])
    after = helper.make_node("Conv", ["y", "w"], ["r"], pads=[1, 1, 1, 1])
    path = plain_file(tmp_path / "m.onnx", [larger, after], IMAGE, w=KERNELS, scales=scales)
    found = count_file(path)
    assert (found.macs, found.parameters) == (4 * CONV, KERNELS.size)


def test_classes_that_are_named_otherwise_are_no_contract(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "m.onnx", [conv()], IMAGE, w=KERNELS)
    model = onnx.load(path)
    for others in ({"classes": "cat,dog"}, {"classes": '["cat", "dog"]'}, {"classes": "['cat']"}):
        helper.set_model_props(model, others)
        onnx.save(model, path)
        assert count_file(path).macs == CONV
    ours = {"classes": '["cat", "dog', "fallback": "cat"}  # the control: it means to be one
    helper.set_model_props(model, ours)
    onnx.save(model, path)
    with pytest.raises(ModelError, match="its metadata `classes` is not JSON"):
        count_file(path)


def test_sparse_weights_are_named(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["r"])
    path = plain_file(
        tmp_path / "m.onnx",
        [node],
        {"x": (TensorProto.FLOAT, ["n", 4])},
        w=np.ones((4, 2), np.float32),
    )
    model = onnx.load(path)
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    places = numpy_helper.from_array(np.zeros(1, np.int64), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 2]))
    del model.graph.initializer[:]
    onnx.save(model, path)
    with pytest.raises(ModelError, match=re.escape(f"{path}: it stores sparse tensors")):
        count_file(path)


KERNEL_INPUT = (TensorProto.FLOAT, [8, 3, 3, 3])


@pytest.mark.parametrize(
    ("batch", "others", "of"),
    [
        (1, {}, "one image"),
        ("n", {}, "one image"),
        (-1, {}, "one image"),
        (0, {}, "one image"),
        (4, {}, "one of 4 images"),
        ("n", {"m": (TensorProto.FLOAT, [])}, "one image"),
        (4, {"m": (TensorProto.FLOAT, [1, 8, 8, 8])}, "one of 4 images"),
        (4, {"m": (TensorProto.FLOAT, [1])}, "one of 4 images"),
        (1, {"w": KERNEL_INPUT}, "the whole run"),  # weights are no images
        ("n", {"w": KERNEL_INPUT}, "a run with a batch of 1"),
    ],
)
def test_the_batch_is_what_images_and_outputs_have(
    batch: Any, others: dict[str, Any], of: str, tmp_path: Path
) -> None:
    nodes = [conv(), *([helper.make_node("Mul", ["c", "m"], ["r"])] if "m" in others else [])]
    inputs = {"x": (TensorProto.FLOAT, [batch, 3, 8, 8])} | others
    stored = {} if "w" in others else {"w": KERNELS}
    found = count_file(plain_file(tmp_path / "m.onnx", nodes, inputs, **stored))
    assert (found.macs, found.of) == (CONV, of)


def test_what_has_no_batch_of_images_is_counted_whole(tmp_path: Path) -> None:
    """Sixteen words; an image without a batch; eight frames of which one mean is left."""
    product = helper.make_node("MatMul", ["x", "w"], ["r"])
    added = helper.make_node("Unsqueeze", ["y", "first"], ["x"])
    taken = helper.make_node("Squeeze", ["c", "first"], ["r"])
    mean = helper.make_node("ReduceMean", ["c"], ["r"], axes=[0])
    cases: list[tuple[list[Any], dict[str, Any], dict[str, Any], int]] = [
        ([product], {"x": [16, 1, 64]}, {"w": np.ones((64, 64), np.float32)}, 16 * 64 * 64),
        ([added, conv(), taken], {"y": [3, 8, 8]}, {"w": KERNELS, "first": np.array([0])}, CONV),
        ([conv(), mean], {"x": [8, 3, 8, 8]}, {"w": KERNELS}, 8 * CONV),
    ]
    for nodes, sides, stored, macs in cases:
        inputs = {name: (TensorProto.FLOAT, shape) for name, shape in sides.items()}
        found = count_file(plain_file(tmp_path / "m.onnx", nodes, inputs, **stored))
        assert (found.macs, found.of) == (macs, "the whole run")


@pytest.mark.parametrize("version", [3, 4])
def test_stored_tensors_that_are_inputs_too(version: int, tmp_path: Path) -> None:
    """Version 3 of the format asks for them; version 4 lets them be."""
    inputs = IMAGE | {"w": (TensorProto.FLOAT, [8, 3, 3, 3])}
    path = plain_file(tmp_path / "m.onnx", [conv()], inputs, w=KERNELS)
    model = onnx.load(path)
    model.ir_version, model.opset_import[0].version = version, 9
    onnx.save(model, path)
    found = count_file(path)
    assert (found.macs, found.parameters) == (CONV, KERNELS.size)


def outside(path: Path, sides: list[int]) -> None:
    """Write weights of these sides into another file, as PyTorch does, and delete that."""
    weights = np.ones(sides, np.float32)
    model = onnx.load(plain_file(path, [conv()], IMAGE, w=weights))
    kept = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
    onnx.save(model, path, **kept)
    (path.parent / "m.data").unlink()


def test_weights_in_another_file_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    outside(path, [8, 3, 3, 3])
    found = count_file(path)
    assert (found.macs, found.parameters, found.of) == (CONV, 216, "one image")


def test_what_a_shape_may_depend_on_is_not_taken_for_zeros(tmp_path: Path) -> None:
    """Of 27 numbers; and of more than a model may have."""
    path = tmp_path / "m.onnx"
    outside(path, [1, 3, 3, 3])
    with pytest.raises(ModelError) as caught:
        count_file(path)
    assert caught.value.problem == f"{path}: tensor w is kept in another file"
    assert "external_data=False" in caught.value.fix
    outside(path, [8, 3, 3, 3])
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].dims[0] = 2**40
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="tensor w is kept in another file"):
        count_file(path)


def test_large_weights_that_an_operator_holds_or_turns(tmp_path: Path) -> None:
    """Nothing is made of them: the count needs the shape alone."""
    large = np.ones((4200, 1000), np.float32)
    held = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(large))
    turned = helper.make_node("Transpose", ["k"], ["t"], perm=[1, 0])
    product = helper.make_node("MatMul", ["x", "t"], ["r"])
    inputs = {"x": (TensorProto.FLOAT, [1, 1000])}
    path = plain_file(tmp_path / "m.onnx", [held, turned, product], inputs)
    found = count_file(path)
    assert (found.macs, found.parameters, found.unknown) == (4_200_000, 4_200_000, ())


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_parameters_of_any_precision(kind: int, tmp_path: Path) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    inputs = {"x": (kind, [1, 3, 8, 8])}
    found = count_file(plain_file(tmp_path / "m.onnx", [conv()], inputs, w=KERNELS.astype(dtype)))
    assert (found.parameters, found.parameter_bits) == (216, 216 * 8 * dtype.itemsize)


@pytest.mark.parametrize(
    ("sides", "shown", "fixed"),
    [
        (["n", 3, "h", "w"], "? x 3 x ? x ?", "1,3,H,W"),
        ([1, 3, 8, "w"], "1 x 3 x 8 x ?", "1,3,8,H"),
        ([-1, 3, -1, -1], "? x 3 x ? x ?", "1,3,H,W"),
        ([1, 3, 0, 0], "1 x 3 x ? x ?", "1,3,H,W"),
        (["n", "t", 8], "? x ? x 8", "1,H,8"),
    ],
)
def test_free_sides_are_named(sides: list[Any], shown: str, fixed: str, tmp_path: Path) -> None:
    node = conv() if len(sides) == 4 else helper.make_node("Conv", ["x", "w"], ["r"])
    kernels = KERNELS if len(sides) == 4 else KERNELS[:, :, 0]
    inputs = {"x": (TensorProto.FLOAT, sides)}
    path = plain_file(tmp_path / "m.onnx", [node], inputs, w=kernels)
    with pytest.raises(ModelError) as caught:
        count_file(path)
    assert f"{path}: its input x is {shown}" in caught.value.problem
    fix = f"make_dynamic_shape_fixed --input_name x --input_shape {fixed} FILE FIXED"
    assert caught.value.fix.endswith(fix)


def test_the_name_of_an_input_is_quoted_in_a_command(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["my input;ls", "w"], ["r"])
    inputs = {"my input;ls": (TensorProto.FLOAT, [1, 3, "h", 8])}
    with pytest.raises(ModelError) as caught:
        count_file(plain_file(tmp_path / "m.onnx", [node], inputs, w=KERNELS))
    assert "--input_name 'my input;ls' --input_shape 1,3,H,8" in caught.value.fix


def test_hidden_work_is_refused_before_it_is_run(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = node("AveragePool", ["images"], ["x"], kernel_shape=[15, 15], pads=[7] * 4)
    monkeypatch.setattr("weighin.grading.recount.Runner", None)  # nothing can be run
    with pytest.raises(HiddenWorkError):
        count_file(build(before=[window]))
