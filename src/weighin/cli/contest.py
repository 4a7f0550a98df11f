"""The commands of a contest: submit and preflight for who enters, leaderboard for who organizes."""

import sys
from pathlib import Path
from typing import Any

import click

from weighin.cli import ANY, EXISTING, cli


@cli.command()
@click.argument("out", type=ANY, default="submission.zip")
def submit(out: Path) -> None:
    """Write what is handed in as one ZIP file, checked: model, labels, metrics, provenance, card.

    \b
    weighin submit team.zip
    """
    from weighin.contest.bundle import submit

    names, missing = submit(Path(), out)
    if missing:
        click.echo(f"it cannot be rebuilt by others: {missing}")
    click.echo(f"{out}: {', '.join(names)}; next: weighin preflight {out}")


@cli.command()
@click.argument("bundle", type=EXISTING, default="submission")
@click.option("--container", help="Grade in this image, as the organizer does: weighin-grader.")
@click.option("--seconds", type=float, help="30, and 0.5 an image by default, as on a board.")
@click.option("--memory", type=int, default=4096, show_default=True, help="MB.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def preflight(
    bundle: Path, container: str | None, seconds: float | None, memory: int, as_json: bool
) -> None:
    """Try a submission as the organizer will: the same grader, limits, and awkward images.

    \b
    weighin preflight team.zip
    weighin preflight submission/model.onnx --json
    """
    from weighin.contest.bundle import IMAGES, preflight, verdict
    from weighin.files import canonical_json
    from weighin.grading.limits import Limits, seconds_for

    limits = Limits(seconds or seconds_for(len(IMAGES)), memory * 2**20)
    checks = preflight(bundle, limits, container)
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
@click.option("--container", help="Grade in containers of this image, such as weighin-grader.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seconds", type=float, help="Of one submission; 30, and 0.5 an image by default.")
@click.option("--memory", type=int, default=4096, show_default=True, help="MB of one submission.")
@click.option("--public-share", type=click.FloatRange(0, 1), default=0.5, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the parts and the resamples.")
@click.option("--resamples", type=click.IntRange(100), default=2000, show_default=True)
@click.option("--name", default="Leaderboard", show_default=True, help="The page's title.")
@click.option("--rebuild", type=click.IntRange(0), default=0, help="Rebuild so many of the best.")
@click.option("--data", type=EXISTING, help="The training data that they are rebuilt on.")
@click.option("--rebuild-image", default="weighin-rebuild", show_default=True)
@click.option("--rebuild-hours", type=float, default=6.0, show_default=True, help="For each.")
def leaderboard(
    submissions: Path,
    out: Path,
    *,
    test: Path,
    contest: Path | None,
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
    from weighin.grading.runtime import list_files
    from weighin.grading.score import WASTE

    limits = Limits(seconds or seconds_for(len(list_files(test))), memory * 2**20)
    rules = read_contest(contest) if contest else WASTE
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
@click.option("--name", default="Contest", show_default=True)
@click.option("--image", default="weighin-grader", show_default=True, help="The grader's image.")
def init(folder: Path, rules: Path | None, name: str, image: str) -> None:
    """Write what an organizer hands out into a new folder.

    \b
    weighin contest init handout --contest params.yaml --name "Waste sorting"
    """
    from weighin.contest.handout import write_handout
    from weighin.grading.grade import read_contest
    from weighin.grading.score import WASTE

    for path in write_handout(folder, read_contest(rules) if rules else WASTE, name, image):
        click.echo(path)
