"""Brings data/ to what data.dvc records: it is there, or in the cache, or drawn, or pulled."""

from pathlib import Path

from weighin.data.demo import DEFAULT_MD5, draw_demo
from weighin.data.versioning import dvc, record, recorded
from weighin.errors import DataError, MismatchError


def fetch(project: Path, workers: int) -> str:
    """Return one line that says where data/ came from.

    Raises:
        DataError: nothing is recorded, or it can be had from nowhere.
        MismatchError: what was drawn here is not what is recorded.
    """
    wanted, folder = recorded(project), project / "data"
    if wanted is None:
        fix = "bring a data set in with `weighin import FOLDER|CSV|COCO`"
        raise DataError("there is no data.dvc", fix)
    if folder.exists() and any(folder.iterdir()):
        return "data/ is there"
    if _checkout(project):
        return "data/ comes from DVC's cache"
    if wanted != DEFAULT_MD5:
        dvc(project, "pull", "data.dvc")
        return "data/ comes from the remote"
    draw_demo(folder, workers=workers)
    record(project)
    drawn = recorded(project)
    if drawn != wanted:
        (project / "data.dvc").write_text(
            (project / "data.dvc").read_text(encoding="utf-8").replace(str(drawn), wanted),
            encoding="utf-8",
        )
        raise MismatchError(
            f"the data set drawn here is {drawn}, data.dvc records {wanted}",
            "install the versions of requirements.lock, remove data/ and run `weighin fetch` again",
        )
    return "data/ was drawn, and is what data.dvc records"


def _checkout(project: Path) -> bool:
    try:
        dvc(project, "checkout", "data.dvc")
    except DataError:
        return False
    return True
