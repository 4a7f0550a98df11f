"""A section as a JSON Schema (draft 2020-12): an editor checks params.yaml by it while one types.

It accepts what `read` accepts, with one difference that the standard makes: to JSON Schema `2.0` is
a whole number.
"""

import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from weighin.schema import Knob

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}

Schema = dict[str, Any]


def json_schema(section: type) -> Schema:
    """Return the schema of a file that holds `section`."""
    return {"$schema": DRAFT, "title": section.__name__} | _section(section)


def _section(section: type) -> Schema:
    hints = get_type_hints(section, include_extras=True)
    return {
        "description": (section.__doc__ or section.__name__).splitlines()[0],
        "type": "object",
        "properties": {name: _property(hint) for name, hint in hints.items()},
        "required": list(hints),
        "additionalProperties": False,
    }


def _property(hint: Any) -> Schema:
    if get_origin(hint) is not Annotated:
        return _section(hint)
    kind, knob = get_args(hint)
    comment = knob.comment()
    return ({"description": comment} if comment else {}) | _value(kind, knob)


def _value(kind: Any, knob: Knob) -> Schema:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_value(part, knob) for part in inner]}
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(inner[1], knob)}
    if origin is list or inner[-1:] == (Ellipsis,):
        return {"type": "array", "items": _value(inner[0], knob)}
    if origin is tuple:
        parts = [_value(part, knob) for part in inner]
        return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}
    return {"type": "null"} if kind is types.NoneType else _scalar(kind, knob)


def _scalar(kind: type, knob: Knob) -> Schema:
    if kind is str:
        return {"enum": list(knob.choices)} if knob.choices else {"type": "string"}
    bounds: Mapping[str, float | None] = {"minimum": knob.low, "maximum": knob.high}
    limits = {name: bound for name, bound in bounds.items() if bound is not None}
    return {"type": TYPES[kind]} | (limits if kind is not bool else {})
