"""A section's values as YAML that explains itself: `# unit, range: reason` beside each.

    # The training of the chosen network.
    train:
      epochs: 40         # epochs, 1 to 100000
      workers: auto      # processes, 1 to 1024: auto: one a core, at most one a shard

The text is YAML 1.2 that a reader of YAML 1.1 understands alike: a text that one of them takes for
something else (`no`, `1e5`) is quoted, and a float has a point.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from weighin.schema import Knob

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
WIDEST = 44  # a longer value does not push the comments of its neighbours away

Line = tuple[str, str]  # the value's text, its comment


def commented(section: type, values: Mapping[str, Any]) -> str:
    """Return `values` of a section as YAML; `read` takes it back to equal parameters."""
    blocks: list[list[Line]] = [[]]
    for name, hint in get_type_hints(section, include_extras=True).items():
        if get_origin(hint) is Annotated:
            blocks[-1] += _entry(name, get_args(hint)[1], values[name], "")
        else:
            blocks += [_section(name, hint, values[name], ""), []]
    return "\n".join("".join(_aligned(block)) for block in blocks if block)


def scalar(value: Any) -> str:
    """Return null, a truth value, a number or a text as YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and value.lower() not in NOT_TEXT
        return value if plain else f'"{"".join(map(_escaped, value))}"'
    return str(value)


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def flow(value: Any) -> str:
    """Return a value on one line, its lists and mappings in flow style."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{scalar(key)}: {flow(part)}' for key, part in value.items())}}}"
    return scalar(value)


def _section(name: str, section: type, values: Mapping[str, Any], indent: str) -> list[Line]:
    lines = [("", f"{indent}# {_summary(section)}"), (f"{indent}{name}:", "")]
    for key, hint in get_type_hints(section, include_extras=True).items():
        if get_origin(hint) is Annotated:
            lines += _entry(key, get_args(hint)[1], values[key], f"{indent}  ")
        else:
            lines += _section(key, hint, values[key], f"{indent}  ")
    return lines


def _summary(section: type) -> str:
    return (section.__doc__ or section.__name__).splitlines()[0]


def _entry(name: str, knob: Knob, value: Any, indent: str) -> list[Line]:
    if isinstance(value, Mapping) and value:
        inner = [(f"{indent}  {scalar(key)}: {flow(part)}", "") for key, part in value.items()]
        return [(f"{indent}{name}:", knob.comment()), *inner]
    return [(f"{indent}{name}: {flow(value)}", knob.comment())]


def _aligned(lines: list[Line]) -> list[str]:
    """Return whole lines with their comments in one column."""
    widths = [len(text) for text, comment in lines if comment and len(text) <= WIDEST]
    column = max(widths, default=0)
    return [_line(text, comment, column) for text, comment in lines]


def _line(text: str, comment: str, column: int) -> str:
    if not text or not comment:
        return f"{text}{comment}\n"
    return f"{text:{column}}  # {comment}\n"
