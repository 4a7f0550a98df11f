"""data/ -> work/prepare: every image checked, assigned to a split, and packed."""

import os
from pathlib import Path

from weighin.stage import Stage, main


def prepare(stage: Stage) -> None:
    """Check, split and pack the labelled images."""
    from weighin.data.prepare import prepare

    workers = len(os.sched_getaffinity(0))
    prepare(Path("data"), Path("work/prepare"), stage.params.prepare, stage.params.seed, workers)


if __name__ == "__main__":
    main(prepare)
