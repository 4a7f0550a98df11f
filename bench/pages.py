"""Measured tables in Markdown pages, each between `<!-- its name -->` and `<!-- end -->`."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from weighin.files import write_text


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as lines of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:], ""])


def put(page: Path, name: str, table: str) -> None:
    """Write a table into a page in place of the one that has its name."""
    place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    write_text(page, place.sub(lambda _: table, page.read_text(encoding="utf-8"), 1))


def spread(values: list[float]) -> str:
    """Return a mean with its range, in words."""
    if not values:
        return ""
    digits = ",.0f" if max(values) > 1000 else ".4f"
    middle, low, high = (format(v, digits) for v in (mean(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"
