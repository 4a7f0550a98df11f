"""Lists the files that a test folder asks labels for, and reads each one warily.

Every regular file, at any depth, asks for a label, whatever its name ends in: a picture called
`x.dat` counts. Hidden files and other systems' droppings (file_names.py lists them) do not. A
symlink counts as the file it leads to while that lies in the folder, or in a store of files under
their hashes such as DVC's cache; anything else that is not a plain file, and a link that leaves the
folder, is an unreadable row and is never opened.
"""

import os
import stat
from pathlib import Path

from weighin.errors import DataError
from weighin.file_names import escapes, walk
from weighin.images import UnreadableImageError

MAX_FILE = 256 * 2**20  # bytes


def list_files(folder: Path) -> list[str]:
    """Return the files' paths relative to `folder`, with "/", in the order of their bytes.

    Raises:
        DataError: the folder is missing, empty or may not be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "name the folder of test images")
    names = sorted((name for name, _ in walk(folder)), key=os.fsencode)
    if not names:
        raise DataError(f"{folder} holds no files", "name the folder of test images")
    return names


def read(folder: Path, name: str) -> bytes:
    """Return a file's bytes.

    Raises:
        UnreadableImageError: outside, broken-link, not-a-file, huge, no-permission.
    """
    path = folder / name
    try:
        if path.is_symlink() and escapes(path, folder):
            raise UnreadableImageError("outside")
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise UnreadableImageError("not-a-file")
        if facts.st_size > MAX_FILE:
            raise UnreadableImageError("huge")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError("broken-link") from None
    except PermissionError:
        raise UnreadableImageError("no-permission") from None
    except (OSError, RuntimeError):  # a device, a loop of links, a failing disk
        raise UnreadableImageError("not-a-file") from None
