"""data/ -> work/prepare: every image checked, assigned to a split, and packed."""

from pathlib import Path

from weighin.stage import Stage, main


def prepare(stage: Stage) -> None:
    """Check, split and pack the labelled images."""
    from weighin.data.prepare import prepare
    from weighin.parallel import cores

    params = stage.params
    prepare(Path("data"), Path("work/prepare"), params.prepare, params.seed, cores())


if __name__ == "__main__":
    main(prepare)
