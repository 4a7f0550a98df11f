"""Every error a user can meet: what is wrong, then the command or edit that fixes it.

    WeighinError            3  something is wrong and the message says how to fix it
    ├── ParamsError         4  params.yaml, or a file that it names
    ├── DataError           5  images, labels, splits
    ├── NetworkError        6  rows, blocks, weights
    │   └── HiddenWorkError 7  a network does work that the contest's rule does not see
    ├── ModelError          8  an ONNX file that cannot be graded
    ├── OutputError         9  a folder that cannot be written, a full disk
    ├── WorkerError        10  a worker or a cluster that went away
    ├── MismatchError      11  a rebuilt output differs from what was recorded
    ├── TimeLimitError     12  work that takes longer than it may
    ├── MemoryLimitError   13  work that takes more memory than it may
    └── MachineError       14  this machine cannot compute the promised bytes

The number is the process's exit code; 0 is success, 1 a bug, 2 wrong usage, 130 an interrupt.
"""

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean X?` for the nearest known name, or else the names that are known."""
    from difflib import get_close_matches

    near = get_close_matches(name, names := list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(names)}"


class WeighinError(Exception):
    """A problem with its fix; printed as two lines, never as a traceback."""

    exit_code = 3

    def __init_subclass__(cls, code: int) -> None:
        cls.exit_code = code

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\n  to fix: {self.fix}"


class ParamsError(WeighinError, code=4):
    """A parameter is missing, unknown, of another type or out of its range."""


class DataError(WeighinError, code=5):
    """Images or labels cannot be used as they are."""


class NetworkError(WeighinError, code=6):
    """Rows, ranks or weights do not make a network."""


class HiddenWorkError(NetworkError, code=7):
    """A network multiplies and accumulates where the contest's rule counts nothing."""


class ModelError(WeighinError, code=8):
    """An ONNX file cannot be graded."""


class OutputError(WeighinError, code=9):
    """An output cannot be written."""


class WorkerError(WeighinError, code=10):
    """A worker process or a cluster went away; finished work is kept."""


class MismatchError(WeighinError, code=11):
    """A rebuilt output is not the one that was recorded."""


class TimeLimitError(WeighinError, code=12):
    """A model or a folder takes longer than it may."""


class MemoryLimitError(WeighinError, code=13):
    """A model or a folder takes more memory than it may."""


class MachineError(WeighinError, code=14):
    """This machine cannot compute the promised bytes."""
