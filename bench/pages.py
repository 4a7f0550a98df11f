"""Measured tables in Markdown pages, each between `<!-- its name -->` and `<!-- end -->`."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from weighin.files import write_text


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as lines of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:], ""])


def put(page: Path, name: str, table: str) -> None:
    """Write a table into a page in place of the one that has its name."""
    place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    write_text(page, place.sub(lambda _: table, page.read_text(encoding="utf-8"), 1))
