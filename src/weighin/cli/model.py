"""The commands about a model: predict, wrap, score, count, blocks; and of a contest of models.

Those are submit and preflight for who enters, leaderboard and contest for who organizes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from weighin.cli import ANY, EXISTING, cli
from weighin.errors import OutputError, WeighinError
from weighin.stage import PARAMS

TABLES = (".csv", ".tsv", ".txt")
SECONDS = click.FloatRange(1, 1e9)
MEMORY = click.IntRange(256, 2**30)  # MB; the grader of the smallest model needs about 100
HOURS = click.FloatRange(0.01, 1e5)


@cli.command()
@click.argument("model", type=EXISTING)
@click.argument("images", type=EXISTING)
@click.argument("out", type=ANY, default=None, required=False)
@click.option("--strict", is_flag=True, help="Fail on an unreadable image.")
@click.option("--probabilities", is_flag=True, help="Give every class's probability too.")
@click.option("--contract", type=EXISTING, help="A JSON file that says what a foreign model means.")
def predict(
    model: Path,
    images: Path,
    out: Path | None,
    strict: bool,
    probabilities: bool,
    contract: Path | None,
) -> None:
    """Label a folder of images, or one image, with an ONNX file.

    A folder's labels go into OUT, submission.csv by default; one image's are printed. A table that
    is there and says something else is kept beside it, as OUT.before-1.

    \b
    weighin predict submission/model.onnx photos labels.csv
    weighin predict submission/model.onnx photo.jpg --probabilities
    """
    from weighin.files import csv_text, keep_aside, write_text
    from weighin.grading.contract import from_file
    from weighin.grading.grade import submission_text
    from weighin.grading.model import open_model
    from weighin.grading.predict import predict

    to_terminal = out is None and images.is_file()
    out = out or Path("submission.csv")
    if out.exists() and not to_terminal and out.suffix.lower() not in TABLES:
        problem = f"{out} is there already, and is no table: its labels would replace it"
        fix = "name a .csv file; of several images, name their folder"
        raise OutputError(problem, fix)
    graded = open_model(model, from_file(contract) if contract else None)
    found = predict(graded, images, strict)
    found.check_readable(images)
    text = submission_text(found)
    if probabilities:
        shares = ([f"{p:.4f}" for p in row] for row in found.probabilities.tolist())
        rows = zip(found.names, found.labels, shares, strict=True)
        header = ("filename", "class", *graded.classes)
        text = csv_text(header, ((name, label, *parts) for name, label, parts in rows))
    if to_terminal:
        click.echo(text, nl=False)
        return
    kept = keep_aside(out, text.encode())
    write_text(out, text)
    _tell_kept(out, kept)
    click.echo(f"{len(found.names):,} labels in {out}; unreadable: {len(found.unreadable):,}")
    if found.faults_summary:
        click.echo(f"{found.faults_summary}; these get the fallback class", err=True)


def _tell_kept(out: Path, kept: Path | None) -> None:
    if kept:
        click.echo(f"{out} was there and says something else; it is kept as {kept}", err=True)


@cli.command()
@click.argument("model", type=EXISTING)
@click.argument("out", type=ANY, required=False)
@click.option("--contract", type=EXISTING, help="A JSON file of what the options below say.")
@click.option("--classes", help="Names in the order of the outputs, a,b,c; or a file of lines.")
@click.option("--fallback", help="The class of an unreadable picture; else the first one.")
@click.option("--mean", help="Taken off each channel, r,g,b; else 0.5 each.")
@click.option("--std", help="Divides each channel, r,g,b; else 0.5 each.")
@click.option("--scale", type=float, help="White before mean and std, 1 or 255; else 1.")
@click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Else NCHW.")
@click.option("--channels", type=click.Choice(["RGB", "BGR"]), help="Else RGB.")
@click.option("--crop", type=float, help="Share kept in the middle, 0.1 to 1; else stretched.")
@click.option("--turn-tall", is_flag=True, default=None, help="Lay tall pictures on their side.")
def wrap(model: Path, out: Path | None, contract: Path | None, **given: Any) -> None:
    """Write into an ONNX file from elsewhere what it means, so that it can be graded.

    The result goes into OUT, MODEL.wrapped.onnx by default. Another file that is there, MODEL
    itself included, is kept beside it, as OUT.before-1.

    \b
    weighin wrap resnet.onnx entry.onnx --classes cat,dog \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --crop 0.875
    """
    from weighin.grading.wrapping import wrapped

    target = out or model.with_suffix(".wrapped.onnx")
    values = {name: value for name, value in given.items() if value is not None}
    found, kept = wrapped(model, target, contract, values)
    _tell_kept(target, kept)
    click.echo(f"{target}: {found.macs:,} MACs, {found.parameters:,} parameters, gradable")


@cli.command()
@click.argument("submission", type=EXISTING)
@click.argument("truth", type=EXISTING)
@click.argument("model", type=EXISTING)
@click.option("--contest", type=EXISTING, help="A params.yaml with other rules.")
@click.option("--own-score", is_flag=True, help="Run the Python file that its score names.")
def score(
    submission: Path, truth: Path, model: Path, contest: Path | None, own_score: bool
) -> None:
    """Score a submission.csv against the truth, with the MACs of the model.

    \b
    weighin score submission/submission.csv data/test_truth.csv submission/model.onnx
    """
    from weighin import api

    found = api.score(submission, truth, model, contest, own_score)
    for note in found.notes:
        click.echo(note)
    click.echo(f"macro F1 {found.f1:.4f}, {found.macs:,} MACs, score {found.score:.4f}")
    if contest is None and _has_other_rules():
        note = (
            f"this score is the waste contest's; --contest {PARAMS} scores by this project's rules"
        )
        click.echo(note, err=True)


def _has_other_rules() -> bool:
    """Whether the project in this folder has other rules than the waste contest's."""
    from weighin.grading.score import WASTE
    from weighin.params import load

    try:
        return PARAMS.exists() and load(PARAMS).contest != WASTE
    except WeighinError:  # which is said where its parameters are asked for
        return False


