"""Writes a grading contract into an ONNX file that was made elsewhere."""

import contextlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from weighin.errors import ModelError
from weighin.files import keep_aside, replacing
from weighin.grading.contract import Contract, from_values, read_values
from weighin.grading.model import damage_told, open_model, parse, read
from weighin.grading.operators import FIX
from weighin.grading.recount import Count, counted

FIELDS = {field.name for field in fields(Contract)}


def wrapped(
    path: Path, target: Path, contract: Path | None, given: dict[str, Any]
) -> tuple[Count, Path | None]:
    """Write the model in `path` with its contract to `target`, if it is gradable.

    Returns the model's count, and the name under which another file of that name was kept.

    Args:
        path: An ONNX file.
        target: The file to write; it may be `path`, which is kept aside then.
        contract: A JSON file of the contract's fields.
        given: The same fields as the command line has them; they come before the file's.

    Raises:
        ModelError, HiddenWorkError: it is not gradable; nothing has been written.
    """
    values = read_values(contract) if contract else {}
    if not isinstance(values, dict):
        raise ModelError(f"{contract} holds no fields of a contract", f"edit {contract}; {FIX}")
    source = str(contract or given.get("classes") or "")
    source = source if contract or _is_file(source) else "the options"
    values |= {name: _value(name, value) for name, value in given.items()}
    if not values.get("classes"):
        raise ModelError(
            f"{path}: nobody says what its outputs mean",
            "name the classes in their order: --classes a,b,c, or --classes FILE of one a line",
        )
    if isinstance(values["classes"], list):
        values = {"fallback": values["classes"][0], **values}
    found = from_values(values, source)
    with damage_told(path):
        proto = parse(read(path))
        others = {e.key: e.value for e in proto.metadata_props if e.key not in FIELDS}
        texts = others | found.metadata()
        del proto.metadata_props[:]
        for key in sorted(texts):
            proto.metadata_props.add(key=key, value=texts[key])
    data = proto.SerializeToString(deterministic=True)
    with replacing(target) as draft:
        draft.write_bytes(data)
        try:
            count = counted(open_model(draft), path)
        except ModelError as error:
            problem = error.problem.removeprefix(f"{draft}: ").removeprefix(f"{path}: ")
            raise ModelError(f"{path}: {problem}", error.fix) from None
        return count, keep_aside(target, data) if target.is_file() else None


def _is_file(name: str) -> bool:
    with contextlib.suppress(OSError):  # too long for a name: a list of many classes
        return Path(name).is_file()
    return False


def _value(name: str, value: Any) -> Any:
    if name == "classes" and _is_file(value):
        return _lines(Path(value))
    if name not in ("classes", "mean", "std"):
        return value
    parts = [part.strip() for part in value.split(",")]
    if name == "classes" and len(parts) == 1:
        fix = "name them a,b,c in the order of the outputs, or a file with one a line"
        raise ModelError(f"--classes {value} is no file, and no two classes", fix)
    try:
        return parts if name == "classes" else [float(part) for part in parts]
    except ValueError:
        return parts  # what is wrong with it is said where it is checked


def _lines(path: Path) -> Any:
    """Return the classes in a file of one a line, or of a JSON list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problem = f"{path} is not text in UTF-8"
        raise ModelError(problem, "save it as UTF-8, a class a line") from None
    if text.lstrip().startswith("["):
        with contextlib.suppress(ValueError):  # a class may be called [other]
            return json.loads(text)
    return text.strip("\r\n").splitlines()
