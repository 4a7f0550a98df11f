"""The command `weighin`: brings data in, labels, scores, counts, explains.

Everything heavy is imported inside a command, so that `weighin --help` answers at once.
"""

import os
import sys
from pathlib import Path
from typing import Any

import click

from weighin.errors import DataError, ParamsError
from weighin.stage import exit_code

QUICK = {"--help", "-h", "--version"}
EXISTING = click.Path(exists=True, path_type=Path)
ANY = click.Path(path_type=Path)


def main() -> None:
    """Run the command line and exit with a code of errors.py."""
    if len(sys.argv) > 1 and not QUICK & set(sys.argv) and "_WEIGHIN_COMPLETE" not in os.environ:
        from weighin.determinism import pin

        pin()
    sys.exit(exit_code(_run))


def _run() -> None:
    try:
        cli(prog_name="weighin", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        raise KeyboardInterrupt from None


def version() -> str:
    """Return the versions that decide the bytes: package, torch, instruction set, image."""
    from importlib.metadata import version as installed

    from weighin.determinism import PINS

    image = os.environ.get("WEIGHIN_IMAGE", "none")
    return (
        f"weighin {installed('weighin')}, torch {installed('torch')}, "
        f"instruction set {PINS['ATEN_CPU_CAPABILITY']}, image {image}"
    )


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(version())
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions that decide the bytes.",
)
def cli() -> None:
    """From a folder of labelled images and a contest's rules to a submission anyone rebuilds.

    \b
    Exit codes: 0 done, 2 wrong usage, 4 parameters, 5 data, 6 network, 7 hidden work, 8 model,
    9 output, 10 worker, 11 a rebuilt output differs, 130 interrupted.
    Shell completion: eval "$(_WEIGHIN_COMPLETE=bash_source weighin)"
    """


@cli.command("import")
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

    counts = draw_demo(folder, count, size, seed, workers or _cores())
    click.echo(f"{sum(counts.values()):,} images of {len(counts)} classes in {folder}")


@cli.command()
def check() -> None:
    """Check params.yaml before any work: types, ranges, names.

    \b
    weighin check
    """
    from weighin.params import load

    load()
    click.echo("params.yaml is well")


@cli.command()
def fetch() -> None:
    """Bring data/ to what data.dvc records: from the cache, a remote, or by drawing it.

    \b
    weighin fetch
    """
    from weighin.data.fetching import fetch

    click.echo(fetch(Path(), _cores()))


@cli.command()
@click.argument("model", type=EXISTING)
@click.argument("folder", type=EXISTING)
@click.argument("out", type=ANY, default="submission.csv")
@click.option("--strict", is_flag=True, help="Fail on an unreadable image.")
def predict(model: Path, folder: Path, out: Path, strict: bool) -> None:
    """Label a folder of images with an ONNX file.

    \b
    weighin predict submission/model.onnx photos labels.csv
    """
    from weighin.files import write_text
    from weighin.grading.grade import submission_text
    from weighin.grading.model import open_model
    from weighin.grading.predict import predict

    found = predict(open_model(model), folder, strict)
    write_text(out, submission_text(found))
    click.echo(f"{len(found.names):,} labels in {out}; unreadable: {len(found.unreadable):,}")


@cli.command()
@click.argument("submission", type=EXISTING)
@click.argument("truth", type=EXISTING)
@click.argument("model", type=EXISTING)
@click.option("--contest", type=EXISTING, help="A params.yaml with other rules.")
def score(submission: Path, truth: Path, model: Path, contest: Path | None) -> None:
    """Score a submission.csv against the truth, with the MACs of the model.

    \b
    weighin score submission/submission.csv data/test_truth.csv submission/model.onnx
    """
    from weighin.grading import grade
    from weighin.grading.f1 import confusion
    from weighin.grading.recount import count_file
    from weighin.grading.score import WASTE, Metrics
    from weighin.grading.score import score as value_of

    labels, answers = grade.read_labels(submission), grade.read_labels(truth)
    absent = [name for name in answers if name not in labels]
    if absent:
        problem = f"{submission} has no label for {len(absent)} files, such as {absent[0]}"
        raise DataError(problem, f"label the folder that {truth} is about with `weighin predict`")
    table = confusion(list(answers.values()), [labels[name] for name in answers])
    count = count_file(model)
    rules = grade.read_contest(contest) if contest else WASTE
    found = value_of(rules, Metrics(table.f1, table.accuracy, count.macs, count.parameters))
    click.echo(f"macro F1 {table.f1:.4f}, {count.macs:,} MACs, score {found.value:.4f}")


