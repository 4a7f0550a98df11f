"""One plain line a step of long work: how far, how fast, how good, how long still."""

import sys
import time


def say(text: str) -> None:
    """Print a line of progress at once, to standard error, so that output can be piped."""
    print(text, file=sys.stderr, flush=True)


def span(seconds: float) -> str:
    """Return a duration such as ``45s``, ``3m20s`` or ``2h05m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


class Progress:
    """Counts the steps of one piece of work and prints a line for each."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self._first, self._start = done, time.perf_counter()

    def skip(self, count: int) -> None:
        """Count steps that were done in an earlier run."""
        self.done += count
        self._first += count

    def step(self, facts: str, count: int = 1) -> None:
        """Count `count` steps and print the line, with the time left at the rate so far."""
        self.done += count
        spent = time.perf_counter() - self._start
        left = spent / (self.done - self._first) * (self.total - self.done)
        say(f"{self.what} {self.done}/{self.total}  {facts}  {span(left)} left")
