"""What a path on the command line may be."""

from pathlib import Path

import click

EXISTING = click.Path(exists=True, path_type=Path)
ANY = click.Path(path_type=Path)
