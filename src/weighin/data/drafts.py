"""A folder that is made beside the one it will replace, so that nothing is ever half there."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from weighin.errors import OutputError

NEW, OLD = "new", "old"


@contextlib.contextmanager
def drafting(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; `target` becomes its `new` when the block ends well.

    The folder's name is fixed: what a killed run left there is cleared by the next one, and a
    `target` that it had just moved away is put back.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; `target` is as it was.
    """
    draft = target.parent / f".{target.name}.draft"
    try:
        _clear(draft, target)
        draft.mkdir(parents=True)
        yield draft
        _swap(draft, target)
    except OSError as error:
        problem = f"cannot write {target}: {error.strerror or error}"
        fix = "free some space or make its folder writable, then run the same command again"
        raise OutputError(problem, fix) from error
    finally:
        _clear(draft, target)


def _swap(draft: Path, target: Path) -> None:
    if target.exists():
        target.rename(draft / OLD)
    (draft / NEW).rename(target)


def _clear(draft: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        if not target.exists():
            (draft / OLD).rename(target)
    shutil.rmtree(draft, ignore_errors=True)
