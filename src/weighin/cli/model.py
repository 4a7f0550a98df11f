"""The commands about a model: predict, score, count."""

from pathlib import Path

import click

from weighin.cli.paths import ANY, EXISTING


@click.command()
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
    found.check_readable(folder)
    write_text(out, submission_text(found))
    click.echo(f"{len(found.names):,} labels in {out}; unreadable: {len(found.unreadable):,}")
    if found.faults_summary:
        click.echo(f"{found.faults_summary}; these get the fallback class", err=True)


@click.command()
@click.argument("submission", type=EXISTING)
@click.argument("truth", type=EXISTING)
@click.argument("model", type=EXISTING)
@click.option("--contest", type=EXISTING, help="A params.yaml with other rules.")
def score(submission: Path, truth: Path, model: Path, contest: Path | None) -> None:
    """Score a submission.csv against the truth, with the MACs of the model.

    \b
    weighin score submission/submission.csv data/test_truth.csv submission/model.onnx
    """
    from weighin import api

    found = api.score(submission, truth, model, contest)
    for note in found.notes:
        click.echo(note)
    click.echo(f"macro F1 {found.f1:.4f}, {found.macs:,} MACs, score {found.score:.4f}")


@click.command()
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
    from weighin.network.cost import cost_table

    for line in cost_table(network, classes, layers):
        click.echo(line)
