"""How typed parameters are declared and read: a dataclass a section, a `Knob` a value.

A value is `Annotated[type, Knob(...)]`. `read` checks a mapping against a section and reports every
fault at once, each with its allowed range and, for an unknown key, the nearest known one.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from weighin.errors import ParamsError

T = TypeVar("T")
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


@dataclass(frozen=True)
class Knob:
    """One value's reason, unit and range."""

    why: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def span(self) -> str:
        """Return the allowed range in words."""
        if self.choices:
            return " | ".join(self.choices)
        if self.low is not None and self.high is not None:
            return f"{_number(self.low)} to {_number(self.high)}"
        if self.low is not None:
            return f"{_number(self.low)} or more"
        return "" if self.high is None else f"{_number(self.high)} or less"

    def comment(self) -> str:
        """Return `unit, range: reason`, as params.yaml says it beside the value."""
        head = ", ".join(part for part in (self.unit, self.span()) if part)
        return ": ".join(part for part in (head, self.why) if part)


def _number(value: float) -> str:
    """Return a bound as short as it can be said exactly."""
    short = f"{value:g}".replace("e+0", "e").replace("e+", "e")
    exact = short if float(short) == value else str(value)
    return str(int(value)) if abs(value) < 1e8 and value == int(value) else exact


def read_yaml(path: Path) -> Any:
    """Return what a YAML 1.2 file holds (so that 1e-06 is a number and `no` is a text).

    Raises:
        ParamsError: the file is missing or is not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path} does not exist", "run this in the project's folder, or name an existing file"
        ) from None
    except OSError as error:
        raise ParamsError(f"cannot read {path}: {error.strerror}", "name a YAML file") from None
    except (YAMLError, ValueError, LookupError, RecursionError) as error:
        line = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise ParamsError(f"{path} is not YAML: {line}", f"edit {path}") from None


def read(section: type[T], values: Any, source: str) -> T:
    """Return `section` filled from `values`, a mapping read from the file `source`.

    Raises:
        ParamsError: with one line for every fault in `values`.
    """
    faults: list[str] = []
    result = _section(section, values, "", faults)
    if faults:
        names = "\n".join(f"{source}: {fault}" for fault in faults)
        raise ParamsError(names, f"edit {source}, or pass -S name=value to `dvc exp run`")
    return typing.cast(T, result)


def knobs(section: type, prefix: str = "") -> dict[str, tuple[Any, Knob]]:
    """Return {dotted name: (type, knob)} of every value under `section`, in order."""
    found: dict[str, tuple[Any, Knob]] = {}
    for name, hint in get_type_hints(section, include_extras=True).items():
        if get_origin(hint) is Annotated:
            kind, knob = get_args(hint)
            found[prefix + name] = (kind, knob)
        else:
            found |= knobs(hint, f"{prefix}{name}.")
    return found


def check_value(kind: Any, knob: Knob, value: Any, name: str) -> tuple[Any, list[str]]:
    """Return `value` as `kind`, and the faults that it has under `name`."""
    faults: list[str] = []
    return _value(kind, knob, value, name, faults), faults


def _section(section: type, values: Any, prefix: str, faults: list[str]) -> Any:
    if not isinstance(values, Mapping):
        faults.append(
            f"{prefix.rstrip('.') or 'the file'} must be a section of `name: value` lines"
        )
        return None
    hints = get_type_hints(section, include_extras=True)
    unknown = (str(key) for key in values if key not in hints)
    faults += [f"unknown key {prefix}{key}{_nearest(key, list(hints), prefix)}" for key in unknown]
    filled = {}
    for field in dataclasses.fields(section):
        name, hint = prefix + field.name, hints[field.name]
        if field.name not in values:
            faults.append(f"{name} is missing")
        elif get_origin(hint) is Annotated:
            kind, knob = get_args(hint)
            filled[field.name] = _value(kind, knob, values[field.name], name, faults)
        else:
            filled[field.name] = _section(hint, values[field.name], f"{name}.", faults)
    return section(**filled) if not faults else None


def _nearest(key: str, known: list[str], prefix: str) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(known)}"


def _value(kind: Any, knob: Knob, value: Any, name: str, faults: list[str]) -> Any:
    converted = _convert(kind, value)
    if converted is None and value is not None:
        faults.append(f"{name} is {_shown(value)}; it must be {describe(kind, knob)}")
    elif value is None and not _optional(kind):
        faults.append(f"{name} is empty; it must be {describe(kind, knob)}")
    elif not _inside(knob, converted):
        faults.append(f"{name} is {_shown(value)}; it must be {describe(kind, knob)}")
    return converted


def describe(kind: Any, knob: Knob) -> str:
    """Return a value's type, range and unit in words."""
    text = f"one of {', '.join(knob.choices)}" if knob.choices else _noun(kind, knob.span())
    return f"{text} ({knob.unit})" if knob.unit else text


def _noun(kind: Any, span: str) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        nouns = [_noun(k, span) for k in get_args(kind) if k is not types.NoneType]
        return " or ".join(nouns) + (" or null" if _optional(kind) else "")
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        many = "list" if inner[-1] is Ellipsis else f"list of {len(inner)}"
        return f"a {many}, each {_noun(inner[0], span)}"
    if get_origin(kind) is dict:
        return "a section of `name: value` lines"
    if get_origin(kind) is typing.Literal:
        return " or ".join(get_args(kind))
    return f"{NAMES[kind]} {span}" if span else NAMES[kind]


def _optional(kind: Any) -> bool:
    return types.NoneType in get_args(kind)


def _convert(kind: Any, value: Any) -> Any:
    """Return `value` as `kind`, or None where it is of another type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        tried = (_convert(k, value) for k in inner if k is not types.NoneType)
        return next((t for t in tried if t is not None), None)
    if origin is typing.Literal:
        return value if value in inner else None
    if origin is dict:
        return dict(value) if isinstance(value, Mapping) else None
    if origin is tuple:
        return _convert_tuple(inner, value)
    if kind is float and type(value) is int:  # 10^400 is none
        return float(value) if abs(value) < 10**300 else math.inf * (1 if value > 0 else -1)
    return value if type(value) is kind else None


def _convert_tuple(inner: tuple[Any, ...], value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return None
    kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
    if len(kinds) != len(value):
        return None
    parts = [_convert(k, v) for k, v in zip(kinds, value, strict=True)]
    return None if any(part is None for part in parts) else tuple(parts)


def _inside(knob: Knob, value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_inside(knob, part) for part in value)
    if knob.choices and value is not None:
        return value in knob.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    if value != value:  # NaN compares with nothing
        return False
    return (knob.low is None or value >= knob.low) and (knob.high is None or value <= knob.high)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def with_values(values: T, changes: Mapping[str, Any]) -> T:
    """Return a dataclass with other values under dotted names; they are not checked."""
    for name, value in changes.items():
        section, _, rest = name.partition(".")
        inner = with_values(getattr(values, section), {rest: value}) if rest else value
        values = dataclasses.replace(values, **{section: inner})  # type: ignore[type-var]
    return values
