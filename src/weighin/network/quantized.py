"""A network in whole numbers of 8 bits, whose sums are exact on every processor.

ONNX Runtime's own static quantizer writes a QDQ graph: float32 operators between QuantizeLinear
and DequantizeLinear, which the runtime replaces by integer kernels. Activations are uint8 by
tensor, weights int8 by output channel; real = scale (q - zero_point), as in Jacob et al.,
"Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR
2018. Biases are stored as floats, in a third of the bytes of whole numbers of 32 bits and their
scales; the runtime rounds them when it loads the file.

Exactness. Without VNNI a kernel adds two products of uint8 and int8 in 16 bits, and saturates:
2 * 255 * 127 = 64,770 is over 32,767. Weights within 64 (7 bits) give at most 2 * 255 * 64 =
32,640, so every sum is the exact whole number, in any order, on any processor. The portability
tests show both: equal logits with 7 bits, other ones with 8.

Training that feels 8 bits (the same paper): the forward pass rounds, the backward pass goes through
as if it had not (the straight-through estimator, Bengio et al., 2013) where a number is inside its
range. The ranges of activations are those of the calibration and stay. Batch norms are folded into
their convolutions with their statistics fixed, as in the exported file, so that the weights that
are rounded are the ones that will be; gamma and beta are still trained.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from weighin.images import Pixels, normalize
from weighin.network.cost import foldable_norms
from weighin.params import Quantize

INPUT = "images"  # the name of a graph's input
WEIGHTED = ("Conv", "Gemm", "MatMul")
CHUNK = 64  # images at once
LARGEST = 64  # magnitude of a weight: see above
ZERO_BELOW = {"HardSwish": -3.0, "Mul Sigmoid": -8.0}  # x sigmoid(x) is -0.0027 there
DEFAULTS = {"dilations": [1, 1], "group": [1], "pads": [0] * 4, "strides": [1, 1]}  # of Conv
MARK = ("onnx.quant.pre_process", "onnxruntime.quant")  # or the quantizer advises to prepare


@dataclass(frozen=True)
class Range:
    """The real numbers that 8 bits stand for: scale (q - zero_point), q from 0 to 255."""

    scale: float
    zero_point: int


def activation_ranges(proto: Any) -> dict[str, Range]:
    """Return the range of each quantized activation: by the path of the module that gives it.

    The input's is under INPUT. The exporter names an operator by the modules around it,
    "/6/6.0/conv/conv.0/Conv" for the layer 6.0.conv.0; of several in one module the last counts.
    """
    known = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    names = {result: node.name for node in proto.graph.node for result in node.output}
    found = {}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (known[name].item() for name in node.input[1:3])
            maker = names.get(node.input[0])
            found[INPUT if maker is None else _module_path(maker)] = Range(scale, zero)
    return found


def _module_path(operator: str) -> str:
    parts = pairwise(["", *operator.split("/")[1:-1]])
    return ".".join(part.removeprefix(f"{before}.") for before, part in parts)


def quantized(
    proto: Any,
    sample: Pixels,
    knobs: Quantize,
    kept: Collection[str] = (),
    seven_bits: bool = True,
    ranges: Path | None = None,
) -> bytes:
    """Return the bytes of a float ONNX graph quantized, but for the nodes named in `kept`.

    `sample`, images (N, H, W, 3), gives the ranges of the activations; a file `ranges` keeps them
    for the next call with this graph. With `seven_bits` false the weights take all 8 bits, and what
    a processor without VNNI computes is another number.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    prepared = onnx.ModelProto()
    prepared.CopyFrom(proto)
    prepared.metadata_props.add(key=MARK[0], value=MARK[1])
    quiet = contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory(prefix="weighin-quantize") as folder, quiet:
        path = Path(folder) / "model.onnx"
        onnx.save(prepared, source := Path(folder) / "float.onnx")  # the quantizer changes a proto
        ranges = ranges or Path(folder) / "ranges.json"
        write = partial(
            quantize_static,
            source,
            path,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=seven_bits,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[knobs.calibration],
            nodes_to_exclude=sorted(_with_followers(proto, kept)),
            extra_options={"CalibPercentile": knobs.percentile, "QuantizeBias": False},
            calibration_cache_path=ranges,
        )
        if not ranges.exists():
            write(Batches(sample))
            _narrow(ranges, proto)
        write()
        made = onnx.load_model(path)
    _check_weights(made, LARGEST if seven_bits else 128)
    return _canonical(made, proto)


def _narrow(path: Path, proto: Any) -> None:
    """Take off the ranges in a file what the activation that reads them makes 0, or nearly.

    A convolution before HardSwish may give -60: 8 bits from there leave few for what is over -3.
    """
    from onnxruntime.quantization.calibrate import load_tensors_data, save_tensors_data

    found, readers = load_tensors_data(path), dict[str, list[Any]]()
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for name, nodes in readers.items():
        floor = ZERO_BELOW.get(" ".join(sorted(node.op_type for node in nodes)))
        own = {name, *(node.output[0] for node in nodes)}
        alone = all(own.issuperset(node.input) for node in nodes)
        if floor is not None and alone and name in found:
            found[name].lowest = np.maximum(found[name].lowest, np.float32(floor))
    save_tensors_data(found, path)


