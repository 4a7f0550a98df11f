"""A network as rows of text: [repeats, block, arguments]. Reads, checks and writes rows files.

    input: [46, 64]        # [height, width] in pixels
    width: 1.0             # multiplies the channels of every block but the Fixed ones
    rows:
    - [1, Conv, [16, 3, 2, null, 1, ReLU]]
    - [1, Linear, [classes]]

`classes` stands for the number of classes of the data. The form is checked here, without torch;
the blocks and their arguments are checked by `build.check`, which knows the blocks.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weighin.errors import NetworkError, did_you_mean
from weighin.files import flow, read_yaml
from weighin.images import Size

KEYS = ("input", "width", "rows")
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
BEGINNING = 4096  # bytes, of which no text has one that is 0
TO_ONNX = (
    "export the network: torch.onnx.export(model.eval(), (torch.zeros(1, 3, H, W),), "
    "'model.onnx', dynamo=False); of TensorFlow: python -m tf2onnx.convert --tflite FILE "
    "--output model.onnx"
)
MAX_SIDE, MAX_WIDTH, MAX_REPEATS, MAX_ROWS = 4096, 64.0, 256, 1024


@dataclass(frozen=True)
class Row:
    """`repeats` times `block`, whose arguments are numbers, names, null, or lists of numbers."""

    repeats: int
    block: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return flow([self.repeats, self.block, self.args])


@dataclass(frozen=True)
class NetworkSpec:
    """A network's input (H, W), width multiplier and rows."""

    input: Size
    width: float
    rows: tuple[Row, ...]

    @classmethod
    def from_dict(cls, values: Any, source: str = "the network") -> "NetworkSpec":
        """Return the network that a parsed rows file describes.

        Raises:
            NetworkError: one line for every fault of form, each naming its row.
        """
        faults = _faults(values)
        if faults:
            problem = "\n".join(f"{source}: {fault}" for fault in faults)
            raise NetworkError(problem, f"edit {source}; a row is [repeats, Block, [arguments]]")
        height, width = values["input"]
        rows = (Row(repeats, block, _frozen(args)) for repeats, block, args in values["rows"])
        return cls((height, width), float(values["width"]), tuple(rows))

    def to_dict(self) -> dict[str, Any]:
        """Return the network as JSON-able values; `from_dict` reads them back."""
        rows = [[row.repeats, row.block, _thawed(row.args)] for row in self.rows]
        return {"input": list(self.input), "width": self.width, "rows": rows}

    def to_yaml(self) -> str:
        """Return the canonical text: equal networks give equal bytes."""
        head = [f"input: {flow(self.input)}", f"width: {flow(self.width)}", "rows:"]
        return "\n".join([*head, *(f"- {row}" for row in self.rows)]) + "\n"


def read_spec(path: Path) -> NetworkSpec:
    """Return the network in a rows file.

    Raises:
        NetworkError: the file is missing, is not YAML or is not of the form above.
    """
    return NetworkSpec.from_dict(read_yaml(path, NetworkError), str(path))


@contextmanager
def rows_of(path: Path | str) -> Iterator[None]:
    """Name the rows file in every error about the network that its rows make."""
    try:
        yield
    except NetworkError as error:
        problem = "\n".join(f"{path}: {line}" for line in error.problem.splitlines())
        raise type(error)(problem, error.fix) from None


def read_rows(path: Path) -> NetworkSpec:
    """Return the network in a rows file whose user may mean a trained network.

    Raises:
        NetworkError: as `read_spec`, or it is no text.
    """
    if path.is_file():
        with path.open("rb") as file:
            if b"\0" in file.read(BEGINNING):
                raise NetworkError(f"{path} is neither a rows file nor a .onnx file", TO_ONNX)
    return read_spec(path)


def shipped(name: str) -> Path:
    """Return the path of a rows file that comes with the package, such as ``seed``."""
    return Path(__file__).with_name("rows") / f"{name}.yaml"


def rows_file(name: str | Path) -> Path:
    """Return the rows file that a name means: one that comes with the package, or a path."""
    ours = shipped(str(name))
    return ours if ours.exists() else Path(name)


def key_faults(values: Mapping[Any, Any], known: Sequence[str], needed: Sequence[str]) -> list[str]:
    """Return the faults of a mapping whose keys are not all known, or not all there."""
    unknown = [str(key) for key in values if key not in known]
    faults = [f"unknown key {key}{did_you_mean(key, known)}" for key in unknown]
    return faults + [f"{key} is missing" for key in needed if key not in values]


def _faults(values: Any) -> list[str]:
    if not isinstance(values, Mapping):
        return [f"must be a mapping of {', '.join(KEYS)}"]
    faults = key_faults(values, KEYS, KEYS)
    if "input" in values and not _is_size(values["input"]):
        faults.append(f"input is {values['input']}; it must be [height, width], 1 to {MAX_SIDE}")
    if "width" in values and not _is_width(values["width"]):
        faults.append(f"width is {values['width']}; it must be a number over 0 to {MAX_WIDTH:g}")
    if "rows" in values:
        faults += _rows_faults(values["rows"])
    return faults


def _rows_faults(rows: Any) -> list[str]:
    if not isinstance(rows, list | tuple) or not 1 <= len(rows) <= MAX_ROWS:
        return [f"rows must be a list of 1 to {MAX_ROWS} rows"]
    faults = ((number, _row_fault(row)) for number, row in enumerate(rows, 1))
    return [f"row {number} {fault}" for number, fault in faults if fault]


def _row_fault(row: Any) -> str:
    if not isinstance(row, list | tuple) or len(row) != 3:
        return f"is {row}; it must be [repeats, Block, [arguments]]"
    repeats, block, args = row
    if type(repeats) is not int or not 1 <= repeats <= MAX_REPEATS:
        return f"repeats {repeats} times; it must be a whole number 1 to {MAX_REPEATS}"
    if not isinstance(block, str) or not PLAIN.fullmatch(block):
        return f"has {block} where the name of a block goes"
    if not isinstance(args, list | tuple):
        return f"({block}) has the arguments {args}; they must be a list"
    odd = [arg for arg in args if not _is_argument(arg)]
    return f"({block}) has the argument {odd[0]}; numbers, names, null and lists go" if odd else ""


def _is_argument(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(type(part) is int for part in value)
    if isinstance(value, str):
        return PLAIN.fullmatch(value) is not None
    if isinstance(value, float):
        return abs(value) < float("inf")  # false for NaN too
    return value is None or isinstance(value, int)


def _is_size(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return all(type(side) is int and 1 <= side <= MAX_SIDE for side in value)


def _is_width(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value <= MAX_WIDTH


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    return [_thawed(part) for part in value] if isinstance(value, tuple) else value
