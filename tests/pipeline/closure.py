"""Which files of the package a stage can import, found by reading the code."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


def closure(start: Path) -> set[str]:
    """Return the files under src/ that `start` imports, at any depth and wherever in the code."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for path in _imported(waiting.pop()):
            name = path.relative_to(ROOT).as_posix()
            if name not in found and not _is_empty(path):
                found.add(name)
                waiting.append(path)
    return found


def _imported(path: Path) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {file for name in names for file in _files(name)}


def _is_empty(path: Path) -> bool:
    """Whether a package's `__init__` holds a docstring and nothing else."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return path.name == "__init__.py" and all(isinstance(node, ast.Expr) for node in body)


def _files(module: str) -> list[Path]:
    """Return a module's file and the `__init__` of each package above it."""
    parts = module.split(".")
    if parts[0] != "weighin":
        return []
    found = []
    for count in range(1, len(parts) + 1):
        place = SOURCE.joinpath(*parts[:count])
        found += [p for p in (place / "__init__.py", place.with_suffix(".py")) if p.is_file()]
    return found
