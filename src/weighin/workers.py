"""How many processes do a piece of work: it changes the speed, never a byte."""

import os

from weighin.errors import ParamsError


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def worker_count(setting: int | str, most: int) -> int:
    """Return how many workers `auto` or a number means, at most one a piece of work.

    WEIGHIN_WORKERS in the environment overrides the setting.

    Raises:
        ParamsError: WEIGHIN_WORKERS is neither.
    """
    chosen = str(os.environ.get("WEIGHIN_WORKERS", setting))
    if chosen != "auto" and not (chosen.isascii() and chosen.isdigit()):
        problem = f"WEIGHIN_WORKERS is {chosen}; it must be auto or a whole number"
        raise ParamsError(problem, "unset WEIGHIN_WORKERS, or set it to auto")
    return max(1, min(cores() if chosen == "auto" else int(chosen), most))
