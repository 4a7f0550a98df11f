"""Every parameter of the project: its type, unit, range and reason. Values live in params.yaml.

One section a stage; `dvc.yaml` names the sections that a stage reads, so a change reruns what it
touches and nothing else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from weighin.schema import Knob, read, read_yaml

Fault = Literal["drop", "keep", "fail"]
POLICY = ("drop", "keep", "fail")


@dataclass(frozen=True)
class Contest:
    """The rules: what a submission is scored on."""

    score: Annotated[
        str, Knob("the contest's formula", choices=("waste", "f1", "accuracy", "micronet"))
    ]
    max_macs: Annotated[int, Knob("networks above it are never trained", "MACs", 1000, 10**12)]
    reference_macs: Annotated[int, Knob("MACs that cost one point", "MACs", 1, 10**12)]
    reference_params: Annotated[
        int, Knob("parameters that cost one point (micronet)", "parameters", 1, 10**12)
    ]
    reference_f1: Annotated[float, Knob("F1 that costs nothing", "", 0.01, 1)]
    floor_f1: Annotated[float, Knob("F1 below which the quality term is 1", "", 0, 1)]


@dataclass(frozen=True)
class Faults:
    """What to do with an image that has a fault: drop it, keep it, or fail."""

    unreadable: Annotated[
        str, Knob("truncated, zero-byte, not an image, a bomb", choices=("drop", "fail"))
    ]
    damaged: Annotated[str, Knob("a JPEG with errors in it, complete all the same", choices=POLICY)]
    animated: Annotated[str, Knob("keeps the first frame", choices=POLICY)]
    cmyk: Annotated[str, Knob("converted to RGB", choices=POLICY)]
    deep: Annotated[str, Knob("16-bit; scaled to 8", choices=POLICY)]
    transparent: Annotated[str, Knob("a palette with transparency; laid on white", choices=POLICY)]
    rotated: Annotated[str, Knob("turned upright by its EXIF orientation", choices=POLICY)]
    extreme_aspect: Annotated[
        str, Knob("one side over `max_aspect` times the other", choices=POLICY)
    ]
    max_aspect: Annotated[float, Knob("longer side over shorter side", "", 1, 1000)]
    duplicate: Annotated[str, Knob("the same bytes twice: drop keeps one", choices=POLICY)]
    contradiction: Annotated[
        str, Knob("the same bytes under two classes: drop drops all", choices=POLICY)
    ]
    near_duplicate: Annotated[
        str, Knob("within `near_bits`: keep keeps them in one split", choices=POLICY)
    ]
    alike_names: Annotated[
        str, Knob("names that differ only by case or Unicode form: drop keeps one", choices=POLICY)
    ]
    outside: Annotated[str, Knob("a symlink that leaves the folder", choices=("drop", "fail"))]
    small_class: Annotated[str, Knob("a class with under `min_per_class` images", choices=POLICY)]
    min_per_class: Annotated[int, Knob("", "images", 2, 10**6)]


@dataclass(frozen=True)
class Prepare:
    """Checking, splitting and packing of the images."""

    sizes: Annotated[
        tuple[tuple[int, int], ...],
        Knob("packed [height, width]; networks take one of them", "pixels", 8, 1024),
    ]
    turn_tall: Annotated[bool, Knob("lay tall pictures on their side")]
    validation: Annotated[float, Knob("kept from training, for every choice", "share", 0.02, 0.9)]
    group: Annotated[
        str, Knob("images of one group stay in one split", choices=("none", "folder", "column"))
    ]
    near_bits: Annotated[
        int, Knob("perceptual hashes this close stay in one split; -1: off", "bits of 64", -1, 16)
    ]
    faults: Faults


@dataclass(frozen=True)
class Augment:
    """Random changes of a training batch; 0 switches one off."""

    flip: Annotated[float, Knob("mirrored left to right", "chance", 0, 1)]
    flip_vertical: Annotated[float, Knob("mirrored top to bottom", "chance", 0, 1)]
    translate: Annotated[float, Knob("largest shift", "share of a side", 0, 0.5)]
    crop: Annotated[float, Knob("smallest area of a random resized crop; 1: off", "share", 0.05, 1)]
    rotate: Annotated[float, Knob("largest turn of the affine map", "degrees", 0, 180)]
    shear: Annotated[float, Knob("largest shear of the affine map", "degrees", 0, 45)]
    colour: Annotated[float, Knob("brightness, contrast and saturation by 1 +- this", "", 0, 1)]
    cutout: Annotated[float, Knob("side of a square painted grey", "share of a side", 0, 1)]
    mixup: Annotated[float, Knob("Beta(a, a) of mixed pairs", "a", 0, 10)]
    cutmix: Annotated[float, Knob("a box of another image", "chance", 0, 1)]
    randaugment: Annotated[int, Knob("operations drawn from RandAugment's set", "operations", 0, 4)]
    magnitude: Annotated[int, Knob("RandAugment's strength", "of 30", 0, 30)]


@dataclass(frozen=True)
class Loss:
    """A weighted sum of losses; a weight of 0 leaves one out."""

    cross_entropy: Annotated[float, Knob("", "weight", 0, 100)]
    smoothing: Annotated[float, Knob("label smoothing of the cross-entropy", "", 0, 0.9)]
    soft_f1: Annotated[float, Knob("1 - soft macro F1 of a shard", "weight", 0, 100)]
    focal: Annotated[float, Knob("", "weight", 0, 100)]
    focal_gamma: Annotated[float, Knob("how far easy examples count less", "", 0, 10)]
    logit_adjustment: Annotated[float, Knob("log prior added to the logits", "tau", 0, 10)]
    distillation: Annotated[float, Knob("to the teacher's softened labels", "weight", 0, 100)]
    temperature: Annotated[float, Knob("of the distillation", "", 0.1, 100)]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; search, tune, train and finetune share it."""

    shards: Annotated[
        int, Knob("pieces of a batch, one forward and backward each", "shards", 1, 256)
    ]
    shard_size: Annotated[int, Knob("", "images", 2, 4096)]
    optimizer: Annotated[str, Knob("", choices=("sgd", "adamw"))]
    lr: Annotated[float, Knob("the schedule's peak", "", 1e-8, 100)]
    momentum: Annotated[float, Knob("Nesterov's, or AdamW's first beta", "", 0, 0.9999)]
    weight_decay: Annotated[float, Knob("of weights; never of norms and biases", "", 0, 10)]
    schedule: Annotated[str, Knob("", choices=("one-cycle", "cosine", "constant"))]
    warmup: Annotated[float, Knob("rise to the peak", "share of the steps", 0, 0.9)]
    ema: Annotated[float, Knob("averaging of the weights over steps; 0: off", "decay", 0, 0.99999)]
    balance: Annotated[float, Knob("sampling: 0 as the data are, 1 every class alike", "", 0, 1)]
    low_resolution: Annotated[
        float, Knob("epochs at the next smaller packed size", "share of the epochs", 0, 0.95)
    ]
    augment: Augment
    loss: Loss


