"""HTML made of elements: text is escaped unless it already is markup, so nothing can be forgotten.

Class names and file names are other people's words; only `Markup` goes in as it is.
"""

import base64
import html
import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"[-+−–]?[\d.,]*( × [\d.,]+)*( %)?")
VOID = {"meta", "img", "br"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Return `text` as HTML; Markup comes back as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(text))


def joined(parts: Iterable[str]) -> Markup:
    """Return the parts one after the other, each escaped unless it is Markup."""
    return Markup("".join(map(escaped, parts)))


def element(name: str, /, *children: str, **attributes: str) -> Markup:
    """Return an element; `class_` and `http_equiv` stand for `class` and `http-equiv`."""
    named = ((key.rstrip("_").replace("_", "-"), text) for key, text in attributes.items())
    head = name + "".join(f' {key}="{html.escape(text)}"' for key, text in named)
    return Markup(f"<{head}>" if name in VOID else f"<{head}>{joined(children)}</{name}>")


def paragraph(*children: str) -> Markup:
    """Return a paragraph."""
    return element("p", *children)


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table; each row's first cell is its heading, columns of numbers line up right."""
    kinds = [
        {"class": "number"} if all(NUMBER.fullmatch(row[place]) for row in rows) else {}
        for place in range(len(header))
    ]
    head = (
        element("th", text, scope="col", **kind) for text, kind in zip(header, kinds, strict=True)
    )
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", text, **kind) for text, kind in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    ]
    inside = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return element("div", inside, class_="wide", tabindex="0", role="region", aria_label=caption)


def picture(data: bytes, alt: str, kind: str = "jpeg", **attributes: str) -> Markup:
    """Return an image that carries its own bytes."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return element("img", src=source, alt=alt, **attributes)


def figure(inside: Markup, caption: str, **attributes: str) -> Markup:
    """Return a figure over its caption."""
    return element("figure", inside, element("figcaption", caption), **attributes)


def folded(title: str, *inside: Markup) -> Markup:
    """Return markup that opens under its title."""
    return element("details", element("summary", title), *inside)


def section(anchor: str, title: str, *children: str) -> Markup:
    """Return a section under a heading, labelled by it."""
    heading = element("h2", title, id=anchor)
    return element("section", heading, *children, aria_labelledby=anchor)
