"""A folder that is made beside the one it will replace, so that nothing is ever half there."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from weighin.errors import OutputError


@contextlib.contextmanager
def drafting(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; it goes when the block ends, however it ends.

    Its name is fixed: what a killed run left there is cleared by the next one.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    draft = target.parent / f".{target.name}.draft"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
    except OSError as error:
        problem = f"cannot write {target}: {error.strerror or error}"
        mend = "free some space or make its folder writable, then run the same command again"
        raise OutputError(problem, mend) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