TRIAL_SHARDS = Knob("of a trial's batch; fewer give a short training more steps", "shards", 1, 256)


@dataclass(frozen=True)
class Search:
    """The architecture search."""

    enabled: Annotated[bool, Knob("false takes `network` as it is")]
    network: Annotated[str | None, Knob("a rows file, used when the search is off")]
    space: Annotated[str, Knob("what to choose from: a shipped space or a YAML file")]
    sampler: Annotated[str, Knob("", choices=("tpe", "nsga2", "random"))]
    objective: Annotated[
        str, Knob("F1 up and MACs down, or the contest's score", choices=("front", "score"))
    ]
    trials: Annotated[int, Knob("networks that are trained", "trials", 1, 100_000)]
    generation: Annotated[int, Knob("trials asked for together", "trials", 1, 10_000)]
    epochs: Annotated[int, Knob("of a trial that is not stopped", "epochs", 1, 10_000)]
    halving: Annotated[
        int, Knob("rungs: each keeps the better half of a generation", "rungs", 1, 6)
    ]
    shards: Annotated[int, TRIAL_SHARDS]
    workers: Annotated[
        int | Literal["auto"], Knob("processes; auto: one a core", "processes", 1, 1024)
    ]
    cluster: Annotated[str | None, Knob("a Dask scheduler's tcp://host:port instead")]


