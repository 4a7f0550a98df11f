"""Copies what Python needs of the system that it runs on: `slim.py ROOT`.

The interpreter, its standard library, and the shared libraries that these and the packages already
under ROOT load, with their copyright files. Nothing else of the base is in the grader image: no
shell, no package manager, no compiler. Standard library only, for it runs inside the build.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

STDLIB = Path(sysconfig.get_path("stdlib"))
DOC = "usr/share/doc"
LOADER = Path("/lib64/ld-linux-x86-64.so.2")
LEFT_OUT = (
    # develops or installs software
    *("test", "idlelib", "lib2to3", "distutils", "ensurepip", "venv", "pydoc_data", "config-*"),
    *("_test*", "_xxtest*", "xxlimited*", "__pycache__"),
    # other people's packages and settings
    *("site-packages", "dist-packages", "sitecustomize.py"),
    # networks, terminals, windows, databases, and the libraries that these bring
    *("_ssl.*", "nis.*", "curses", "_curses*", "readline.*", "tkinter", "_tkinter.*", "turtle*"),
    *("sqlite3", "_sqlite3.*", "dbm", "_dbm.*", "_gdbm.*"),
)


def main(root: Path) -> None:
    """Copy the interpreter and all that it loads to `root`."""
    for name in ("bin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(Path("/", name).readlink())
    interpreter = Path(sys.executable).resolve()
    copy(interpreter, root)
    (place(interpreter, root).parent / "python3").symlink_to(interpreter.name)
    shutil.copytree(STDLIB, place(STDLIB, root), ignore=shutil.ignore_patterns(*LEFT_OUT))
    needed = sorted(libraries([interpreter, *root.rglob("*.so*")], root))
    for path in needed:
        copy(path, root)
    for package in owners({*needed, interpreter}):
        (root / DOC / package).mkdir(parents=True)
        shutil.copy2(Path("/", DOC, package, "copyright"), root / DOC / package)
    if Path("/etc/ld.so.cache").is_file():  # says where a Python of /usr/local keeps its library
        copy(Path("/etc/ld.so.cache"), root)


def libraries(programs: Iterable[Path], root: Path) -> set[Path]:
    """Return the files outside `root` that the loader would load for `programs`."""
    return {path for program in programs for path in loads(program) if root not in path.parents}


def loads(program: Path) -> Iterator[Path]:
    """Yield what the loader would load for one program or library."""
    asked = subprocess.run([LOADER, "--list", program], capture_output=True, text=True, check=False)
    if asked.returncode and "statically linked" not in asked.stdout + asked.stderr:
        sys.exit(f"{program}: {asked.stderr.strip()}")
    for line in asked.stdout.splitlines():
        if "not found" in line:
            sys.exit(f"{program} needs {line.strip()}")
        if found := re.search(r"(/\S+) \(0x", line):
            yield Path(found[1])


def place(path: Path, root: Path) -> Path:
    """Return where under `root` a path of this system belongs, links among its parents resolved."""
    return root / (path.parent.resolve() / path.name).relative_to("/")


def copy(path: Path, root: Path) -> None:
    """Copy a file, or what a link leads to, to its place under `root`."""
    place(path, root).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, place(path, root))


def owners(paths: set[Path]) -> list[str]:
    """Return the Debian packages that `paths` came from."""
    wanted = {str(path.resolve()).removeprefix("/usr") for path in paths}
    wanted |= {str(path.parent.resolve() / path.name).removeprefix("/usr") for path in paths}
    lists = sorted(Path("/var/lib/dpkg/info").glob("*.list"))
    names = {file.stem.partition(":")[0] for file in lists if wanted & set(listed(file))}
    return sorted(name for name in names if Path("/", DOC, name, "copyright").is_file())


def listed(file: Path) -> Iterator[str]:
    """Yield the files of a Debian package, on systems where /lib is /usr/lib."""
    return (line.removeprefix("/usr") for line in file.read_text().splitlines())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
