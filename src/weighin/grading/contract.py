"""The grading contract: what the numbers that go into a model and come out of it mean.

It is written in the model's metadata, one key a field (docs/GRADING.md), or given beside it as a
JSON file of the same names. wrapping.py writes it into an ONNX file that was made elsewhere.
"""

import json
import unicodedata
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from weighin.errors import ModelError, ParamsError
from weighin.file_names import printable
from weighin.grading.operators import FIX
from weighin.images import Pixels, normalize
from weighin.validation import Section, parameter, read

MAX_CLASSES = 100_000
MAX_NAME = 200  # characters of a class name
MAX_TEXT = 2**24  # characters of all metadata
WHITE = (1, 255)
JOINERS = "\u200c\u200d"  # characters of format that names of some languages need
AS_THEY_ARE = ("fallback", "layout", "channels")  # in metadata; the other fields are JSON
Three = tuple[float, float, float]
Spread = Annotated[float, parameter("", low=1e-6)]


@dataclass(frozen=True)
class Contract(Section):
    """The classes, and how a picture becomes an input."""

    classes: Annotated[tuple[str, ...], parameter("class names, in the order of the outputs")]
    fallback: Annotated[str, parameter("the class of a picture that cannot be read")]
    turn_tall: Annotated[
        bool, parameter("lay pictures that are taller than wide on their side")
    ] = False
    layout: Annotated[Literal["NCHW", "NHWC"], parameter("the order of the input's sides")] = "NCHW"
    channels: Annotated[Literal["RGB", "BGR"], parameter("the order of the colors")] = "RGB"
    scale: Annotated[float, parameter("white, before mean and std", low=1e-6)] = 1.0
    mean: Annotated[Three, parameter("taken off, one a channel")] = (0.5, 0.5, 0.5)
    std: Annotated[tuple[Spread, Spread, Spread], parameter("divides, one a channel")] = (
        *(0.5, 0.5, 0.5),
    )
    crop: Annotated[
        float | None, parameter("share of the picture kept in the middle; else it is stretched")
    ] = None

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= MAX_CLASSES:
            raise ValueError(f"{len(self.classes)} classes; 2 to {MAX_CLASSES:,} are allowed")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes names a class twice")
        if self.fallback not in self.classes:
            raise ValueError("fallback is not one of the classes")
        if self.crop is not None and not 0.1 <= self.crop <= 1:
            raise ValueError("crop is not 0.1 to 1")

    def tensor(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return pixels (B, H, W, 3) as the model's input."""
        if self == Contract(self.classes, self.fallback, self.turn_tall):
            return normalize(pixels)
        ordered = pixels[..., ::-1] if self.channels == "BGR" else pixels
        values = ordered.astype(np.float32) * np.float32(self.scale / 255)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        values = (values - mean) / std
        return values if self.layout == "NHWC" else values.transpose(0, 3, 1, 2)

    def preprocessing(self) -> dict[str, Any]:
        """Return how a picture becomes an input, without the classes."""
        return {k: v for k, v in asdict(self).items() if k not in ("classes", "fallback")}

    def metadata(self) -> dict[str, str]:
        """Return the contract as the texts that a model's metadata holds; defaults left out."""
        plain = asdict(Contract(self.classes, self.fallback))
        return {
            name: value if name in AS_THEY_ARE else json.dumps(value, ensure_ascii=False)
            for name, value in asdict(self).items()
            if value != plain[name] or name in ("classes", "fallback", "turn_tall")
        }


def from_metadata(facts: dict[str, str]) -> Contract:
    """Return the contract in a model's metadata.

    Raises:
        ModelError: it is not there, or something in it is wrong.
    """
    if "classes" not in facts:
        raise ModelError(
            "its metadata has no `classes`",
            "write what its outputs mean into the file: weighin wrap MODEL --classes a,b,c",
        )
    values: dict[str, Any] = {}
    for name in [field.name for field in fields(Contract) if field.name in facts]:
        try:
            values[name] = facts[name] if name in AS_THEY_ARE else json.loads(facts[name])
        except (ValueError, RecursionError):
            raise ModelError(f"its metadata `{name}` is not JSON", FIX) from None
    return from_values(values, "its metadata")


def from_file(path: Path) -> Contract:
    """Return the contract in a JSON file.

    Raises:
        ModelError: the file cannot be read, or something in it is wrong.
    """
    return from_values(read_values(path), str(path))


def read_values(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ModelError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # Windows writes a mark
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "name a JSON file") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is not JSON in UTF-8", f"edit {path}; {FIX}") from None


def from_values(values: Any, source: str) -> Contract:
    """Return the contract of {field: value}, which `source` holds.

    Raises:
        ModelError: a field is missing, unknown or wrong.
    """
    classes = values.get("classes") if isinstance(values, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) and name for name in classes):
        raise ModelError(f"{source}: `classes` is not a list of names", FIX)
    for name in classes:
        if len(name) > MAX_NAME or any(_unprintable(character) for character in name):
            shown = printable(name[:40])
            raise ModelError(
                f"{source}: the class name {shown} is no printable text of at most {MAX_NAME}", FIX
            )
    try:
        found = read(Contract, values, source)
    except ParamsError as error:
        raise ModelError(printable(error.problem.splitlines()[0][:300]), FIX) from None
    _check_range(found, source)
    return found


def _check_range(contract: Contract, source: str) -> None:
    """Refuse a mean and std of another scale: all pictures would be one to the model."""
    scale = contract.scale
    if scale not in WHITE:
        problem = f"{source}: scale is {scale:g}; it must be 1 or 255"
        raise ModelError(problem, "give what white is before mean and std; x / 256 is a std of 256")
    for name, highest in (("mean", scale), ("std", 2 * scale)):
        values = getattr(contract, name)
        if not all(0 <= value <= highest for value in values):
            shown = ", ".join(f"{value:g}" for value in values)
            fix = f"give mean and std as they are where white is {scale:g}"
            if scale == 1:
                fix += ', or say that it is 255: --scale 255 (in a contract, "scale": 255)'
            raise ModelError(f"{source}: {name} is {shown}, not within 0 to {highest:g}", fix)


def _unprintable(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Cf", "Zl", "Zp") and character not in JOINERS
