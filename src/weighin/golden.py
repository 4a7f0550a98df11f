"""Golden values: SHA-256s of what every x86-64 processor with AVX2 computes alike, given the pins.

golden.json holds them as they were recorded; `differences` computes them again and says which are
others here. A machine where none differs rebuilds everybody's bytes, so `make test` and
`weighin doctor` ask. What is hashed is drawn from seeds: no file is read but the record.

`python -m weighin.golden` prints the values of this machine, for a change that is meant.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighin.determinism import generator, pin
from weighin.files import canonical_json, read_json, sha256, write_json

if TYPE_CHECKING:
    from weighin.images import Pixels
    from weighin.network.spec import NetworkSpec
    from weighin.params import Recipe
    from weighin.training.trainer import Job
    from weighin.training.weights import Trained, Weights

RECORD = Path(__file__).with_suffix(".json")
Values = Iterator[tuple[str, Any]]
CLASSES = ("can", "cup", "jar")
SIZE = (24, 32)
# every block: the first network has those that come with the seed, the second one the others
HEAD = ([1, "GlobalAvgPool", []], [1, "Flatten", []], [1, "Linear", ["classes"]])
STEM = [1, "Conv", [16, 3, 2, None, 1, "HardSwish"]]
BLOCK_ROWS: dict[str, list[Any]] = {
    "DWConv": [16, 3, 1, None, "ReLU6"],
    "MaxPool": [3, 2, 1],
    "InvertedResidualv2": [24, 2, 1],
    "InvertedResidualv3": [3, 2, 24, 1, 1, 1],
    "ShuffleNetV2": [2],
    "Conv": [24, 5, 1, None, 4, "SiLU"],
    "Bottleneck": [16, True, 1, 0.5, "HardSigmoid"],
    "AvgPool": [3, 1, 1],
    "MBConv": [2, 24, 2, 3],
    "FusedMBConv": [2, 24, 1, 3],
    "MixNetBlock": [[3, 5], 2, 24, 1, 1, "Sigmoid"],
    "FixedConv": [20, 3, 1, None, 1, "ReLU"],
}
AUGMENTATIONS: dict[str, float] = {
    "flip": 0.5, "flip_vertical": 0.5, "translate": 0.2, "crop": 0.5, "rotate": 20.0, "shear": 9.0,
    "color": 0.4, "cutout": 0.4, "mixup": 0.4, "cutmix": 1.0, "randaugment": 2, "blur": 1.0,
    "dark": 1.0, "noise": 1.0, "jpeg": 1.0,
}  # fmt: skip


def recorded() -> dict[str, str]:
    """Return the values in golden.json by name."""
    values: dict[str, str] = read_json(RECORD)
    return values


def computed(groups: Sequence[Callable[[], Values]] = ()) -> dict[str, str]:
    """Return the values of some groups (all by default) as this process computes them."""
    with contextlib.redirect_stderr(io.StringIO()):  # lines of progress
        return {
            f"{group.__name__}/{name}": sha256(_bytes(value))
            for group in groups or GROUPS
            for name, value in group()
        }


def differences() -> list[str]:
    """Return the names of the values that are not as recorded."""
    here, there = computed(), recorded()
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def onnx_files() -> dict[str, bytes]:
    """Return three small networks as ONNX; together they have every operator of an export."""
    from weighin.compress.factorize import factorize_network
    from weighin.network.build import Factorization
    from weighin.network.export import onnx_bytes

    names = [*BLOCK_ROWS]
    rows = [_rows(*names[:6]), [*_rows(*names[6:])[:-2], HEAD[1], HEAD[2]]]
    found = {name: _trained(rows, name) for name, rows in zip(("seed", "other"), rows, strict=True)}
    ranks = {
        "0.0.conv.0": Factorization("tucker", (2, 6)),
        "1.0.conv.0": Factorization("cp", (4,)),
        "2.0.conv.0": Factorization("spatial", (5,)),
        "3.0.conv.0": Factorization("svd", (3,)),
    }
    convs = [[1, "Conv", [12, k, 1, None, 1, "ReLU"]] for k in (3, 3, 3, 1)]
    dense = _trained([*convs, *HEAD], "factorized")
    found["factorized"] = factorize_network(dense, ranks, len(CLASSES))
    metadata = {"classes": canonical_json(CLASSES), "fallback": CLASSES[0], "turn_tall": "false"}
    return {name: onnx_bytes(x.module(len(CLASSES)), SIZE, metadata) for name, x in found.items()}


def files() -> Values:
    """Yield decoded pictures of each format, perceptual hashes and a packed row of each."""
    import numpy as np
    from PIL import Image

    from weighin.data.prepare import Scan, scan_part
    from weighin.images import load

    picture = Image.fromarray(_pictures("decode", 1, (6, 8))[0]).resize((256, 192))
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "jpeg": ("JPEG", "RGB", {}),
        "progressive": ("JPEG", "RGB", {"progressive": True, "quality": 50}),
        "grey": ("JPEG", "L", {}),
        "cmyk": ("JPEG", "CMYK", {}),
        "png": ("PNG", "RGB", {}),
        "palette": ("PNG", "P", {}),
        "alpha": ("PNG", "RGBA", {}),
        "sixteen-bit": ("PNG", "I;16", {}),
        "webp": ("WEBP", "RGB", {}),
        "avif": ("AVIF", "RGB", {"max_threads": 1}),
        "jpeg2000": ("JPEG2000", "RGB", {}),
        "bmp": ("BMP", "RGB", {}),
        "gif": ("GIF", "P", {}),
        "tiff": ("TIFF", "RGB", {}),
        "ppm": ("PPM", "RGB", {}),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, (form, mode, options) in kinds.items():
            file = io.BytesIO()
            picture.convert(mode).save(file, form, **options)
            (folder / kind).write_bytes(file.getvalue())
            yield f"decode {kind}", load(file.getvalue(), SIZE).pixels
        draft = folder / "rows"
        draft.write_bytes(bytes(len(kinds) * SIZE[0] * SIZE[1] * 3))
        records = scan_part([*kinds], 0, Scan(folder, (draft,), (SIZE,), True, 8.0))
        yield "packed rows", draft.read_bytes()
        yield "perceptual hashes", np.asarray(records["hash"])


def networks() -> Values:
    """Yield ONNX files and their logits; one of them in whole numbers of 8 bits too."""
    import onnx

    from weighin.grading.model import open_model
    from weighin.grading.runtime import Runner
    from weighin.network.quantized import quantized
    from weighin.params import Quantize

    pictures, files = _pictures("logits", 8, SIZE), onnx_files()
    proto = onnx.load_model_from_string(files["seed"])
    files["quantized"] = quantized(proto, pictures, Quantize(True, "minmax", 99.9, 8, 0.0))
    for name, data in files.items():
        yield f"{name}.onnx", data
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(data)
            yield f"logits of {name}", Runner(open_model(path)).logits(pictures)


def training() -> Values:
    """Yield weights and logits after three steps of each block and optimizer; learning rates."""
    from weighin.training.process_group import ProcessGroup
    from weighin.training.trainer import fit, learning_rate

    recipe = plain_recipe()
    changes: dict[str, dict[str, Any]] = {
        "adamw": {"optimizer": "adamw", "lr": 0.01},
        "no momentum": {"momentum": 0.0},
    }
    with tempfile.TemporaryDirectory() as folder:
        packed = _pack(Path(folder))
        jobs = {name: _job(packed, _rows(name), recipe) for name in BLOCK_ROWS}
        for name, parts in changes.items():
            jobs[name] = _job(packed, _rows("InvertedResidualv3"), replace(recipe, **parts))
        for name, job in jobs.items():
            result = fit(ProcessGroup(), job)
            yield name, [*(result.weights[key] for key in sorted(result.weights)), result.logits]
    for schedule in ("one-cycle", "cosine", "constant"):
        changed = replace(recipe, schedule=schedule)
        yield f"{schedule} rates", str([learning_rate(changed, step, 50) for step in range(50)])


def losses() -> Values:
    """Yield the value and the gradient of each loss."""
    import torch

    from weighin.training.trainer import Criterion

    off = plain_recipe().loss
    off = replace(off, cross_entropy=0.0, smoothing=0.0)
    losses: dict[str, dict[str, float]] = {
        "cross-entropy": {"cross_entropy": 1.0, "smoothing": 0.1},
        "soft F1": {"soft_f1": 1.0},
        "focal": {"focal": 1.0},
        "logit adjustment": {"cross_entropy": 1.0, "logit_adjustment": 1.0},
        "distillation": {},
    }
    random = generator("golden", "losses")
    given, guide = (torch.from_numpy(random.random((16, 9), "f4") * 4) for _ in range(2))
    targets = torch.from_numpy(random.dirichlet([1.0] * 9, 16).astype("f4"))
    prior = torch.from_numpy(random.dirichlet([1.0] * 9).astype("f4"))
    for name, parts in losses.items():
        logits = given.clone().requires_grad_()
        loss = Criterion(replace(off, **parts), prior)(logits, targets, None if parts else guide)
        yield name, [loss.detach().numpy(), torch.autograd.grad(loss, logits)[0].numpy()]


def augmentations() -> Values:
    """Yield a batch after each augmentation, and after each operation of RandAugment."""
    import numpy as np
    from PIL import Image

    from weighin.training.augment import RANDAUGMENT, augment
    from weighin.training.dataset import Backgrounds

    off, batch = plain_recipe().augment, _pictures("augment", 16, SIZE)
    targets = np.eye(len(CLASSES), dtype=np.float32)[np.arange(16) % 3]
    for name, value in AUGMENTATIONS.items():
        knobs = replace(off, **{name: value})  # type: ignore[arg-type]
        yield name, list(augment(batch, targets, generator("golden", name), knobs))
    for name, operation in RANDAUGMENT.items():
        pairs = [(Image.fromarray(pixels), sign) for pixels in batch for sign in (-1, 1)]
        changed = [operation(image, 0.6, sign) for image, sign in pairs]
        yield f"RandAugment {name}", [np.asarray(image) for image in changed]
    papers = np.full_like(batch, 230)
    papers[:, 6:18, 8:24] = batch[:, 6:18, 8:24]
    yield "background", Backgrounds(papers).replaced(np.arange(16), generator("golden"), 1.0)


def compression() -> Values:
    """Yield the factors of each method and the ranks of each rule."""
    import numpy as np

    from weighin.compress.context import Probe
    from weighin.compress.decompose import evbmf_rank, least_divergence, noise_variance
    from weighin.compress.factorize import (
        by_energy,
        by_ratio,
        factors,
        find_factorizable,
        find_layers,
    )
    from weighin.files import JsonCache
    from weighin.network.build import Factorization, ranks_to_dict

    weight = generator("golden", "factors").random((12, 10, 3, 3)) - 0.5
    for how in (
        Factorization("tucker", (4, 5)),
        Factorization("cp", (6,)),
        Factorization("spatial", (5,)),
    ):
        yield f"{how.method} factors", factors(weight, how)
    yield "svd factors", factors(weight[:, :, :1, :1], Factorization("svd", (4,)))
    noisy = weight.reshape(12, 90) + 9 * np.outer(np.arange(12), np.arange(90)) / 990
    values = np.asarray(np.linalg.svd(noisy, compute_uv=False), np.float64)
    found = evbmf_rank(values, noisy.shape), noise_variance(values, *noisy.shape)
    yield "ranks by evbmf", str(found)
    rows = [[1, "Conv", [24, 3, 2, None, 1, "ReLU"]], [1, "Conv", [32, 3, 2]], [1, "Conv", [48, 1]]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = _trained([*rows, *HEAD], "ranks")
        probe = Probe(_pack(folder), network, 1)
        layers = find_factorizable(find_layers(network.spec, len(CLASSES)), "tucker", probe)
        yield "ranks by ratio", str([by_ratio(layer, 0.4) for layer in layers])
        yield "ranks by energy", str([by_energy(layer, 0.8) for layer in layers])
        saving = sum(layer.layer.macs for layer in layers) // 4
        ranks = least_divergence(layers, probe, saving, JsonCache(folder / "cache.json"))
        yield "ranks by sensitivity", str(ranks_to_dict(ranks))
        chosen = [(layer, ranks[layer.path]) for layer in layers if layer.path in ranks]
        yield "approximations", [layer.approximation(how) for layer, how in chosen]


def statistics() -> Values:
    """Yield a bootstrap, a calibration, the first asks of each sampler, and a figure."""
    import numpy as np

    from weighin.grading.risk import bootstrap
    from weighin.grading.score import confusion_of_indices
    from weighin.report.evaluation import calibrate
    from weighin.report.figures import confusion_matrix
    from weighin.report.inputs import ValidationPredictions

    random = generator("golden", "statistics")
    truth = random.integers(0, 3, 200)
    logits = random.random((200, 3), "f4") * 4 + np.eye(3, dtype=np.float32)[truth]
    table = confusion_of_indices(truth, logits.argmax(1), CLASSES)
    yield "bootstrap", list(bootstrap(table, 500, 1))
    found = calibrate(ValidationPredictions(CLASSES, ("",) * 200, truth, logits))
    yield "calibration", [found.images, found.confidence, found.accuracy, np.float64(found.error)]
    for name in ("tpe", "nsga2", "random"):
        yield f"{name} asks", str(_asks(name))
    yield "figure", confusion_matrix(table)


GROUPS = (files, networks, training, losses, augmentations, compression, statistics)


def _asks(name: str) -> list[tuple[float, int, str]]:
    """Return what a sampler asks for in sixteen trials of two objectives."""
    import optuna

    from weighin.search.space import sampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, asked = optuna.create_study(directions=["maximize", "minimize"]), []
    for number in range(16):
        study.sampler = sampler(name, 4, number)
        trial = study.ask()
        lr, width = trial.suggest_float("lr", 1e-3, 1, log=True), trial.suggest_int("width", 1, 9)
        block = trial.suggest_categorical("block", ["a", "b", "c"])
        study.tell(trial, (abs(lr - 0.1) + width, 9 - width))
        asked.append((lr, width, block))
    return asked


def plain_recipe() -> "Recipe":
    """Return a recipe of small batches without augmentation; the tests' recipes change it."""
    from weighin.params import Augment, Loss, Recipe

    off: dict[str, Any] = {field.name: 0 for field in fields(Augment)} | {"crop": 1, "magnitude": 9}
    loss: dict[str, Any] = {field.name: 0.0 for field in fields(Loss)} | {"cross_entropy": 1.0}
    return Recipe(
        shards=2,
        shard_size=4,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-3,
        schedule="one-cycle",
        warmup=0.2,
        ema=0.9,
        balance=0.5,
        low_resolution=0.0,
        augment=Augment(**off),
        loss=Loss(**loss | {"smoothing": 0.1, "focal_gamma": 2.0, "temperature": 2.0}),
    )