@dataclass(frozen=True)
class Tune:
    """The search for a recipe."""

    enabled: Annotated[bool, Knob("false keeps the recipe of `train`")]
    trials: Annotated[int, Knob("recipes that are tried", "trials", 1, 100_000)]
    generation: Annotated[int, Knob("trials asked for together", "trials", 1, 10_000)]
    epochs: Annotated[int, Knob("of one trial", "epochs", 1, 10_000)]
    stop: Annotated[
        float, Knob("epochs after which the lower half of a generation stops", "share", 0.1, 1)
    ]
    shards: Annotated[int, TRIAL_SHARDS]
    space: Annotated[
        dict[str, list[float]], Knob("recipe knob: [low, high], drawn on a log scale where low > 0")
    ]
    workers: Annotated[
        int | Literal["auto"], Knob("processes; auto: one a core", "processes", 1, 1024)
    ]
    cluster: Annotated[str | None, Knob("a Dask scheduler's tcp://host:port instead")]


@dataclass(frozen=True)
class Train:
    """The training of the chosen network."""

    epochs: Annotated[int, Knob("", "epochs", 1, 100_000)]
    workers: Annotated[
        int | Literal["auto"],
        Knob("processes; auto: one a core, at most one a shard", "processes", 1, 1024),
    ]
    all_data: Annotated[
        bool, Knob("train on the validation split too, its figures then being those of seen images")
    ]
    teacher: Annotated[
        float, Knob("width of a teacher over the network's own; 0: no teacher", "times", 0, 16)
    ]
    teacher_epochs: Annotated[int, Knob("", "epochs", 1, 100_000)]


@dataclass(frozen=True)
class Decompose:
    """The factorization of convolutions."""

    enabled: Annotated[bool, Knob("false passes the trained network on")]
    method: Annotated[
        str,
        Knob(
            "Tucker-2 or CP or a (k x 1)(1 x k) pair for k x k; pointwise layers take the SVD",
            choices=("tucker", "cp", "spatial"),
        ),
    ]
    ranks: Annotated[
        str,
        Knob("how ranks are chosen", choices=("ratio", "energy", "evbmf", "sensitivity", "search")),
    ]
    ratio: Annotated[float, Knob("kept share of each side's channels (ratio)", "share", 0.01, 1)]
    energy: Annotated[
        float, Knob("kept share of the squared singular values (energy)", "share", 0.01, 1)
    ]
    budget: Annotated[float, Knob("MACs left (sensitivity)", "share", 0.05, 1)]
    trials: Annotated[int, Knob("rank sets that are tried (search)", "trials", 1, 100_000)]
    cut_blocks: Annotated[
        int, Knob("most blocks removed, one at a time while the score falls", "blocks", 0, 1000)
    ]
    cut_channels: Annotated[
        float, Knob("of every hidden width, by batch-norm scale", "share", 0, 0.9)
    ]
    cut_epochs: Annotated[int, Knob("recovery after each cut", "epochs", 0, 10_000)]


@dataclass(frozen=True)
class Finetune:
    """Recovery after the factorization, and the export."""

    enabled: Annotated[bool, Knob("false exports the factorized network as it is")]
    epochs: Annotated[int, Knob("", "epochs", 1, 100_000)]
    lr: Annotated[float, Knob("the schedule's peak", "", 1e-8, 100)]
    freeze: Annotated[
        str,
        Knob(
            "what stays as it is",
            choices=("nothing", "all-but-convolutions", "all-but-norms-and-head"),
        ),
    ]
    distillation: Annotated[float, Knob("to the network as it was trained", "weight", 0, 100)]


@dataclass(frozen=True)
class Report:
    """The page and the figures."""

    bootstrap: Annotated[
        int,
        Knob("resamples behind intervals and the risk of the floor", "resamples", 100, 1_000_000),
    ]
    mistakes: Annotated[int, Knob("worst mistakes shown as pictures", "pictures", 0, 200)]
    sheets: Annotated[bool, Knob("show a contact sheet of each class")]


@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    seed: Annotated[int, Knob("the root of every random address", "", 0, 2**31 - 1)]
    contest: Contest
    prepare: Prepare
    recipe: Recipe
    search: Search
    tune: Tune
    train: Train
    decompose: Decompose
    finetune: Finetune
    report: Report


def load(path: Path = Path("params.yaml")) -> Params:
    """Return the parameters of a project.

    Raises:
        ParamsError: one line for every value that is missing, unknown or out of its range.
    """
    return read(Params, read_yaml(path), str(path))


def load_recipe(path: Path) -> Recipe:
    """Return the recipe in a file of its own, such as the one that the tune stage writes.

    Raises:
        ParamsError: as `load`.
    """
    return read(Recipe, read_yaml(path), str(path))
