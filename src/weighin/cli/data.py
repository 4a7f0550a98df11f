"""The commands that bring data in: import, demo-data, fetch."""

from pathlib import Path
from typing import Any

import click

from weighin.cli.paths import ANY, EXISTING
from weighin.parallel import cores


@click.command("import")
@click.argument("source", type=EXISTING)
@click.option("--images", type=EXISTING, help="Folder of the images that a CSV or COCO file names.")
@click.option("--filename-column", help="Column of a CSV; guessed when left out.")
@click.option("--class-column", help="Column of a CSV; guessed when left out.")
@click.option("--group-column", help="Images of one group stay in one split.")
@click.option("--mapping", type=EXISTING, help="CSV from COCO category to class.")
@click.option("--margin", type=click.FloatRange(0, 2), default=0.1, show_default=True)
@click.option("--test", type=EXISTING, help="Flat folder of unlabelled test images.")
@click.option("--truth", type=EXISTING, help="CSV of the test images' classes.")
@click.option("--record/--no-record", default=True, help="Record data/ in data.dvc with DVC.")
def import_command(
    source: Path,
    images: Path | None,
    filename_column: str | None,
    class_column: str | None,
    group_column: str | None,
    mapping: Path | None,
    margin: float,
    test: Path | None,
    truth: Path | None,
    record: bool,
) -> None:
    """Bring a data set in as data/: a folder of class folders, a CSV, or a COCO file.

    \b
    weighin import photos/train --test photos/public --truth photos/public_truth.csv
    weighin import labels.csv --images photos
    weighin import annotations.json --mapping categories.csv
    """
    from weighin.data import importing, versioning

    options = importing.Options(
        images, filename_column, class_column, group_column, mapping, margin, test, truth
    )
    report = importing.import_data(source, Path("data"), options)
    for line in _arrived(report):
        click.echo(line)
    if record:
        click.echo(f"recorded in {versioning.record(Path())}; next: dvc repro")


def _arrived(report: dict[str, Any]) -> list[str]:
    """Return what came in and what did not, in words."""
    classes = ", ".join(f"{name} {many:,}" for name, many in report["classes"].items())
    lines = [f"{report['images']:,} images of {len(report['classes'])} classes: {classes}"]
    if report["missing"]:
        lines.append(f"missing: {len(report['missing']):,}, such as {report['missing'][0]}")
    lines += [f"left out, for {reason}: {many:,}" for reason, many in report["skipped"].items()]
    if "test" in report:
        lines.append(f"{report['test']['images']:,} test images")
    return [*lines, "all of it in data/import.json"]


@click.command("demo-data")
@click.argument("folder", type=ANY, default="data")
@click.option("--count", default=1500, show_default=True, help="Images, train and test together.")
@click.option("--size", default=96, show_default=True, help="Pixels a side.")
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; one a core.")
def demo_data(folder: Path, count: int, size: int, seed: int, workers: int | None) -> None:
    """Draw the default data set: nine kinds of waste, the same bytes on every machine.

    \b
    weighin demo-data
    weighin demo-data /tmp/many --count 100000 --size 32
    """
    from weighin.data.demo import draw_demo

    counts = draw_demo(folder, count, size, seed, workers or cores())
    click.echo(f"{sum(counts.values()):,} images of {len(counts)} classes in {folder}")


@click.command()
def fetch() -> None:
    """Bring data/ to what data.dvc records: from the cache, a remote, or by drawing it.

    \b
    weighin fetch
    """
    from weighin.data.demo import DEFAULT_MD5, draw_demo
    from weighin.data.versioning import fetch

    click.echo(fetch(Path(), DEFAULT_MD5, lambda folder: draw_demo(folder, workers=cores())))
