"""The real photographs that figures are measured on: the folder waste7 in WEIGHIN_DATA."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from weighin.parallel import cores

if TYPE_CHECKING:
    from weighin.params import Prepare

ROOT = Path(__file__).parents[1]
WASTE7 = Path(os.environ.get("WEIGHIN_DATA", "data")).absolute() / "waste7"
TRAIN = WASTE7 / "train"


def packed(folder: Path, params: "Prepare", seed: int = 1) -> Path:
    """Return the photographs to train on, packed below an empty folder."""
    from weighin.data.prepare import prepare

    (folder / "train").symlink_to(TRAIN)
    prepare(folder, folder / "pack", params, seed, cores())
    return folder / "pack"