@cli.command()
@click.argument("network", type=ANY)
@click.option(
    "--classes", type=click.IntRange(1), help="Outputs of a rows file; those of data/, else 9."
)
@click.option("--layers", is_flag=True, help="List every counted layer.")
@click.option("--json", "as_json", is_flag=True, help="Of an ONNX file: its figures as JSON.")
def count(network: Path, classes: int | None, layers: bool, as_json: bool) -> None:
    """Count the MACs of a rows file or an ONNX file by the contest's rule.

    \b
    weighin count work/search/network.yaml --layers
    weighin count small  # rows that come with the package
    weighin count submission/model.onnx

    Any ONNX file with fixed sides is counted; docs/GRADING.md says what else grading needs.
    """
    if network.suffix.lower() == ".onnx" and network.exists():
        from weighin.grading.recount import count_file

        if classes:
            raise click.UsageError("an ONNX file has its own outputs: leave out --classes")
        found = count_file(network)
        if as_json:
            facts = {name: getattr(found, name) for name in ("macs", "parameters", "unknown", "of")}
            click.echo(json.dumps(facts))
            return
        for layer in found.layers if layers else ():
            click.echo(f"{layer.macs:>12,}  {layer.op:<18} {layer.name}")
        click.echo(f"{found.macs:,} MACs, {found.parameters:,} parameters")
        click.echo(f"the work of {found.of}")
        if found.unknown:
            click.echo(f"the rule gives 0 MACs to: {', '.join(found.unknown)}")
        return
    if as_json:
        raise click.UsageError("--json is for an ONNX file: leave it out")
    from weighin.cli.project import class_names
    from weighin.network.cost import cost_table

    names, known = class_names()
    many, whose = (classes, "--classes") if classes else (len(names), known)
    for line in cost_table(network, many, layers):
        click.echo(line)
    click.echo(f"with {many} outputs ({whose})", err=True)


@cli.command()
def blocks() -> None:
    """List what a row can name: each block, its arguments, an example row and its MACs.

    \b
    weighin blocks
    """
    from inspect import Parameter

    from weighin.files import flow, with_comments
    from weighin.network.blocks import BLOCKS
    from weighin.network.build import arguments
    from weighin.network.cost import EXAMPLE_INPUT, block_examples
    from weighin.validation import comment_of

    shape = " x ".join(map(str, EXAMPLE_INPUT))
    click.echo(f"A row is [repeats, Block, [arguments]]; the MACs are those of {shape} inputs.")
    for example in block_examples():
        click.echo(f"\n{example.name}: {example.summary}")
        lines = [(f"  {example.row}", f"{example.macs:,} MACs")]
        for name, (hint, default) in arguments(BLOCKS[example.name]).items():
            given = "" if default is Parameter.empty else f"={flow(default)}"
            lines.append((f"    {name}{given}", comment_of(hint)))
        click.echo(with_comments(lines), nl=False)


# --- a contest


@cli.command()
@click.argument("out", type=ANY, default="submission.zip")
def submit(out: Path) -> None:
    """Write what is handed in as one ZIP file, checked: model, labels, metrics, provenance, card.

    \b
    weighin submit team.zip
    """
    from weighin.contest.submissions import submit

    names, missing = submit(Path(), out)
    if missing:
        click.echo(f"it cannot be rebuilt by others: {missing}")
    click.echo(f"{out}: {', '.join(names)}; next: weighin preflight {out}")


