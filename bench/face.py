"""What the machinery costs a user who waits: `python -m bench.face`.

face.help_s        `weighin --help`
face.stage_start   a stage that ends as soon as it has read its parameters and inputs' hashes,
                   against `import torch` alone; every stage in turn
face.stage_start_s its seconds
face.noop_repro_s  `dvc repro` where nothing is out of date
"""

import subprocess
import sys
from functools import partial

from bench.figures import Figures, figure, is_quick, seconds, told
from weighin.determinism import pin
from weighin.files import read_yaml
from weighin.stage import PIPELINE

COMMAND = "python -m bench.face"
EMPTY_STAGE = (
    "from weighin.stage import main; import sys; sys.argv[0] = sys.argv[1]; main(lambda s: None)"
)


def figures(quick: bool = False) -> Figures:
    """Return this part's figures; the stage and `dvc repro` only where the pipeline was built."""
    runs = 3 if quick else 9
    help_s = times([sys.executable, "-m", "weighin", "--help"], runs)
    found = {"face.help_s": figure(help_s, "s", "under 0.3", COMMAND)}
    noop = subprocess.run(NOOP, capture_output=True, text=True)
    if noop.returncode == 0 and noop.stdout.count("Running stage") == 1:
        ratios, starts = stage_starts(-(-runs // len(STAGES)))
        found["face.stage_start"] = figure(ratios, "ratio", "under 1.5", COMMAND)
        found["face.stage_start_s"] = figure(starts, "s", "under 3", COMMAND)
        found["face.noop_repro_s"] = figure(times(NOOP, runs), "s", "under 5", COMMAND)
    return found


STAGES = list(read_yaml(PIPELINE)["stages"])
NOOP = [sys.executable, "-m", "dvc", "repro"]


def times(command: list[str], runs: int) -> list[float]:
    """Return how long a command took, each time."""
    run = partial(subprocess.run, command, check=True, capture_output=True)
    return [seconds(run) for _ in range(runs)]


def stage_starts(runs: int) -> tuple[list[float], list[float]]:
    """Return the ratios, each taken in a pair of neighbouring runs, and the stages' seconds."""
    ratios, starts = [], []
    for name in STAGES * runs:
        starts += times([sys.executable, "-c", EMPTY_STAGE, name], 1)
        ratios.append(starts[-1] / times([sys.executable, "-c", "import torch"], 1)[0])
    return ratios, starts


if __name__ == "__main__":
    pin()
    print(told(figures(is_quick())))
