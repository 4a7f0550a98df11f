"""Typed sections of a parameter file, checked by pydantic.

A section is a frozen dataclass that inherits from `Section`; a value in it is
`Annotated[type, parameter("what it means", "unit", low, high)]`. Its JSON Schema is what an editor
checks the file by, and what error messages and the comments in params.yaml are made from.

Values are checked as JSON in strict mode: a list may fill a tuple and 1 a float, but no text
becomes a number and no number a truth value. Building a section in Python checks nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from weighin.errors import ParamsError, did_you_mean
from weighin.files import Line, flow, scalar, with_comments

T = TypeVar("T")
Schema = dict[str, Any]
Renamed = Mapping[str, str | None]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
SECTION = "a section of `name: value` lines"
NOUNS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "object": SECTION,
    "null": "null",
}


class Section:
    """A section of a parameter file: every name in it must be known, every number finite."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)


def parameter(why: str, unit: str = "", low: float | None = None, high: float | None = None) -> Any:
    """Return pydantic's description of one value: what it means, its unit and its range."""
    return Field(
        description=why or None,
        ge=low,
        le=high,
        json_schema_extra={"unit": unit} if unit else None,
    )


def read(section: type[T], values: Any, source: str, renamed: Renamed | None = None) -> T:
    """Return `section` filled from `values`, what the file `source` holds.

    `renamed` maps a parameter's old dotted name to its new one, or to None where it was removed.

    Raises:
        ParamsError: one line for every fault in `values`, with the allowed type, range and unit.
    """
    try:
        return cast(T, _validated(section, values))
    except ValidationError as error:
        told = dict.fromkeys(
            fault for each in error.errors() for fault in _faults(section, values, each, renamed)
        )
        problem = "\n".join(f"{source}: {fault}" for fault in told)
        fix = f"edit {source}, or pass -S name=value to `dvc exp run`"
        if source == "params.yaml":  # where a refused value of -S stays
            fix += "; `weighin reset` brings the committed one back"
        raise ParamsError(problem, fix) from None


def check_value(kind: Any, value: Any, name: str) -> tuple[Any, list[str]]:
    """Return `value` as the annotated type `kind`, and the faults that it has under `name`."""
    try:
        return _validated(kind, value), []
    except ValidationError:
        return None, [wrong(name, value, _adapter(kind).json_schema())]


def _validated(kind: Any, values: Any) -> Any:
    return _adapter(kind).validate_json(json.dumps(_plain(values)), strict=True)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a YAML value: a date is a text there."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _faults(
    section: type, values: Any, error: Mapping[str, Any], renamed: Renamed | None
) -> list[str]:
    """Return one of pydantic's errors in our words."""
    known, parts = parameters(section), [str(part) for part in error["loc"]]
    paths = [".".join(parts[: end + 1]) for end in range(len(parts))]
    name = next((path for path in paths if path in known), paths[-1] if paths else "")
    if error["type"] == "missing" and name == paths[-1]:
        old = [before for before, now in (renamed or {}).items() if now == name]
        return (
            [] if any(_at(values, before) is not None for before in old) else [f"{name} is missing"]
        )
    if error["type"] == "unexpected_keyword_argument":
        return [_unknown(name, known, renamed or {})]
    if error["type"] == "value_error":
        start = f"{name}: " if name else ""
        return [start + fault for fault in str(error["ctx"]["error"]).splitlines()]
    if name in known:
        return [_wrong_part(name, values, known[name], parts[name.count(".") + 1 :])]
    return [f"{name or 'the file'} must be {SECTION}"]


def _unknown(name: str, known: Mapping[str, Schema], renamed: Renamed) -> str:
    if name in renamed:
        now = renamed[name]
        return f"{name} is now called {now}" if now else f"{name} was removed; delete its line"
    prefix = name.rpartition(".")[0]
    start = f"{prefix}." if prefix else ""
    inside = dict.fromkeys(
        k.removeprefix(start).split(".")[0] for k in known if k.startswith(start)
    )
    return f"unknown key {name}{did_you_mean(name.removeprefix(start), inside, start)}"


def _wrong_part(name: str, values: Any, schema: Schema, inside: list[str]) -> str:
    """Return the fault of a value, or of the entry of a mapping that is wrong in it."""
    value, inner = _at(values, name), schema.get("additionalProperties")
    if inner and inside and isinstance(value, Mapping):
        return wrong(f"{name}.{inside[0]}", value.get(inside[0]), inner)
    return wrong(name, value, schema)


