"""What a signer knows and the files do not: the commit and the image that they were made in."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from weighin.errors import ParamsError
from weighin.report.provenance import Json, described

COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
SHA256 = "sha256:"
IMAGE = re.compile(SHA256 + "[0-9a-f]{64}")
VARIABLE = "WEIGHIN_IMAGE"  # a container does not know its own image: `docker run -e` tells it


@dataclass(frozen=True)
class Witness:
    """A commit in hexadecimal and an image's ID, sha256:<hexadecimal>; None where unknown."""

    commit: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        if self.commit is not None and not COMMIT.fullmatch(self.commit):
            raise ParamsError(
                f'"{self.commit}" is no commit', "give the output of git rev-parse HEAD"
            )
        if self.image is not None and not IMAGE.fullmatch(self.image):
            raise ParamsError(
                f'"{self.image}" is no image ID', "give sha256: and 64 hexadecimal digits"
            )


NOTHING = Witness()


def observed(project: Path) -> Witness:
    """Return the commit that a project's folder is at, and the image that WEIGHIN_IMAGE names.

    There is no commit where a tracked file differs from it: nobody could check it out again.
    """
    changed = _git(project, "status", "--porcelain", "--untracked-files=no")
    commit = _git(project, "rev-parse", "--verify", "HEAD") if changed == "" else None
    return Witness(commit, os.environ.get(VARIABLE) or None)


def witnessed(statement: Json, witness: Witness) -> Json:
    """Return a statement with the commit and the image among what it was made from."""
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    if witness.commit:
        dependencies.append(described("source", gitCommit=witness.commit))
    if witness.image:
        dependencies.append(described("image", sha256=witness.image.removeprefix(SHA256)))
    return statement


def witness_of(statement: Json) -> Witness:
    """Return the commit and the image that a signed statement names."""
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    digests = {row["name"]: row["digest"] for row in dependencies}
    image = digests.get("image", {}).get("sha256")
    return Witness(digests.get("source", {}).get("gitCommit"), image and SHA256 + image)


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
