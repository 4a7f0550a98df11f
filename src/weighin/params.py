"""Every parameter of the project: its type, unit, range and reason. Values live in params.yaml.

One section a stage; `dvc.yaml` names the sections that a stage reads, so a change reruns what it
touches and nothing else.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from weighin.errors import did_you_mean
from weighin.files import read_yaml
from weighin.validation import Schema, Section, parameter, parameters, read, wrong

Policy = Literal["drop", "keep", "fail"]
Side = Annotated[int, parameter("", "", 8, 1024)]
RENAMED: dict[str, str | None] = {  # a parameter's old dotted name: its new one, None: removed
    "decompose.cut_blocks": "decompose.prune_blocks",
    "decompose.cut_channels": "decompose.prune_channels",
    "decompose.cut_epochs": "decompose.prune_epochs",
    "recipe.augment.colour": "recipe.augment.color",
    "prepare.faults.deep": "prepare.faults.sixteen_bit",
    "prepare.faults.alike_names": "prepare.faults.name_collision",
    "prepare.faults.outside": "prepare.faults.escaping_link",
    "recipe.loss.distillation": None,  # of a wider teacher, without which F1 was better
    "train.teacher": None,
    "train.teacher_epochs": None,
}


@dataclass(frozen=True)
class Contest(Section):
    """The rules: what a submission is scored on."""

    score: Annotated[
        Literal["waste", "f1", "accuracy", "micronet"]
        | Annotated[str, Field(pattern=r"\.py$", description="a Python file of your own")],
        parameter("the contest's formula, or a Python file with one of your own"),
    ]
    max_macs: Annotated[int, parameter("networks above it are never trained", "MACs", 1000, 10**12)]
    reference_macs: Annotated[int, parameter("MACs that cost one point", "MACs", 1, 10**12)]
    reference_params: Annotated[
        int, parameter("parameters that cost one point (micronet)", "parameters", 1, 10**12)
    ]
    reference_f1: Annotated[float, parameter("F1 that costs nothing", "", 0.01, 1)]
    floor_f1: Annotated[float, parameter("F1 below which the quality term is 1", "", 0, 1)]
    max_memory: Annotated[
        int | None,
        parameter("peak of the activations of an image; null: any", "bytes", 1, 2**40),
    ] = None
    max_bytes: Annotated[
        int | None, parameter("size of the model's file; null: any", "bytes", 1, 2**40)
    ] = None
    max_params: Annotated[
        int | None, parameter("parameters of a network; null: any", "parameters", 1, 10**12)
    ] = None


@dataclass(frozen=True)
class Faults(Section):
    """What to do with an image that has a fault: drop it, keep it, or fail."""

    unreadable: Annotated[
        Literal["drop", "fail"], parameter("truncated, zero-byte, not an image, a bomb")
    ]
    damaged: Annotated[Policy, parameter("a JPEG with errors in it, complete all the same")]
    animated: Annotated[Policy, parameter("keeps the first frame")]
    cmyk: Annotated[Policy, parameter("converted to RGB")]
    sixteen_bit: Annotated[Policy, parameter("16-bit; scaled to 8")]
    transparent: Annotated[Policy, parameter("a palette with transparency; laid on white")]
    rotated: Annotated[Policy, parameter("turned upright by its EXIF orientation")]
    extreme_aspect: Annotated[Policy, parameter("one side over `max_aspect` times the other")]
    max_aspect: Annotated[float, parameter("longer side over shorter side", "", 1, 1000)]
    duplicate: Annotated[Policy, parameter("the same bytes twice: drop keeps one")]
    contradiction: Annotated[Policy, parameter("the same bytes under two classes: drop drops all")]
    near_duplicate: Annotated[Policy, parameter("within `near_bits`: keep keeps them in one split")]
    name_collision: Annotated[
        Policy, parameter("names that differ only by case or Unicode form: drop keeps one")
    ]
    escaping_link: Annotated[Literal["drop", "fail"], parameter("a symlink that leaves the folder")]
    small_class: Annotated[Policy, parameter("a class with under `min_per_class` images")]
    min_per_class: Annotated[int, parameter("", "images", 2, 10**6)]


@dataclass(frozen=True, kw_only=True)
class Prepare(Section):
    """Checking, splitting and packing of the images."""

    sizes: Annotated[
        tuple[tuple[Side, Side], ...],
        parameter("packed [height, width]; networks take one of them", "pixels"),
    ]
    supersample: Annotated[
        int, parameter("sides of what random crops are cut from: 2 keeps them sharp", "times", 1, 4)
    ] = 1
    turn_tall: Annotated[bool, parameter("lay tall pictures on their side")]
    validation: Annotated[
        float, parameter("kept from training, for every choice", "share", 0.02, 0.9)
    ]
    group: Annotated[
        Literal["none", "folder", "column"], parameter("images of one group stay in one split")
    ]
    near_bits: Annotated[
        int,
        parameter("perceptual hashes this close stay in one split; -1: off", "bits of 64", -1, 16),
    ]
    faults: Faults

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ValueError("sizes is empty; networks take one of them, such as [[64, 64]]")


@dataclass(frozen=True)
class Augment(Section):
    """Random changes of a training batch; 0 switches one off."""

    flip: Annotated[float, parameter("mirrored left to right", "chance", 0, 1)]
    flip_vertical: Annotated[float, parameter("mirrored top to bottom", "chance", 0, 1)]
    translate: Annotated[float, parameter("largest shift", "share of a side", 0, 0.5)]
    crop: Annotated[
        float, parameter("smallest area of a random resized crop; 1: off", "share", 0.05, 1)
    ]
    rotate: Annotated[float, parameter("largest turn of the affine map", "degrees", 0, 180)]
    shear: Annotated[float, parameter("largest shear of the affine map", "degrees", 0, 45)]
    color: Annotated[float, parameter("brightness, contrast and saturation by 1 +- this", "", 0, 1)]
    cutout: Annotated[float, parameter("side of a square painted grey", "share of a side", 0, 1)]
    mixup: Annotated[float, parameter("Beta(a, a) of mixed pairs", "a", 0, 10)]
    cutmix: Annotated[float, parameter("a box of another image", "chance", 0, 1)]
    randaugment: Annotated[
        int, parameter("operations drawn from RandAugment's set", "operations", 0, 4)
    ]
    magnitude: Annotated[int, parameter("RandAugment's strength", "of 30", 0, 30)]
    blur: Annotated[float, parameter("blurred by up to 1.3 pixels", "chance", 0, 1)] = 0.0
    dark: Annotated[float, parameter("up to 80 % less light, and a gamma", "chance", 0, 1)] = 0.0
    noise: Annotated[float, parameter("a sensor's, up to 30 of 255", "chance", 0, 1)] = 0.0
    jpeg: Annotated[float, parameter("saved as a JPEG of quality 20 to 80", "chance", 0, 1)] = 0.0
    background: Annotated[
        float,
        parameter("another background, where it is plain", "chance", 0, 1),
    ] = 0.0


@dataclass(frozen=True)
class Loss(Section):
    """A weighted sum of losses; a weight of 0 leaves one out."""

    cross_entropy: Annotated[float, parameter("", "weight", 0, 100)]
    smoothing: Annotated[float, parameter("label smoothing of the cross-entropy", "", 0, 0.9)]
    soft_f1: Annotated[float, parameter("1 - soft macro F1 of a shard", "weight", 0, 100)]
    focal: Annotated[float, parameter("", "weight", 0, 100)]
    focal_gamma: Annotated[float, parameter("how far easy examples count less", "", 0, 10)]
    logit_adjustment: Annotated[float, parameter("log prior added to the logits", "tau", 0, 10)]
    temperature: Annotated[float, parameter("of the distillation", "", 0.1, 100)]


@dataclass(frozen=True)
class Recipe(Section):
    """How a network is trained; search, tune, train and finetune share it."""

    device: Annotated[
        Literal["cpu", "cuda"],
        parameter("what computes; a GPU's bytes hold for its model, driver and libraries alone"),
    ] = field(default="cpu", kw_only=True)
    precision: Annotated[
        Literal["float32", "tf32", "bf16"], parameter("of products and convolutions on a GPU")
    ] = field(default="float32", kw_only=True)
    shards: Annotated[
        int, parameter("pieces of a batch, one forward and backward each", "shards", 1, 256)
    ]
    shard_size: Annotated[int, parameter("", "images", 2, 4096)]
    optimizer: Annotated[Literal["sgd", "adamw"], parameter("")]
    lr: Annotated[float, parameter("the schedule's peak", "", 1e-8, 100)]
    momentum: Annotated[float, parameter("Nesterov's, or AdamW's first beta", "", 0, 0.9999)]
    weight_decay: Annotated[float, parameter("of weights; never of norms and biases", "", 0, 10)]
    schedule: Annotated[Literal["one-cycle", "cosine", "constant"], parameter("")]
    warmup: Annotated[float, parameter("rise to the peak", "share of the steps", 0, 0.9)]
    ema: Annotated[
        float, parameter("averaging of the weights over steps; 0: off", "decay", 0, 0.99999)
    ]
    balance: Annotated[
        float, parameter("sampling: 0 as the data are, 1 every class alike", "", 0, 1)
    ]
    low_resolution: Annotated[
        float, parameter("epochs at the next smaller packed size", "share of the epochs", 0, 0.95)
    ]
    augment: Augment
    loss: Loss


def check_precision(recipe: Recipe) -> Recipe:
    """Return `recipe`.

    Raises:
        ValueError: a processor computes in float32 alone.
    """
    if recipe.device == "cpu" and recipe.precision != "float32":
        raise ValueError(
            f"precision is {recipe.precision}, which device: cpu does not compute in; "
            "set precision to float32, or device to cuda"
        )
    return recipe


TrialShards = Annotated[
    int, parameter("of a trial's batch; fewer give a short training more steps", "shards", 1, 256)
]
Generation = Annotated[int, parameter("trials asked for together", "trials", 1, 10_000)]
Count = Annotated[int, parameter("", "", 1, 1024)]
Workers = Annotated[
    Count | Literal["auto"], parameter("processes; auto: one a core, or a GPU", "processes")
]
Splits = Annotated[
    int,
    parameter("of train and validation; above 1, the closest trials train on each", "splits", 1, 5),
]
Cluster = Annotated[str | None, parameter("a Dask scheduler's tls://host:port instead")]


Bounds = tuple[float, float]


def check_space(space: dict[str, Bounds]) -> dict[str, Bounds]:
    """Return `space`: {dotted name of a recipe's number: (low, high)}.

    Raises:
        ValueError: one line for every unknown name and every range that its number does not allow.
    """
    known = {n: s for n, s in parameters(Recipe).items() if s.get("type") in ("integer", "number")}
    faults = [fault for name in sorted(space) for fault in _range_faults(name, space[name], known)]
    if faults:
        raise ValueError("\n".join(faults))
    return space


def _range_faults(name: str, bounds: Bounds, known: dict[str, Schema]) -> list[str]:
    if name not in known:
        return [f"{name} is no number of a recipe{did_you_mean(name, known)}"]
    schema = known[name]
    whole = all(bound.is_integer() for bound in bounds) or schema["type"] == "number"
    if not (whole and schema["minimum"] <= min(bounds) and max(bounds) <= schema["maximum"]):
        return [wrong(name, list(bounds), schema)]
    return [] if bounds[0] < bounds[1] else [f"{name} is {list(bounds)}; low must be under high"]


@dataclass(frozen=True)
class Search(Section):
    """The architecture search."""

    enabled: Annotated[bool, parameter("false takes `network` as it is")]
    network: Annotated[str | None, parameter("a rows file, used when the search is off")]
    space: Annotated[str, parameter("what to choose from: a shipped space or a YAML file")]
    sampler: Annotated[Literal["tpe", "nsga2", "random"], parameter("")]
    objective: Annotated[
        Literal["front", "score"], parameter("F1 up and `axis` down, or the contest's score")
    ]
    trials: Annotated[int, parameter("networks that are trained", "trials", 1, 100_000)]
    generation: Generation
    epochs: Annotated[int, parameter("of a trial that is not stopped", "epochs", 1, 10_000)]
    halving: Annotated[
        int, parameter("rungs: each keeps the better half of a generation", "rungs", 1, 6)
    ]
    shards: TrialShards
    workers: Workers
    cluster: Cluster
    axis: Annotated[
        Literal["macs", "parameters", "memory", "bytes"],
        parameter("the cost that a front sets against F1"),
    ] = "macs"
    splits: Splits = 1
    augment: Annotated[
        float, parameter("of the recipe's augmentation, in a trial", "share", 0, 1)
    ] = 1.0
    warm_start: Annotated[
        bool, parameter("a trial starts from the weights of the finished one most like it")
    ] = False


def check_search(search: Search) -> Search:
    """Return `search`.

    Raises:
        ValueError: it neither searches nor names a network.
    """
    if not search.enabled and search.network is None:
        raise ValueError("enabled is false and network is null; name a rows file: network: small")
    return search


@dataclass(frozen=True)
class Tune(Section):
    """The search for a recipe."""

    enabled: Annotated[bool, parameter("false keeps the recipe of `train`")]
    trials: Annotated[int, parameter("recipes that are tried", "trials", 1, 100_000)]
    generation: Generation
    epochs: Annotated[int, parameter("of one trial", "epochs", 1, 10_000)]
    stop: Annotated[
        float, parameter("epochs after which the lower half of a generation stops", "share", 0.1, 1)
    ]
    shards: TrialShards
    space: Annotated[
        dict[str, Bounds],
        AfterValidator(check_space),
        parameter("recipe knob: [low, high], drawn on a log scale where low > 0"),
    ]
    workers: Workers
    cluster: Cluster
    splits: Splits = 1


@dataclass(frozen=True)
class Train(Section):
    """The training of the chosen network."""

    epochs: Annotated[int, parameter("0 takes `weights` as they are", "epochs", 0, 100_000)]
    workers: Annotated[
        Count | Literal["auto"],
        parameter("processes; auto: one a core or GPU, at most one a shard", "processes"),
    ]
    all_data: Annotated[
        bool,
        parameter("train on the validation split too, its figures then being those of seen images"),
    ]
    weights: Annotated[
        str | None, parameter("a safetensors file of the same rows to start from; null: none")
    ] = None


def check_train(train: Train) -> Train:
    """Return `train`.

    Raises:
        ValueError: it neither trains nor takes weights.
    """
    if not train.epochs and train.weights is None:
        raise ValueError("epochs is 0 and weights is null; set epochs, or name a safetensors file")
    return train


@dataclass(frozen=True)
class Decompose(Section):
    """The factorization of convolutions."""

    enabled: Annotated[bool, parameter("false passes the trained network on")]
    method: Annotated[
        Literal["tucker", "cp", "spatial"],
        parameter(
            "Tucker-2 or CP or a (k x 1)(1 x k) pair for k x k; pointwise layers take the SVD"
        ),
    ]
    ranks: Annotated[
        Literal["ratio", "energy", "evbmf", "sensitivity", "search"],
        parameter("how ranks are chosen"),
    ]
    ratio: Annotated[
        float, parameter("kept share of each side's channels (ratio)", "share", 0.01, 1)
    ]
    energy: Annotated[
        float, parameter("kept share of the squared singular values (energy)", "share", 0.01, 1)
    ]
    budget: Annotated[float, parameter("MACs left (sensitivity)", "share", 0.05, 1)]
    trials: Annotated[int, parameter("rank sets that are tried (search)", "trials", 1, 100_000)]
    prune_blocks: Annotated[
        int,
        parameter("most blocks removed, one at a time while the score falls", "blocks", 0, 1000),
    ]
    prune_channels: Annotated[
        float, parameter("of every hidden width, by batch-norm scale", "share", 0, 0.9)
    ]
    prune_epochs: Annotated[int, parameter("recovery after each step", "epochs", 0, 10_000)]


@dataclass(frozen=True)
class Finetune(Section):
    """Recovery after the factorization, and the export."""

    enabled: Annotated[bool, parameter("false exports the factorized network as it is")]
    epochs: Annotated[int, parameter("", "epochs", 1, 100_000)]
    lr: Annotated[float, parameter("the schedule's peak", "", 1e-8, 100)]
    freeze: Annotated[
        Literal["nothing", "all-but-convolutions", "all-but-norms-and-head"],
        parameter("what stays as it is"),
    ]
    distillation: Annotated[float, parameter("to the network as it was trained", "weight", 0, 100)]
    augment: Annotated[float, parameter("of the recipe's augmentation", "share", 0, 1)] = 1.0


@dataclass(frozen=True)
class Quantize(Section):
    """Whole numbers of 8 bits instead of floats, the same on every processor."""

    enabled: Annotated[bool, parameter("false submits the float network as it is")]
    calibration: Annotated[
        Literal["minmax", "percentile", "entropy"], parameter("how ranges of activations are found")
    ]
    percentile: Annotated[
        float, parameter("of the magnitudes that a range covers (percentile)", "%", 90, 100)
    ]
    images: Annotated[int, parameter("training images that give the ranges", "images", 1, 100_000)]
    max_loss: Annotated[
        float, parameter("F1 lost at most; beyond it, training, then layers in float", "F1", 0, 1)
    ]
    epochs: Annotated[
        int,
        parameter("quantization-aware ones, where it loses more; 0: none", "epochs", 0, 100_000),
    ] = 10
    lr: Annotated[float, parameter("the schedule's peak in them", "", 1e-8, 100)] = 0.002


@dataclass(frozen=True)
class Report(Section):
    """The page and the figures."""

    bootstrap: Annotated[
        int,
        parameter(
            "resamples behind intervals and the risk of the floor", "resamples", 100, 1_000_000
        ),
    ]
    mistakes: Annotated[int, parameter("worst mistakes shown as pictures", "pictures", 0, 200)]
    sheets: Annotated[bool, parameter("show a contact sheet of each class")]


@dataclass(frozen=True)
class Params(Section):
    """All of params.yaml."""

    seed: Annotated[int, parameter("the root of every random address", "", 0, 2**31 - 1)]
    contest: Contest
    prepare: Prepare
    recipe: Annotated[Recipe, AfterValidator(check_precision)]
    search: Annotated[Search, AfterValidator(check_search)]
    tune: Tune
    train: Annotated[Train, AfterValidator(check_train)]
    decompose: Decompose
    finetune: Finetune
    quantize: Quantize
    report: Report


def load(path: Path = Path("params.yaml")) -> Params:
    """Return the parameters of a project.

    Raises:
        ParamsError: one line for every value that is missing, unknown or out of its range.
    """
    return read(Params, read_yaml(path), str(path), RENAMED)


def load_recipe(path: Path) -> Recipe:
    """Return the recipe in a file of its own, such as the one that the tune stage writes.

    Raises:
        ParamsError: as `load`.
    """
    return read(Recipe, read_yaml(path), str(path), renamed_in("recipe"))


def renamed_in(section: str) -> dict[str, str | None]:
    """Return the renamed and removed parameters of one section, named as inside it."""
    start = f"{section}."
    return {
        old.removeprefix(start): new and new.removeprefix(start)
        for old, new in RENAMED.items()
        if old.startswith(start)
    }
