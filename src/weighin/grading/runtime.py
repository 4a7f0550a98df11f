"""Runs the static graph of a model, on the CPU, with the same bits on every processor.

ONNX Runtime at its default level lays convolutions out in blocks as wide as the processor's
registers, which changes the order of sums; at ORT_ENABLE_EXTENDED it does not.
"""

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from weighin.errors import ModelError
from weighin.file_names import printable
from weighin.images import Pixels

if TYPE_CHECKING:
    from weighin.grading.model import Model

Logits = npt.NDArray[np.float32]
ROUNDING = 1e-5  # of the largest logit of an image: what another order of sums may change
SHARE = 0.01  # of the margin of its label, which that may be at most


def session(proto: Any, optimized: bool = True) -> Any:
    """Return an onnxruntime.InferenceSession of one thread.

    Raises:
        ModelError: ONNX Runtime refuses the graph.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else it reports to its makers what it runs
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    level = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.graph_optimization_level = (
        level.ORT_ENABLE_EXTENDED if optimized else level.ORT_DISABLE_ALL
    )
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(
            proto.SerializeToString(deterministic=True),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base but this
        raise _refused(error) from None


def run(asked: Any, feeds: dict[str, Any]) -> Any:
    """Return the values of a session's outputs.

    Raises:
        ModelError: ONNX Runtime fails.
    """
    try:
        return asked.run(None, feeds)
    except Exception as error:
        raise _refused(error) from None


def one_line(error: Exception) -> str:
    """Return the words of an error that a library raised, fit for a terminal."""
    return printable(" ".join(str(error).split())[:300])


def _refused(error: Exception) -> Exception:
    if re.search("bad.?alloc|ailed to allocate|darray != nullptr", str(error)):
        return MemoryError(one_line(error))
    return ModelError(f"ONNX Runtime cannot run it: {one_line(error)}", "export the model again")


class Runner:
    """A model ready to run on one thread of the CPU; several threads may share it."""

    def __init__(self, model: "Model") -> None:
        self._graph, self._contract = model.graph, model.contract
        self._session = session(model.graph.proto)

    def logits(self, pixels: Pixels) -> Logits:
        """Return the (N, K) logits of any number of uint8 images (N, H, W, 3).

        Raises:
            ModelError: ONNX Runtime fails, or a logit is not finite.
        """
        size = self._graph.batch
        chunks = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        parts = [self._raw(self._padded(chunk))[: len(chunk)] for chunk in chunks]
        out = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(out).all():
            raise ModelError("its logits are not finite", "train the model again; it diverged")
        return out

    def check(self, pixels: Pixels) -> None:
        """Check the graph on a first batch (N, H, W, 3), N at most the size of a batch.

        Raises:
            ModelError: the runtime produced a shape other than the counted one, or the logits of
                an image depend on its place or its neighbours.
        """
        self._check_shapes(pixels)
        if self._graph.batch > 1:
            self._check_neighbors(pixels)

    def _padded(self, pixels: Pixels) -> Pixels:
        missing = self._graph.batch - len(pixels)
        if not missing:
            return pixels
        return np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])

    def _raw(self, pixels: Pixels) -> Logits:
        (out,) = run(self._session, self._feeds(pixels))
        return out  # type: ignore[no-any-return]

    def _feeds(self, pixels: Pixels) -> dict[str, Any]:
        return {self._graph.proto.graph.input[0].name: self._contract.tensor(pixels)}

    def _check_shapes(self, pixels: Pixels) -> None:
        """Ask the runtime for the shape of every tensor that it computes."""
        probe = onnx.ModelProto()
        probe.CopyFrom(self._graph.proto)
        names = [n for node in probe.graph.node for n in node.output if n in self._graph.shapes]
        stored = (tensor.name for tensor in probe.graph.initializer)
        longest = max(map(len, (*self._graph.shapes, *stored)))
        del probe.graph.output[:]
        for i, name in enumerate(names):
            shape = f"{i} ".ljust(longest + 1, "#")  # no name of the file
            probe.graph.node.add(op_type="Shape", input=[name], output=[shape])
            probe.graph.output.add(name=shape)
        found = run(session(probe, optimized=False), self._feeds(self._padded(pixels)))
        for name, sides in zip(names, found, strict=True):
            if tuple(sides.tolist()) != self._graph.shapes[name]:
                raise ModelError(
                    f"{printable(name)} was counted as {self._graph.shapes[name]} and came out as "
                    f"{tuple(sides.tolist())}",
                    "export the model again",
                )

    def _check_neighbors(self, pixels: Pixels) -> None:
        """Run each image again in another place, among others; and the first one alone."""
        batch = self._padded(pixels)
        before = self._raw(batch)
        strangers = 255 - batch
        strangers[::2] = batch[::-1][::2]
        alone = np.zeros_like(batch)
        alone[-1] = batch[0]
        moved = self._raw(strangers)
        same = _same(before[::-1][::2], moved[::2])
        if not same or not _same(before[:1], self._raw(alone)[-1:]):
            raise ModelError(
                "the logits of an image depend on the other images of its batch",
                "export a model that labels each image by itself",
            )


def _same(logits: Logits, again: Logits) -> bool:
    """Whether (B, K) logits differ by rounding at most, and by far too little for another label.

    ONNX Runtime's reductions add in an order that depends on where in memory a map begins; that of
    an odd number of pixels begins elsewhere for each image of a batch.
    """
    if logits.tobytes() == again.tobytes():  # whatever they are, numbers or not
        return True
    apart = np.abs(logits - again).max(axis=1)
    rounding = ROUNDING * np.abs(logits).max(axis=1)
    return bool((apart <= np.minimum(rounding, SHARE * top_two_margin(logits))).all())


def top_two_margin(logits: Logits) -> Logits:
    """Return (B,) differences between the largest and the second largest of (B, K) logits."""
    top = np.partition(logits, logits.shape[1] - 2, axis=1)[:, -2:]
    margin: Logits = top[:, 1] - top[:, 0]
    return margin
