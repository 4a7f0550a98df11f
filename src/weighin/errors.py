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

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\n  to fix: {self.fix}"


class ParamsError(WeighinError):
    """A parameter is missing, unknown, of another type or out of its range."""

    exit_code = 4


class DataError(WeighinError):
    """Images or labels cannot be used as they are."""

    exit_code = 5


class NetworkError(WeighinError):
    """Rows, ranks or weights do not make a network."""

    exit_code = 6


class HiddenWorkError(NetworkError):
    """A network multiplies and accumulates where the contest's rule counts nothing."""

    exit_code = 7


class ModelError(WeighinError):
    """An ONNX file cannot be graded."""

    exit_code = 8


class OutputError(WeighinError):
    """An output cannot be written."""

    exit_code = 9


class WorkerError(WeighinError):
    """A worker process or a cluster went away; finished work is kept."""

    exit_code = 10


class MismatchError(WeighinError):
    """A rebuilt output is not the one that was recorded."""

    exit_code = 11


class TimeLimitError(WeighinError):
    """A model or a folder takes longer than it may."""

    exit_code = 12


class MemoryLimitError(WeighinError):
    """A model or a folder takes more memory than it may."""

    exit_code = 13


class MachineError(WeighinError):
    """This machine cannot compute the promised bytes."""

    exit_code = 14
