"""The files that parameters name, recorded so that an edit of one reruns what reads it.

To DVC `search.network: net.yaml` is a text. The stage `inputs` therefore runs whenever the pipeline
does, copies each named file and writes its hash into work/inputs/<section>.json; the stages that
read the file depend on that. What comes with the package is known by its name alone: its content
is code.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighin.determinism import output
from weighin.errors import ParamsError
from weighin.files import NEW, replace_folder, sha256_file, write_json
from weighin.progress import say

if TYPE_CHECKING:
    from weighin.params import Params

PACKAGE = Path(__file__).parent
SHIPPED = {"search.network": "network/rows", "search.space": "search/spaces"}
NAMED = ("contest.score", *SHIPPED, "train.weights")


@dataclass(frozen=True)
class NamedFile:
    """A parameter that names a file, and the file, or None for what comes with the package."""

    parameter: str
    name: str
    path: Path | None

    def facts(self) -> dict[str, str]:
        """Return the name, and the hash of a file of one's own."""
        return {"name": self.name} | ({"sha256": sha256_file(self.path)} if self.path else {})


def named_files(params: "Params") -> list[NamedFile]:
    """Return what the parameters that are in use name.

    Raises:
        ParamsError: a named file is not there.
    """
    search = params.search
    used = {
        "contest.score": params.contest.score,
        "search.network": None if search.enabled else search.network,
        "search.space": search.space if search.enabled else None,
        "train.weights": params.train.weights,
    }
    return [_found(parameter, name) for parameter, name in used.items() if name is not None]


def _found(parameter: str, name: str) -> NamedFile:
    folder = SHIPPED.get(parameter)
    shipped = sorted(path.stem for path in (PACKAGE / folder).glob("*.yaml")) if folder else []
    if name in shipped or (parameter == "contest.score" and not name.endswith(".py")):
        return NamedFile(parameter, name, None)
    if not Path(name).is_file():
        others = f"neither a file here nor one of {', '.join(shipped)}" if shipped else "no file"
        raise ParamsError(
            f"{parameter} is {name}: {others}",
            f"write {name}, or name another; a queued or temporary experiment holds only what Git "
            f"tracks: {_tracking(parameter)} {name}",
        )
    return NamedFile(parameter, name, Path(name))


def record(params: "Params", out: Path) -> None:
    """Write the folder `out`: a JSON file for each section that names files, and their copies.

    Raises:
        ParamsError: a named file is not there.
        OutputError: `out` cannot be written.
    """
    sections: dict[str, dict[str, Any]] = {name.split(".")[0]: {} for name in NAMED}
    files = named_files(params)
    with replace_folder(out) as draft:
        (draft / NEW).mkdir()
        for file in files:
            section, _, key = file.parameter.partition(".")
            sections[section][key] = file.facts()
            if file.path is not None:
                shutil.copyfile(file.path, draft / NEW / f"{file.parameter}{file.path.suffix}")
        for section, facts in sections.items():
            write_json(draft / NEW / f"{section}.json", facts)
    for file in files:
        if file.path is not None and _is_untracked(file.path):
            say(
                f"{file.parameter}: {file.name} is not tracked; `{_tracking(file.parameter)} "
                f"{file.name}`, for `weighin verify` and for queued experiments"
            )


def _tracking(parameter: str) -> str:
    """Return the command that tracks a file: DVC's for weights, which are large and binary."""
    return "dvc add" if parameter == "train.weights" else "git add"


def _is_untracked(path: Path) -> bool:
    """Whether a file lies in a Git repository, and neither Git nor DVC tracks it."""
    if path.with_name(f"{path.name}.dvc").exists():
        return False
    return bool(output("git", "ls-files", "--others", "--", str(path)))
