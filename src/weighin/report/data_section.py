"""The page's section on the data: counts, faults of the files, and what they look like."""

from weighin.report.charts import Charts, shown
from weighin.report.inputs import Facts
from weighin.report.markup import (
    Markup,
    figure,
    folded,
    paragraph,
    picture,
    section,
    table,
)
from weighin.report.trials import Data
from weighin.report.words import several

EXAMPLES = 3  # file names shown for a kind of fault


def data(facts: Facts, charts: Charts, sheets: bool) -> Markup:
    """Return what the data is, its faults and, if asked for, its contact sheets."""
    report = facts.data
    return section(
        "data",
        "Data",
        paragraph(summary(report)),
        shown(charts, "classes"),
        _faults(report),
        _alike(report),
        _sheets(facts) if sheets else Markup(),
    )


def summary(report: Data) -> str:
    """Return the data set in a sentence, for the page and the card."""
    train, validation = (sum(report.splits[split].values()) for split in ("train", "validation"))
    return (
        f"{several(report.files, 'file')} checked and {report.images:,} images of "
        f"{len(report.splits['train'])} classes kept: {train:,} to train on, {validation:,} to "
        f"validate. The largest class has {report.imbalance:g} times the images of the smallest."
    )


def _faults(report: Data) -> Markup:
    if not report.fault_counts:
        return paragraph("No file had a fault.")
    rows = []
    for fault, many in report.fault_counts.items():
        listed = [row for row in report.faults if row["fault"] == fault]
        done = ", ".join(dict.fromkeys(row["done"] for row in listed))
        names = ", ".join(row["name"] for row in listed[:EXAMPLES])
        rows.append([fault, f"{many:,}", done, names + (", …" if many > EXAMPLES else "")])
    return table("Faults found and what was done", ["fault", "files", "done", "such as"], rows)


def _alike(report: Data) -> Markup:
    if not report.alike:
        return paragraph("No two images look almost alike.")
    return paragraph(
        f"{several(report.alike, 'pair')} of images look almost alike, "
        f"{report.alike_across:,} across two classes; each pair stays in one split."
    )


def _sheets(facts: Facts) -> Markup:
    if not facts.pictures:
        return Markup()
    sheets = (
        figure(
            picture(path.read_bytes(), f"Contact sheet: {title}"),
            title,
        )
        for title, path in facts.pictures
    )
    return folded("Contact sheets", *sheets)