@cli.command()
@click.argument("network", type=EXISTING)
@click.option("--classes", default=9, show_default=True, help="Outputs, for a rows file.")
@click.option("--layers", is_flag=True, help="List every counted layer.")
def count(network: Path, classes: int, layers: bool) -> None:
    """Count the MACs of a rows file or an ONNX file by the contest's rule.

    \b
    weighin count work/search/network.yaml --layers
    weighin count submission/model.onnx
    """
    if network.suffix == ".onnx":
        from weighin.grading.recount import count_file

        found = count_file(network)
        for layer in found.layers if layers else ():
            click.echo(f"{layer.macs:>12,}  {layer.op:<18} {layer.name}")
        click.echo(f"{found.macs:,} MACs, {found.parameters:,} parameters")
        return
    from weighin.network.vetting import tally

    for line in tally(network, classes, layers):
        click.echo(line)


@cli.command()
@click.argument("folder", type=ANY, default="work/search")
@click.option("--journal", type=ANY, help="Write the study to this new file, for optuna-dashboard.")
def explain(folder: Path, journal: Path | None) -> None:
    """Say why this network was chosen and what the next best was.

    \b
    weighin explain
    weighin explain work/tune --journal study.log
    """
    if not (folder / "trials.json").is_file():
        raise ParamsError(f"{folder}/trials.json does not exist", "run `dvc repro search` first")
    from weighin.search.explain import explain

    click.echo(explain(folder))
    if journal is not None:
        from weighin.search.journal import write_journal

        write_journal(folder, journal)


@cli.command()
@click.argument("address")
@click.option("--processes", type=click.IntRange(1), help="Workers; one a core by default.")
def worker(address: str, processes: int | None) -> None:
    """Work for searches through the Dask scheduler at an address, until stopped.

    Run it in the project's folder, on a disk that all workers and the search share.

    \b
    dask scheduler &
    weighin worker tcp://127.0.0.1:8786
    dvc repro  # with search.cluster and tune.cluster, or WEIGHIN_CLUSTER, naming that address
    """
    from weighin.search.cluster import worker_command

    command = worker_command(address, processes)
    os.execv(command[0], command)


@cli.command()
@click.argument("key", type=EXISTING)
@click.option("--provenance", type=ANY, default="submission/provenance.json", show_default=True)
def sign(key: Path, provenance: Path) -> None:
    """Sign the provenance with an ed25519 key; the signed copy names its commit and image.

    \b
    weighin sign ~/.keys/weighin.pem
    """
    from weighin.report.signing import sign
    from weighin.report.witness import observed

    click.echo(f"signed: {sign(provenance, key, observed(Path()))}")


@cli.command()
@click.option("--stage", help="Rebuild one stage alone, on the inputs that lie here.")
@click.option("--workers", type=click.IntRange(1), help="Processes; they change no byte.")
@click.option("--signature", type=EXISTING, help="Check a signed provenance instead.")
@click.option("--key", type=EXISTING, help="The signer's public ed25519 key.")
def verify(
    stage: str | None, workers: int | None, signature: Path | None, key: Path | None
) -> None:
    """Rebuild the last commit without any cache and compare every output with dvc.lock.

    \b
    weighin verify
    weighin verify --stage train --workers 1
    weighin verify --signature submission/provenance.dsse.json --key signer.pub.pem
    """
    if signature is not None:
        _verify_signature(signature, key)
        return
    from weighin.verification import verify

    proof = verify(Path(), stage, workers)
    for line in proof.table():
        click.echo(line)
    proof.check()
    click.echo("every output is what dvc.lock records")


def _verify_signature(envelope: Path, key: Path | None) -> None:
    from weighin.report.signing import verify_signature
    from weighin.report.witness import witness_of

    if key is None:
        raise click.UsageError("--signature needs --key, the signer's public key")
    witness = witness_of(verify_signature(envelope, key))
    click.echo(f"the signature holds, and so does every file; commit {witness.commit or 'unknown'}")


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


def _cores() -> int:
    return len(os.sched_getaffinity(0))