def _at(values: Any, name: str) -> Any:
    """Return the value under a dotted name, or None."""
    for part in name.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def wrong(name: str, value: Any, schema: Schema) -> str:
    """Return the fault of a value that its schema does not allow."""
    if value is None:
        return f"{name} is empty; it must be {describe(schema)}"
    shown = json.dumps(value) if isinstance(value, bool) else str(value)
    shown = f'"{value}"' if isinstance(value, str) else shown
    return f"{name} is {shown}; it must be {describe(schema)}"


def describe(schema: Schema) -> str:
    """Return a value's type, range and unit in words."""
    return _noun(schema) + (f" ({schema['unit']})" if "unit" in schema else "")


def _noun(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_noun, schema["anyOf"]))
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if "const" in schema:
        return str(schema["const"])
    if "pattern" in schema:
        return str(schema["description"])
    if "prefixItems" in schema:
        parts = schema["prefixItems"]
        return f"a list of {len(parts)}, each {_noun(parts[0])}"
    if schema["type"] == "array":
        return f"a list, each {_noun(schema['items'])}"
    return " ".join(filter(None, (NOUNS[schema["type"]], span(schema))))


def span(schema: Schema) -> str:
    """Return the allowed range in words, such as `1 to 1000`, or "" where there is none."""
    if "enum" in schema:
        return " | ".join(schema["enum"])
    inner = [schema["items"]] if "items" in schema else []
    if inner := schema.get("anyOf") or schema.get("prefixItems") or inner:
        return next(filter(None, map(span, inner)), "")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    if low is not None:
        return f"{_number(low)} or more"
    return "" if high is None else f"{_number(high)} or less"


def _number(value: float) -> str:
    """Return a bound as short as it can be said exactly."""
    short = f"{value:g}".replace("e+0", "e").replace("e+", "e")
    exact = short if float(short) == value else str(value)
    return str(int(value)) if abs(value) < 1e8 and value == int(value) else exact


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@cache
def json_schema(section: type) -> Schema:
    """Return the JSON Schema (draft 2020-12) of a file that holds `section`."""
    return {"$schema": DRAFT, **_adapter(section).json_schema(schema_generator=_WithoutTitles)}


@cache
def parameters(section: type) -> dict[str, Schema]:
    """Return {dotted name: JSON Schema} of every value under `section`, in order."""
    whole, found = json_schema(section), dict[str, Schema]()

    def walk(schema: Schema, prefix: str) -> None:
        for name, part in schema["properties"].items():
            if "$ref" in part:
                walk(_definition(whole, part), f"{prefix}{name}.")
            else:
                found[prefix + name] = part

    walk(whole, "")
    return found


def _definition(whole: Schema, reference: Schema) -> Schema:
    found: Schema = whole["$defs"][reference["$ref"].rpartition("/")[2]]
    return found


def commented(section: type, values: Mapping[str, Any]) -> str:
    """Return `values` of a section as YAML with `# unit, range: reason` beside each value.

    `read` takes the text back to equal parameters.
    """
    whole, blocks = json_schema(section), [list[Line]()]

    def walk(schema: Schema, inner: Mapping[str, Any], indent: str) -> None:
        for name, part in schema["properties"].items():
            if "$ref" not in part:
                blocks[-1] += _entry(name, part, inner[name], indent)
                continue
            below = _definition(whole, part)
            if not indent:
                blocks.append([])
            summary = below["description"].splitlines()[0]
            blocks[-1] += [("", f"{indent}# {summary}"), (f"{indent}{name}:", "")]
            walk(below, inner[name], f"{indent}  ")
            if not indent:
                blocks.append([])

    walk(whole, values, "")
    return "\n".join(with_comments(block) for block in blocks if block)


def _entry(name: str, schema: Schema, value: Any, indent: str) -> list[Line]:
    if isinstance(value, Mapping) and value:
        inner = [(f"{indent}  {scalar(key)}: {flow(part)}", "") for key, part in value.items()]
        return [(f"{indent}{name}:", comment(schema)), *inner]
    return [(f"{indent}{name}: {flow(value)}", comment(schema))]


def comment(schema: Schema) -> str:
    """Return `unit, range: reason` of a value."""
    head = ", ".join(filter(None, (schema.get("unit"), span(schema))))
    return ": ".join(filter(None, (head, schema.get("description"))))


def comment_of(kind: Any) -> str:
    """Return the comment of an annotated type."""
    return comment(_adapter(kind).json_schema())


def with_values(values: T, changes: Mapping[str, Any]) -> T:
    """Return a section with other values under dotted names; they are not checked."""
    for name, value in changes.items():
        section, _, rest = name.partition(".")
        inner = with_values(getattr(values, section), {rest: value}) if rest else value
        values = replace(values, **{section: inner})  # type: ignore[type-var]
    return values
