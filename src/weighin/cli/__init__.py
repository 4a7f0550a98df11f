"""The command `weighin`: brings data in, labels, scores, counts, explains, proves.

Everything heavy is imported inside a command, so that `weighin --help` answers at once.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

import click

from weighin.determinism import PINS, pin
from weighin.stage import exit_code, leave

QUICK = {"--help", "-h", "--version"}
EXISTING, ANY = click.Path(exists=True, path_type=Path), click.Path(path_type=Path)
APART = {"count", "score", "wrap"}  # these read an ONNX file, which can crash a process
MODULES = ("model", "project")  # each adds its commands to `cli`


def main() -> None:
    """Run the command line and exit with a code of errors.py."""
    if len(sys.argv) > 1 and not QUICK & set(sys.argv) and "_WEIGHIN_COMPLETE" not in os.environ:
        pin()
    leave(exit_code(_apart if APART & set(sys.argv[1:2]) else _run))


def _apart() -> None:
    """Run a command in a child: what a stranger's model does to it is told as an error is."""
    from weighin.grading.limits import UNLIMITED, limited

    if code := limited(_child, UNLIMITED):
        sys.exit(code)


def _child() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says so, and ends this one
    try:
        return exit_code(_run)
    except SystemExit as ended:
        return int(ended.code or 0)


def commands() -> click.Group:
    """Return the command line with all that it can do."""
    for module in MODULES:
        importlib.import_module(f"weighin.cli.{module}")
    return cli


def _run() -> None:
    try:
        commands()(prog_name="weighin", standalone_mode=False)
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
    9 output, 10 worker, 11 a rebuilt output differs, 12 time limit, 13 memory limit, 14 a machine
    that cannot compute the promised bytes, 130 interrupted.
    Shell completion: eval "$(_WEIGHIN_COMPLETE=bash_source weighin)"
    """
