"""Runs work on files of strangers in a process of its own, which can be ended.

A model may take for ever, take all memory, or crash the runtime: none of that reaches the process
that asked. Memory is limited by RLIMIT_DATA (what a process maps for itself to write), so that a
limit is met by an exception with a sentence, inside a container and outside it.
"""

import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from weighin.errors import MemoryLimitError, ModelError, TimeLimitError, WeighinError

SECONDS, SECONDS_AN_IMAGE = 30.0, 0.5
PR_SET_PDEATHSIG = 1
FIX = "hand in a smaller model, or raise the limit with"


@dataclass(frozen=True)
class Limits:
    """What grading may take."""

    seconds: float = float("inf")  # of wall clock
    memory: int = 4 * 2**30  # bytes that the process maps to write

    def out_of_time(self, needs: str = "it takes more") -> TimeLimitError:
        """Return the error of work that takes longer."""
        return TimeLimitError(
            f"{needs} than the {self.seconds:g} s it may take", f"{FIX} --seconds"
        )

    def out_of_memory(self, needs: str = "it takes more") -> MemoryLimitError:
        """Return the error of work that takes more memory."""
        size = f"{self.memory / 2**20:,.0f} MB"
        return MemoryLimitError(f"{needs} than the {size} it may take", f"{FIX} --memory")


UNLIMITED = Limits(memory=sys.maxsize)


def seconds_for(images: int) -> float:
    """Return how long grading a folder may take by default."""
    return SECONDS + SECONDS_AN_IMAGE * images


def limited(work: Callable[[], int], limits: Limits) -> int:
    """Return the exit code of `work`, run in a child process under limits.

    Args:
        work: Prints what it has to say, and returns an exit code.
        limits: The child is ended when its time is over.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os._exit(_child(work, limits, parent))
    try:
        status = _waited(child, time.monotonic() + limits.seconds)
    except BaseException:  # whatever ends us ends the child
        _end(child)
        raise
    if status is None:
        return told(limits.out_of_time())
    if os.WIFSIGNALED(status):
        return told(_crash(os.WTERMSIG(status)))
    return os.WEXITSTATUS(status)


def told(error: WeighinError) -> int:
    """Print an error and return its exit code."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _child(work: Callable[[], int], limits: Limits, parent: int) -> int:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        return 1
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]  # which nobody but root may raise
    memory = limits.memory if hard == resource.RLIM_INFINITY else min(limits.memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        code = work()
    except MemoryError:
        code = told(limits.out_of_memory())
    except WeighinError as error:
        code = told(error)
    except Exception:  # a bug: it may not go on in the parent's code
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _waited(child: int, end: float) -> int | None:
    """Return the wait status of `child`, None if it had to be ended."""
    pause = 0.001
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(pause)
        pause = min(0.05, 2 * pause)
    _end(child)
    return None


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _crash(number: int) -> WeighinError:
    if number == signal.SIGKILL:
        return MemoryLimitError(
            "the system ended it, most likely for want of memory",
            "hand in a smaller model, or give the machine or the container more memory",
        )
    name = signal.Signals(number).name
    return ModelError(f"it crashed ONNX Runtime ({name})", "export the model again")
