"""The train stage: the chosen network, and the wider teacher that it may learn from."""

from dataclasses import replace
from pathlib import Path

from weighin.data.pack import read_packed
from weighin.errors import ParamsError
from weighin.files import write_json
from weighin.grading.f1 import agreement
from weighin.grading.risk import risk
from weighin.network.spec import NetworkSpec
from weighin.params import Params, Recipe
from weighin.training.complete import complete
from weighin.training.job import Epoch, Fitted, Job, Teacher
from weighin.training.team import is_first
from weighin.training.weights import write_weights


def train(
    packed: Path, spec: NetworkSpec, recipe: Recipe, params: Params, out: Path, scratch: Path
) -> None:
    """Train a network and write weights.safetensors and history.json into the folder `out`.

    With `train.teacher` the same rows at so many times their width are trained first and written as
    teacher.safetensors; the network then learns the teacher's labels too, at the weight that
    `recipe.loss.distillation` gives them.

    Raises:
        ParamsError: there is a teacher, and no weight for its labels.
        WorkerError, OutputError: as `complete`; run again, it goes on.
    """
    _check(recipe, params)
    curve = out / "history.json"
    teacher = _teacher(packed, spec, recipe, params, scratch)
    job = Job(
        spec,
        recipe,
        params.train.epochs,
        packed,
        (params.seed, "train"),
        teacher=teacher,
        all_data=params.train.all_data,
    )
    fitted = complete("train", job, params.train.workers, scratch, curve)
    if is_first():
        if teacher is not None:
            write_weights(out / "teacher.safetensors", teacher.weights)
        write_json(curve, judged(fitted, job, params))
        write_weights(out / "weights.safetensors", fitted.weights)


def judged(fitted: Fitted, job: Job, params: Params) -> list[Epoch]:
    """Return the history, its last epoch with F1's interval and the risk of the floor.

    `f1_low` and `f1_high` bound 95 % of the bootstrap's resamples of the validation split,
    `under_floor` is the share of them under `contest.floor_f1`.
    """
    held = read_packed(job.packed, "validation", job.spec.input)
    if not fitted.history or not len(held.labels):
        return fitted.history
    found = agreement(held.labels, fitted.logits.argmax(1), held.classes)
    odds = risk(found, params.contest.floor_f1, params.report.bootstrap, params.seed)
    facts = {"f1_low": odds.low, "f1_high": odds.high, "under_floor": odds.under_floor}
    rounded = {name: round(value, 6) for name, value in facts.items()}
    return [*fitted.history[:-1], fitted.history[-1] | rounded]


def _check(recipe: Recipe, params: Params) -> None:
    if params.train.teacher and not recipe.loss.distillation:
        problem = f"train.teacher is {params.train.teacher:g}, but nothing is learned from it"
        fix = "set recipe.loss.distillation above 0 (1 is usual), or train.teacher to 0"
        raise ParamsError(problem, fix)


def _teacher(
    packed: Path, spec: NetworkSpec, recipe: Recipe, params: Params, scratch: Path
) -> Teacher | None:
    if not params.train.teacher:
        return None
    wide = replace(spec, width=spec.width * params.train.teacher)
    job = Job(
        wide,
        recipe,
        params.train.teacher_epochs,
        packed,
        (params.seed, "teacher"),
        all_data=params.train.all_data,
    )
    return Teacher(wide, complete("teacher", job, params.train.workers, scratch).weights)
