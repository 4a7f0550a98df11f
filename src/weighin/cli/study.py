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
    from weighin.search.trials import explain

    click.echo(explain(folder))
    if journal is not None:
        from weighin.search.trials import write_journal

        write_journal(folder, journal)


LOOPBACK = "tcp://127.0.0.1:8786"


@click.command()
@click.argument("address", default=LOOPBACK)
def scheduler(address: str) -> None:
    """Give out the work of searches, at an address, until stopped.

    It and its workers execute what anybody sends them who can connect. So it serves this machine
    alone, or, at a tls:// address, who has the certificates of `weighin certificates`.

    \b
    weighin scheduler
    weighin scheduler tls://0.0.0.0:8786
    """
    from weighin.search.cluster import scheduler_command

    command = scheduler_command(address)
    os.execv(command[0], command)


@click.command()
@click.argument("address", default=LOOPBACK)
@click.option("--processes", type=click.IntRange(1), help="Workers; one a core by default.")
def worker(address: str, processes: int | None) -> None:
    """Work for searches through the Dask scheduler at an address, until stopped.

    Run it in the project's folder, on a disk that all workers and the search share.

    \b
    weighin scheduler &
    weighin worker tcp://127.0.0.1:8786
    dvc repro  # with search.cluster and tune.cluster, or WEIGHIN_CLUSTER, naming that address
    """
    from weighin.search.cluster import worker_command

    command = worker_command(address, processes)
    os.execv(command[0], command)


@click.command()
@click.argument("folder", type=ANY, default=".weighin/certificates")
def certificates(folder: Path) -> None:
    """Make the certificates by which the machines of a cluster know each other.

    Copy the folder to .weighin/certificates of each, or name it in WEIGHIN_CERTIFICATES; whoever
    has key.pem can run programs on all of them.

    \b
    weighin certificates
    weighin scheduler tls://0.0.0.0:8786
    weighin worker tls://host:8786
    """
    from weighin.search.cluster import make_certificates

    make_certificates(folder)
    click.echo(f"{folder}/key.pem is a secret: copy the folder to the cluster's machines alone")