def _rows(*names: str) -> list[Any]:
    return [STEM, *([1, name, BLOCK_ROWS[name]] for name in names), *HEAD]


def _spec(rows: list[Any]) -> "NetworkSpec":
    from weighin.network.spec import NetworkSpec

    return NetworkSpec.from_dict({"input": list(SIZE), "width": 1.0, "rows": rows})


def _job(packed: Path, rows: list[Any], recipe: "Recipe") -> "Job":
    from weighin.training.trainer import Job

    return Job(_spec(rows), recipe, 1, packed, ("golden", "train"))


def _trained(rows: list[Any], address: str) -> "Trained":
    """Return a network with drawn weights, and batch norms as a training leaves them."""
    import numpy as np

    from weighin.network.build import build, initialize
    from weighin.training.weights import Trained, module_weights

    module = build(_spec(rows), len(CLASSES))
    initialize(module, "golden", address)
    random = generator("golden", address, "norms")
    drawn: Weights = {
        name: array + random.random(array.shape, np.float32) if array.ndim == 1 else array
        for name, array in module_weights(module).items()
    }
    return Trained(_spec(rows), drawn)


def _pack(folder: Path) -> Path:
    """Write a pack of 24 training images and 9 others into a folder."""
    from weighin.data.pack import COLUMNS, array_path, write_array, write_table

    rows = []
    for split, count in (("train", 24), ("validation", 9)):
        pictures = _pictures(split, count, SIZE)
        write_array(array_path(folder, split, SIZE), [pictures], pictures.shape)
        rows += [(split, i, CLASSES[i % 3], f"{split}/{i}", "", "") for i in range(count)]
    write_table(folder / "images.csv", rows, COLUMNS)
    write_json(folder / "classes.json", list(CLASSES))
    return folder


def _pictures(address: str, count: int, size: tuple[int, int]) -> "Pixels":
    import numpy as np

    return generator("golden", address).integers(0, 256, (count, *size, 3), np.uint8)


def _bytes(value: Any) -> bytes:
    """Return a text, bytes, an array or a list of them as bytes."""
    if isinstance(value, list):
        return b"".join(map(_bytes, value))
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else bytes(value.tobytes())


if __name__ == "__main__":
    pin()  # a no-op where the environment has the pins
    print(canonical_json(computed()), end="")
