"""Where two files or folders part: the file, then the epoch, trial, tensor or line, and how far.

Files are compared as what they are: tensors by name (safetensors, ONNX weights, NumPy), records by
their place and number (JSON), tables and texts by line, everything else by byte.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# what the records of history.json and trials.json go by, and what that is called
NUMBERED = {"epoch": "epoch", "number": "trial"}


def first_difference(recorded: Path, rebuilt: Path) -> str | None:
    """Return where two files or folders first differ, None where they are the same."""
    if not recorded.is_dir() and not rebuilt.is_dir():
        return _file_difference(recorded, rebuilt)
    old, new = set(_names(recorded)), set(_names(rebuilt))
    for name in sorted(old | new):
        if name not in new:
            return f"{name} is recorded and was not rebuilt"
        if name not in old:
            return f"{name} was rebuilt and is not recorded"
        found = _file_difference(recorded / name, rebuilt / name)
        if found:
            return f"{name}: {found}"
    return None


def _names(folder: Path) -> Iterator[str]:
    return (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _file_difference(recorded: Path, rebuilt: Path) -> str | None:
    old, new = recorded.read_bytes(), rebuilt.read_bytes()
    if old == new:
        return None
    suffix = recorded.suffix
    try:
        if suffix == ".json":
            return _record_difference(json.loads(old), json.loads(new)) or "its form"
        if suffix in (".npy", ".safetensors", ".onnx"):
            return _tensor_difference(_tensors(recorded), _tensors(rebuilt)) or "all but its arrays"
        return _line_difference(old.decode(), new.decode())
    except (ValueError, KeyError):
        pairs = enumerate(zip(old, new, strict=False))
        where = next((k for k, (a, b) in pairs if a != b), min(len(old), len(new)))
        return f"byte {where:,}, of {len(old):,} recorded and {len(new):,} rebuilt"


def _tensors(path: Path) -> dict[str, Array]:
    if path.suffix == ".npy":
        return {"": np.load(path, allow_pickle=False)}
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(path).graph
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}


def _tensor_difference(old: Mapping[str, Array], new: Mapping[str, Array]) -> str | None:
    for name in dict.fromkeys([*old, *new]):
        what = f"tensor {name}" if name else "array"
        if name not in new or name not in old:
            return f"{what} is only {'recorded' if name in old else 'rebuilt'}"
        a, b = old[name], new[name]
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"{what} is {a.shape} {a.dtype} recorded, {b.shape} {b.dtype} rebuilt"
        differ = a != b
        if a.dtype.kind == "f":
            differ &= ~(np.isnan(a) & np.isnan(b))
        if differ.any():
            place = tuple(int(k) for k in np.argwhere(differ)[0])
            many = f"{int(differ.sum()):,} of {a.size:,} numbers differ"
            gap = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            return f"{what}: {many}, first at {place}, by at most {gap:.3g}"
    return None


def _record_difference(old: Any, new: Any, where: str = "") -> str | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            place = f"{where}.{key}" if where else key
            if key not in new or key not in old:
                return f"{place} is only {'recorded' if key in old else 'rebuilt'}"
            found = _record_difference(old[key], new[key], place)
            if found:
                return found
        return None
    if isinstance(old, list) and isinstance(new, list):
        for k, (a, b) in enumerate(zip(old, new, strict=False)):
            found = _record_difference(a, b, f"{where} {_number(a, k)}".strip())
            if found:
                return found
        if len(old) != len(new):
            return f"{where}: {len(old)} recorded, {len(new)} rebuilt".lstrip(": ")
        return None
    if old == new and type(old) is type(new):
        return None
    numbers = all(isinstance(value, int | float) for value in (old, new))
    size = f", a difference of {abs(old - new):.3g}" if numbers else ""
    return f"{where}: {old} recorded, {new} rebuilt{size}".lstrip(": ")


def _number(record: Any, place: int) -> str:
    """Return what a record of a list is called: by its epoch or number, else by its place."""
    for key, called in NUMBERED.items() if isinstance(record, dict) else ():
        if key in record:
            return f"{called} {record[key]}"
    return f"[{place}]"


def _line_difference(old: str, new: str) -> str:
    first, second = old.splitlines(), new.splitlines()
    for k, (a, b) in enumerate(zip(first, second, strict=False), 1):
        if a != b:
            return f'line {k}: "{_cut(a)}" recorded, "{_cut(b)}" rebuilt'
    return f"{len(first)} lines recorded, {len(second)} rebuilt"


def _cut(line: str) -> str:
    return line if len(line) <= 60 else line[:59] + "…"
