"""YAML as this project reads and writes it.

What is read is YAML 1.2: 1e-06 is a number and `no` is a text. What is written, a reader of YAML
1.1 understands alike: a text that one of them takes for something else (`no`, `1e5`) is quoted, and
a float has a point.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weighin.errors import ParamsError

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
WIDEST = 44  # a longer value does not push the comments of its neighbours away

Line = tuple[str, str]  # a line's text, its comment


def read_yaml(path: Path) -> Any:
    """Return what a YAML 1.2 file holds.

    Raises:
        ParamsError: the file is missing or is not YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

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


def with_comments(lines: Sequence[Line]) -> str:
    """Return lines with their comments in one column."""
    widths = [len(text) for text, comment in lines if comment and len(text) <= WIDEST]
    column = max(widths, default=0)
    return "".join(
        f"{text:{column}}  # {comment}\n" if text and comment else f"{text}{comment}\n"
        for text, comment in lines
    )