def _with_followers(proto: Any, kept: Collection[str]) -> set[str]:
    """Return the nodes named, and those without weights that work on their results."""
    found, results = set(kept), set[str]()
    for node in proto.graph.node:
        follows = node.op_type not in WEIGHTED and results.intersection(node.input)
        if node.name in kept or follows:
            found.add(node.name)
            results.update(node.output)
    return found


class Batches:
    """Calibration images as ONNX Runtime asks for them, in batches of one size.

    Its histograms take no smaller last one, so the size is the largest that leaves none.
    """

    def __init__(self, sample: Pixels) -> None:
        count = len(sample)
        size = next(n for n in range(min(CHUNK, count), 0, -1) if count % n == 0)
        starts = range(0, count, size)
        self._left: Iterator[Any] = ({INPUT: normalize(sample[k : k + size])} for k in starts)

    def get_next(self) -> Any:
        """Return the next feed, None after the last."""
        return next(self._left, None)


def _check_weights(proto: Any, largest: int) -> None:
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8:
            found = int(np.abs(numpy_helper.to_array(tensor).astype(np.int64)).max(initial=0))
            assert found <= largest, f"{tensor.name} has a weight of {found}, over {largest}"


def _canonical(made: Any, source: Any) -> bytes:
    """Return a graph's bytes with `source`'s metadata, and little but its numbers.

    Tensors have short names, shapes are not claimed, and neither attributes nor zero points are
    written that are the default. As the quantizer writes a small network, they are most of it.
    """
    graph = made.graph
    kept = {value.name for value in [*graph.input, *graph.output]}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if not name or name in kept else names.setdefault(name, f"{len(names):x}")

    stored = {tensor.name: tensor for tensor in graph.initializer}
    whole = {name for node in graph.node if node.op_type != "Conv" for name in node.input}
    for node in graph.node:
        node.doc_string = ""
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""
            if not stored[node.input[1]].dims:
                del node.attribute[:]  # an axis
            elif node.output[0] not in whole:
                del node.input[2:]  # the runtime's product of matrices asks for its zeros
        elif node.op_type == "Conv":
            said = [a for a in node.attribute if DEFAULTS.get(a.name) != (list(a.ints) or [a.i])]
            del node.attribute[:]
            node.attribute.extend(said)
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    used = {name for node in graph.node for name in node.input}
    tensors = [t for t in graph.initializer if names.get(t.name) in used]
    del graph.initializer[:], graph.value_info[:], made.metadata_props[:]
    for tensor in tensors:  # raw: the bytes of a number do not depend on its value
        array = numpy_helper.to_array(tensor)
        graph.initializer.append(numpy_helper.from_array(array, names[tensor.name]))
    made.metadata_props.extend(source.metadata_props)
    made.producer_name, made.producer_version, made.doc_string = "weighin", "", ""
    onnx.checker.check_model(made, full_check=True)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def fake_quantize(module: nn.Module, ranges: Mapping[str, Range]) -> None:
    """Make `module` compute as its quantized graph does, its numbers still trainable floats.

    `ranges` are those of network.quantized.activation_ranges. Names and parameters stay.
    """
    norms = dict(foldable_norms(module))
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            norm = module.get_submodule(norms[path]) if path in norms else None
            vars(layer)["forward"] = _rounded_convolution(layer, norm)
        elif isinstance(layer, nn.Linear):
            vars(layer)["forward"] = _rounded_linear(layer)
        if path in ranges:
            layer.register_forward_hook(_rounded_output(ranges[path]))
    if INPUT in ranges:
        module.register_forward_pre_hook(lambda _, inputs: _rounded(inputs[0], ranges[INPUT]))


def _rounded_convolution(conv: nn.Conv2d, norm: nn.Module | None) -> Callable[[Tensor], Tensor]:
    if norm is None:
        return lambda x: conv._conv_forward(x, rounded_weight(conv.weight), conv.bias)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    mean = norm.running_mean.clone()
    # NumPy's sqrt is IEEE's; torch's differs between processors' instruction sets
    variance = norm.running_var.cpu().numpy() + np.float32(norm.eps)
    inverse = torch.from_numpy(1 / np.sqrt(variance)).to(mean.device)
    vars(norm)["forward"] = _handed_on

    def forward(x: Tensor) -> Tensor:
        scale = norm.weight * inverse
        bias = norm.bias - mean * scale
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        weight = rounded_weight(conv.weight * scale.view(-1, 1, 1, 1))
        y: Tensor = conv._conv_forward(x, weight, bias)
        return y

    return forward


def _handed_on(x: Tensor) -> Tensor:
    return x


def _rounded_linear(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        return F.linear(x, rounded_weight(layer.weight), layer.bias)

    return forward


def rounded_weight(weight: Tensor) -> Tensor:
    """Return a weight in whole numbers of 7 bits times a scale for each output channel."""
    largest = weight.detach().abs().flatten(1).amax(1)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest)) / LARGEST
    zero = torch.zeros_like(scale, dtype=torch.int32)
    rounded: Tensor = torch.fake_quantize_per_channel_affine(
        weight, scale, zero, 0, -LARGEST, LARGEST
    )
    return rounded


def _rounded_output(within: Range) -> Callable[[nn.Module, object, Tensor], Tensor]:
    return lambda _, inputs, output: _rounded(output, within)


def _rounded(x: Tensor, within: Range) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, within.scale, within.zero_point, 0, 255)
