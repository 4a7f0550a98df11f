"""The page's section on worse photographs: one image as each degradation leaves it, and the F1."""

import io

from PIL import Image

from weighin.images import Pixels
from weighin.report.markup import Markup, element, paragraph, picture, section, table
from weighin.report.robustness import DEGRADATIONS, Robustness
from weighin.report.words import measured, several


def worse_photographs(found: Robustness | None, pictures: bool) -> Markup:
    """Return what degradations cost, in numbers and, with `pictures`, on an example."""
    if found is None:
        return Markup()
    told = (
        f"The exported model labelled {several(found.images, 'validation image')} again, each "
        "degraded at the size that the network sees, where its macro F1 is "
        f"{measured(found.clean)}."
    )
    rows = [
        [kind, DEGRADATIONS[kind][0], measured(f1), change(f1, found.clean)]
        for kind, f1 in found.f1.items()
    ]
    return section(
        "robustness",
        "Worse photographs",
        paragraph(told),
        _examples(found) if pictures else Markup(),
        table("Macro F1 by degradation", ["degradation", "what it does", "F1", "change"], rows),
    )


def change(f1: float, clean: float) -> str:
    """Return a difference of F1 with its sign."""
    return f"{f1 - clean:+.4f}".replace("-", "−")


def _examples(found: Robustness) -> Markup:
    shown = [_example("as it is", found.example["clean"], found.clean)]
    shown += [_example(kind, found.example[kind], f1) for kind, f1 in found.f1.items()]
    return element("ul", *(element("li", one) for one in shown), class_="gallery")


def _example(kind: str, pixels: Pixels, f1: float) -> Markup:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    caption = element("figcaption", element("strong", kind), element("br"), f"F1 {measured(f1)}")
    return element("figure", picture(out.getvalue(), f"A validation image, {kind}"), caption)
