"""The commands about proof: sign, verify."""

import os
from pathlib import Path

import click

from weighin.cli.paths import ANY, EXISTING


@click.command()
@click.argument("key", type=EXISTING)
@click.option("--provenance", type=ANY, default="submission/provenance.json", show_default=True)
def sign(key: Path, provenance: Path) -> None:
    """Sign the provenance with an ed25519 key; the signed copy names its commit and image.

    \b
    weighin sign ~/.keys/weighin.pem
    """
    from weighin.report.signing import observe_build, sign

    build = observe_build(Path())
    click.echo(f"signed: {sign(provenance, key, build)}")
    if build.commit is None:
        click.echo("no commit is named: this is no Git repository, or tracked files were changed")


@click.command()
@click.option("--stage", help="Rebuild one stage alone, on the inputs that lie here.")
@click.option("--workers", type=click.IntRange(1), help="Processes; they change no byte.")
@click.option("--signature", type=EXISTING, help="Check a signed provenance instead.")
@click.option("--key", type=EXISTING, help="The signer's public ed25519 key.")
@click.option("--allow-unportable", is_flag=True, help="Go on where the bytes must differ.")
def verify(
    stage: str | None,
    workers: int | None,
    signature: Path | None,
    key: Path | None,
    allow_unportable: bool,
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
    from weighin.machine import ALLOW, require_portable
    from weighin.verification import verify

    if allow_unportable:
        os.environ[ALLOW] = "1"  # for the stages too
    require_portable()
    proof = verify(Path(), stage, workers)
    for line in proof.table():
        click.echo(line)
    proof.check()
    click.echo("same: every output is what dvc.lock records")


def _verify_signature(envelope: Path, key: Path | None) -> None:
    from weighin.report.signing import metadata_of, verify_signature

    if key is None:
        raise click.UsageError("--signature needs --key, the signer's public key")
    build = metadata_of(verify_signature(envelope, key))
    click.echo(f"the signature holds, and so does every file; commit {build.commit or 'unknown'}")