@cli.command()
@click.argument("bundle", type=EXISTING, default="submission")
@click.option("--contest", type=EXISTING, help="A params.yaml whose limits are checked too.")
@click.option("--container", help="Grade in this image, as the organizer does: weighin-grader.")
@click.option("--seconds", type=SECONDS, help="30, and 0.5 an image by default, as on a board.")
@click.option("--memory", type=MEMORY, default=4096, show_default=True, help="MB.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def preflight(
    bundle: Path,
    contest: Path | None,
    container: str | None,
    seconds: float | None,
    memory: int,
    as_json: bool,
) -> None:
    """Try a submission as the organizer will: the same grader, limits, and awkward images.

    \b
    weighin preflight team.zip
    weighin preflight submission/model.onnx --contest params.yaml --json
    """
    from weighin.contest.handout import IMAGES, preflight, verdict
    from weighin.files import canonical_json
    from weighin.grading.grade import read_contest
    from weighin.grading.limits import Limits, seconds_for

    limits = Limits(seconds or seconds_for(len(IMAGES)), memory * 2**20)
    # a score of one's own is allowed, for it is not run: nothing is scored here
    rules = read_contest(contest, own_score=True) if contest else None
    checks = preflight(bundle, limits, container, rules)
    if as_json:
        click.echo(canonical_json(verdict(checks)), nl=False)
    else:
        for check in checks:
            click.echo(
                f"{'ok ' if check.ok else 'FIX'}  {check.name}{check.said and ': '}{check.said}"
            )
    if not all(check.ok for check in checks):
        sys.exit(8)


@cli.command()
@click.argument("submissions", type=EXISTING)
@click.argument("out", type=ANY)
@click.option("--test", type=EXISTING, required=True, help="Folder of the test images.")
@click.option("--truth", type=EXISTING, required=True, help="CSV of their classes.")
@click.option("--contest", type=EXISTING, help="A params.yaml with the rules.")
@click.option("--own-score", is_flag=True, help="Run the Python file that its score names.")
@click.option("--container", help="Grade in containers of this image, such as weighin-grader.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seconds", type=SECONDS, help="Of one submission; 30, and 0.5 an image by default.")
@click.option(
    "--memory", type=MEMORY, default=4096, show_default=True, help="MB of one submission."
)
@click.option("--public-share", type=click.FloatRange(0, 1), default=0.5, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the parts and the resamples.")
@click.option("--resamples", type=click.IntRange(100), default=2000, show_default=True)
@click.option("--name", default="Leaderboard", show_default=True, help="The page's title.")
@click.option("--rebuild", type=click.IntRange(0), default=0, help="Rebuild so many of the best.")
@click.option("--data", type=EXISTING, help="The training data that they are rebuilt on.")
@click.option("--rebuild-image", default="weighin-rebuild", show_default=True)
@click.option("--rebuild-hours", type=HOURS, default=6.0, show_default=True, help="For each.")
def leaderboard(
    submissions: Path,
    out: Path,
    *,
    test: Path,
    contest: Path | None,
    own_score: bool,
    container: str | None,
    seconds: float | None,
    memory: int,
    rebuild: int,
    data: Path | None,
    rebuild_image: str,
    rebuild_hours: float,
    **options: Any,
) -> None:
    """Grade every submission of a folder and rank them; go on where an earlier run ended.

    Each is an .onnx file, a folder or a ZIP file, graded in a process of its own or in a container.

    \b
    weighin leaderboard entries board --test secret --truth secret.csv
    weighin leaderboard entries board --test secret --truth secret.csv --container weighin-grader
    """
    from weighin.contest.grading import Grader
    from weighin.contest.leaderboard import Options, leaderboard
    from weighin.contest.pages import lines_of
    from weighin.grading.grade import read_contest
    from weighin.grading.limits import Limits, seconds_for
    from weighin.grading.predict import list_files
    from weighin.grading.score import WASTE

    limits = Limits(seconds or seconds_for(len(list_files(test))), memory * 2**20)
    rules = read_contest(contest, own_score) if contest else WASTE
    how = Options(grader=Grader(test, limits, container), contest=rules, **options)
    board = leaderboard(submissions, out, how)
    if rebuild:
        from weighin.contest.rebuild import Rebuild, rebuilt_board

        again = Rebuild(rebuild, out / "rebuilt", data, rebuild_image, rebuild_hours)
        board = rebuilt_board(board, submissions, out, again)
    for line in lines_of(board):
        click.echo(line)
    click.echo(f"the board: {out / 'leaderboard.html'}")


@cli.group()
def contest() -> None:
    """Hand out a contest: rules, smoke images, and bundles for other platforms.

    \b
    weighin contest init handout --name "Waste sorting"
    """


@contest.command("init")
@click.argument("folder", type=ANY)
@click.option("--contest", "rules", type=EXISTING, help="A params.yaml with the rules.")
@click.option("--own-score", is_flag=True, help="Run the Python file that its score names.")
@click.option("--name", default="Contest", show_default=True)
@click.option("--image", default="weighin-grader", show_default=True, help="The grader's image.")
def init(folder: Path, rules: Path | None, own_score: bool, name: str, image: str) -> None:
    """Write what an organizer hands out into a new folder.

    \b
    weighin contest init handout --contest params.yaml --name "Waste sorting"
    """
    from weighin.contest.handout import write_handout
    from weighin.grading.grade import read_contest
    from weighin.grading.score import WASTE

    told = read_contest(rules, own_score) if rules else WASTE
    for path in write_handout(folder, told, name, image):
        click.echo(path)
