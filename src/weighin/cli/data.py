"""The commands that bring data and weights in: import, demo-data, weights, fetch."""

from pathlib import Path
from typing import Any

import click

from weighin.cli import ANY, EXISTING, cli
from weighin.parallel import cores


@cli.command("import")
@click.argument("source", type=EXISTING)
@click.option("--images", type=EXISTING, help="Folder of the images that a CSV or COCO file names.")
@click.option("--filename-column", help="Column of a CSV; guessed when left out.")
@click.option("--class-column", help="Column of a CSV, or field of Label Studio; else guessed.")
@click.option("--group-column", help="Images of one group stay in one split.")
@click.option("--split-column", help="Says train, validation or test; none: choose a split.")
@click.option("--classes", type=click.Choice(["outer", "inner"]), help="Class folders of a tree.")
@click.option("--mapping", type=EXISTING, help="CSV from category to class.")
@click.option("--margin", type=click.FloatRange(0, 2), default=0.1, show_default=True)
@click.option("--boxes", type=click.Choice(["stored", "upright"]), help="Pixels of COCO boxes.")
@click.option("--validation", type=EXISTING, help="Folder of class folders to validate on.")
@click.option("--test", type=EXISTING, help="Test images, in class folders or not.")
@click.option("--truth", type=EXISTING, help="CSV of the test images' classes.")
@click.option("--force", is_flag=True, help="Move a data/ of your own to data.before-N.")
@click.option("--record/--no-record", default=True, help="Record data/ in data.dvc with DVC.")
def import_command(
    source: Path,
    *,
    filename_column: str | None,
    class_column: str | None,
    group_column: str | None,
    split_column: str | None,
    force: bool,
    record: bool,
    **options: Any,
) -> None:
    """Bring a data set in as data/: a folder of class folders, a CSV, or a COCO file.

    \b
    weighin import photos --test photos/public --truth photos/public_truth.csv
    weighin import labels.csv --images photos
    weighin import annotations.json --mapping categories.csv
    """
    from weighin.data import versioning
    from weighin.data.importing import Options, import_data
    from weighin.label_csv import Columns

    if record:
        versioning.check_recordable(Path())
    columns = Columns(filename_column, class_column, group_column, split_column)
    report = import_data(source, Path("data"), Options(columns=columns, **options), force)
    for line in _arrived(report):
        click.echo(line)
    if record:
        click.echo(f"recorded in {versioning.record(Path())}; next: dvc repro")


def _arrived(report: dict[str, Any]) -> list[str]:
    """Return what came in and what did not, in words."""
    classes = ", ".join(f"{name} {many:,}" for name, many in report["classes"].items())
    lines = [f"{report['images']:,} images of {len(report['classes'])} classes: {classes}"]
    if report["validation"]:
        lines.append(f"{report['validation']:,} of them are the validation split that came with it")
    if report["missing"]:
        lines.append(f"missing: {len(report['missing']):,}, such as {report['missing'][0]}")
    lines += [
        f"{many:,} left out: {reason}, such as {report['such_as'][reason]}"
        for reason, many in report["skipped"].items()
    ]
    if "test" in report:
        test = report["test"]
        unlabelled = test.get("without_truth", test["images"])
        known = f"; {unlabelled:,} have no known class" if unlabelled else ""
        lines.append(f"{test['images']:,} test images{known}")
    return [*lines, *report["notes"], "all of it in data/import.json"]


@cli.command("pack-data")
@click.option("--shard-mb", type=click.IntRange(1), default=128, show_default=True)
@click.option("--record/--no-record", default=True, help="Record data/ in data.dvc with DVC.")
def pack_data(shard_mb: int, record: bool) -> None:
    """Put the images of data/train into a few tar files: DVC's cost goes by files.

    The layout is WebDataset's. prepare reads the images there and writes the same bytes as before;
    train.csv, the test and its truth stay.

    \b
    weighin pack-data
    """
    from weighin.data import versioning

    if record:
        versioning.check_recordable(Path())
    for line in versioning.pack_data(Path("data"), shard_mb * 10**6, cores()):
        click.echo(line)
    if record:
        click.echo(
            f"recorded in {versioning.record(Path())}; next: dvc repro. To go back: "
            "git checkout data.dvc, then dvc checkout data.dvc"
        )


@cli.command("demo-data")
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


@cli.command()
@click.argument("source", metavar="NAME|FILE")
@click.option("--name", help="What it is to be called here: weights/NAME.safetensors.")
@click.option("--license", help="Of a file of your own; it is recorded.")
@click.option("--force", is_flag=True, help="Replace other weights of the same name.")
@click.option("--record/--no-record", default=True, help="Record the weights with DVC.")
def weights(source: str, name: str | None, license: str | None, force: bool, record: bool) -> None:
    """Bring pretrained weights in as weights/NAME.safetensors, with source and license.

    \b
    weighin weights efficientnet-lite0
    weighin weights mobilenet_v3_small
    weighin weights mine.pth --license CC-BY-4.0
    """
    from weighin.pretrained import FOLDER, bring

    facts = bring(source, name, license, force, record)
    click.echo(f"{facts['path']}: {facts['parameters']:,} numbers, license {facts['license']}")
    if record:
        click.echo(f"recorded in {facts['path']}.dvc; for Git: git add {FOLDER}")


@cli.command()
def fetch() -> None:
    """Bring data/ and weights/ to what is recorded: from the cache, a remote, or their source.

    \b
    weighin fetch
    """
    from weighin.data.demo import DEFAULT_MD5, draw_demo
    from weighin.data.versioning import fetch

    click.echo(fetch(Path(), DEFAULT_MD5, lambda folder: draw_demo(folder, workers=cores())))
    if Path("weights").is_dir():
        from weighin import pretrained

        for line in pretrained.fetch(Path()):
            click.echo(line)
