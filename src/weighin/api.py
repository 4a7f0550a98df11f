"""What `import weighin` offers to a notebook or a script."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from weighin.determinism import PINS
from weighin.errors import DataError, HiddenWorkError, NetworkError, ParamsError, WeighinError
from weighin.files import read_json

if TYPE_CHECKING:
    from torch import nn

    from weighin.verification import Proof

KINDS = [kind for one in WeighinError.__subclasses__() for kind in (one, *one.__subclasses__())]
ERRORS = {kind.exit_code: kind for kind in KINDS}


@dataclass(frozen=True)
class Count:
    """MACs by the contest's rule, and parameters.

    They are of one image, but for an ONNX file of which `weighin count` says something else.
    """

    macs: int
    parameters: int


@dataclass(frozen=True)
class SubmissionScore:
    """A submission's figures; `notes` say how its names and classes were read, and the truth's."""

    score: float
    f1: float
    accuracy: float
    macs: int
    parameters: int
    notes: tuple[str, ...]


def count(
    network: Union[str, Path, "nn.Module"], classes: int = 9, size: tuple[int, int] | None = None
) -> Count:
    """Count rows for `classes` outputs, an ONNX file, or a module on images (H, W).

    Rows are a file, or the name of some that come with the package. They count as they are
    exported, that is with their batch norms folded; a module as it is, without the statistics of
    its norms.

    Raises:
        NetworkError, ModelError: the file does not make a network, the module takes no such image.
        HiddenWorkError: it does work that the contest's rule does not count.
        ParamsError: a module without `size`.
    """
    if not isinstance(network, str | Path):
        from weighin.network.build import count_parameters
        from weighin.network.cost import count_macs, reject_hidden_work

        if not (isinstance(size, Sequence) and len(size) == 2 and all(side > 0 for side in size)):
            problem = f"a module is counted on an image, and its size is {size}"
            raise ParamsError(problem, "pass size=(height, width)")
        with _running(size):
            with _exported_instead():
                reject_hidden_work(network, size)
            return Count(count_macs(network, size), count_parameters(network))
    if Path(network).suffix.lower() == ".onnx":
        found = json.loads(_output("weighin", "count", network, "--json"))
        return Count(found["macs"], found["parameters"])
    from weighin.network.cost import cost
    from weighin.network.spec import read_rows, rows_file, rows_of

    spec = read_rows(rows_file(network))
    with rows_of(network):
        priced = cost(spec, classes)
    return Count(priced.macs, priced.parameters)


@contextlib.contextmanager
def _exported_instead() -> Iterator[None]:
    """Say of a refused module that its ONNX file can be counted: there the rule names more."""
    try:
        yield
    except HiddenWorkError as error:
        fix = "or export it (torch.onnx.export) and count the file: weighin.count('model.onnx')"
        raise HiddenWorkError(error.problem, f"{error.fix}; {fix}") from None


@contextlib.contextmanager
def _running(size: tuple[int, int]) -> Iterator[None]:
    """Tell what a module raises that cannot run on a float32 image of 3 channels."""
    try:
        yield
    except WeighinError:
        raise
    except Exception as error:  # a stranger's forward raises anything
        problem = f"the module does not run on images (1, 3, {size[0]}, {size[1]}), float32"
        words = str(error).strip().splitlines() or [type(error).__name__]
        fix = "pass an nn.Module, and the size that it takes; wrap one of other channels or numbers"
        raise NetworkError(f"{problem}: {words[0][:200]}", fix) from error


def score(
    submission: str | Path,
    truth: str | Path,
    model: str | Path,
    contest: str | Path | None = None,
    own_score: bool = False,
) -> SubmissionScore:
    """Score a submission.csv against the truth, with the MACs of its ONNX file.

    `contest` is a params.yaml with other rules than the waste contest's; `own_score` allows it to
    name a Python file, which is run.

    Raises:
        DataError: the tables cannot be read, or the truth names files that have no label.
        ModelError, HiddenWorkError: the model cannot be counted.
    """
    from weighin.grading.grade import compared, read_contest, read_submission, read_truth
    from weighin.grading.model import open_model
    from weighin.grading.recount import cost, counted
    from weighin.grading.score import WASTE, Metrics
    from weighin.grading.score import score as contest_score
    from weighin.label_csv import read_labels

    graded = open_model(Path(model))
    files = [row.filename for row in read_labels(Path(truth)).rows]
    labels, notes = read_submission(Path(submission), graded.classes, files)
    fix = f"label the folder that {truth} is about with `weighin predict`"
    answers = read_truth(Path(truth), labels, graded.classes, str(submission), fix)
    table = compared(labels, answers)
    work = counted(graded, Path(model))
    rules = read_contest(Path(contest), own_score) if contest else WASTE
    metrics = Metrics.of(table.f1, table.accuracy, cost(graded))
    return SubmissionScore(
        contest_score(rules, metrics).value,
        table.f1,
        table.accuracy,
        work.macs,
        work.parameters,
        notes + answers.notes,
    )


def grade(
    model: str | Path,
    folder: str | Path,
    out: str | Path,
    truth: str | Path | None = None,
    contest: str | Path | None = None,
    own_score: bool = False,
) -> dict[str, Any]:
    """Label a folder as the grader does; write submission.csv and grade.json into `out`.

    `contest` and `own_score` are as in `score`. Returns what grade.json holds. The work is done in
    a process with the instruction set pinned, so that the labels are those of every other machine.

    Raises:
        ModelError, HiddenWorkError, DataError, OutputError: nothing has been written.
    """
    options = {"--truth": truth, "--contest": contest}
    given = [part for name, value in options.items() if value for part in (name, value)]
    given += ["--own-score"] if own_score else []
    _output("weighin.grading", model, folder, out, *given)
    facts: dict[str, Any] = read_json(Path(out) / "grade.json")
    return facts


def _output(*words: str | Path) -> str:
    """Return what a module of ours prints, run by itself: no model of others ends this process."""
    command = [sys.executable, "-m", *map(str, words)]
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, **PINS, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        problem, _, fix = done.stderr.partition("error: ")[2].rstrip().partition("\n  to fix: ")
        raise ERRORS.get(done.returncode, WeighinError)(problem or done.stderr, fix)
    return done.stdout


def metrics(submission: str | Path = "submission") -> dict[str, Any]:
    """Return the figures in a submission's metrics.json.

    Raises:
        DataError: there is none.
    """
    path = Path(submission) / "metrics.json"
    try:
        found: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}", "build the submission: dvc repro") from None
    return found


def verify(project: str | Path = ".", stage: str | None = None) -> "Proof":
    """Rebuild the last commit without any cache; `check()` of the result raises if outputs differ.

    Raises:
        DataError: no Git commit with a dvc.lock, no data, or a stage fails.
    """
    from weighin.verification import verify as rebuilt

    return rebuilt(Path(project), stage)
