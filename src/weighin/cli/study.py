"""The commands about a search: explain, worker."""

import os
from pathlib import Path

import click

from weighin.cli.paths import ANY


@click.command()
@click.argument("folder", type=ANY, default="work/search")
@click.option("--journal", type=ANY, help="Write the study to this new file, for optuna-dashboard.")
def explain(folder: Path, journal: Path | None) -> None:
    """Say why this network was chosen and what the next best was.

    \b
    weighin explain
    weighin explain work/tune --journal study.log
    """
    from weighin.search.explain import explain

    click.echo(explain(folder))
    if journal is not None:
        from weighin.search.trials import write_journal

        write_journal(folder, journal)


@click.command()
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
