"""How the time of each part grows with images, classes and trials: `python -m bench.scale`.

    scale.report_1000_vs_100_classes  CPU time of the report of 20,000 images at 1,000 classes, over
                                      that at 100; images and logits are drawn
    scale.train_1000_vs_100_classes   CPU time of the train stage of one epoch, likewise
    scale.report_page_mb              size of report.html at 1,000 classes
    scale.import_vs_copy              time of `weighin import` of 100,000 files, of copying them one
                                      by one
    scale.<part>                      growth exponent of a part: the slope of log CPU time over log
                                      size by least squares, 1 where twice the size takes twice the
                                      time. What a part costs at its smallest size counts too, so a
                                      constant part makes it smaller, never larger

A part runs in a process of its own and gives its own CPU time and that of the processes that it
started; imports are done before. The table of times is in docs/scale.md, its picture beside it.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import Figures, figure, told
from bench.pages import markdown, put
from weighin.determinism import generator, pin
from weighin.parallel import cores

COMMAND = "python -m bench.scale"
ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "docs/scale.md", ROOT / "docs/scale.svg"
SIDE = 24  # pixels
IMAGES = 20_000  # of the comparison of classes
FILES = 100_000  # of the comparison of an import with copying
RIGHT = 0.6  # share of the drawn logits that are right


def figures(quick: bool = False) -> Figures:
    """Return this part's figures."""
    images = 10_000 if quick else IMAGES
    report = {k: measured("report", images, k) for k in (100, 1000)}
    train = {k: measured("train", images, k)["seconds"] for k in (100, 1000)}
    found = {
        "scale.report_1000_vs_100_classes": figure(
            [report[1000]["seconds"] / report[100]["seconds"]], "ratio", "at most 3", COMMAND
        ),
        "scale.train_1000_vs_100_classes": figure(
            [train[1000] / train[100]], "ratio", "at most 1.5", COMMAND
        ),
        "scale.report_page_mb": figure([report[1000]["page_mb"]], "MB", "under 5", COMMAND),
        "scale.import_vs_copy": figure(
            [measured("import_vs_copy", FILES // 10 if quick else FILES)["ratio"]],
            "ratio",
            "at most 2",
            COMMAND,
        ),
    }
    times: dict[str, dict[int, float]] = {}
    for part, (_, sizes) in PARTS.items():
        chosen = sizes[:-1] if quick else sizes
        times[part] = {size: measured(part, size)["seconds"] for size in chosen}
        print(
            part, *(f"{size:,}: {spent:.2f} s" for size, spent in times[part].items()), flush=True
        )
        found[f"scale.{part}"] = figure([exponent(times[part])], "exponent", "at most 1.1", COMMAND)
    if not quick:
        write_page(times)
    return found


def exponent(times: dict[int, float]) -> float:
    """Return the slope of log time over log size, by least squares."""
    import numpy as np

    return float(np.polyfit(np.log([*times]), np.log([*times.values()]), 1)[0])


def spelled(times: dict[int, float]) -> str:
    """Return times as text."""
    return "; ".join(f"{size:,}: {spent:.2f}" for size, spent in times.items())


def measured(part: str, *arguments: int) -> Any:
    """Return what a process of its own finds of a part."""
    line = [sys.executable, "-m", "bench.scale", "--measure", part, *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def cpu() -> float:
    """Return the CPU seconds of this process and of those that it started and awaited."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Return the CPU seconds of `work`."""
    gc.collect()
    start = cpu()
    work()
    return {"seconds": cpu() - start}


def draw(root: Path, images: int, classes: int) -> None:
    """Write drawn pictures as `root`/<class>/<number>.png, each unlike the others."""
    for k in range(classes):
        (root / f"class-{k:04d}").mkdir(parents=True)
    step = -(-images // (4 * cores()))
    pieces = [(root, k, min(k + step, images), classes) for k in range(0, images, step)]
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:
        list(pool.map(draw_some, pieces))


def draw_some(piece: tuple[Path, int, int, int]) -> None:
    """Write the pictures of some numbers: eight by eight drawn colors, enlarged."""
    import numpy as np
    from PIL import Image

    root, start, stop, classes = piece
    for k in range(start, stop):
        colors = generator("scale", k).integers(0, 256, (8, 8, 3), np.uint8)
        image = Image.fromarray(colors).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(root / f"class-{k % classes:04d}" / f"{k:07d}.png", compress_level=1)


def prepared(images: int, classes: int) -> Any:
    """Draw data/, prepare it into work/prepare, and return the parameters."""
    from weighin.data.prepare import prepare
    from weighin.params import load

    params = load(ROOT / "params.yaml")
    knobs = replace(params.prepare, sizes=((SIDE, SIDE),))
    params = replace(params, prepare=knobs)
    draw(Path("data/train"), images, classes)
    prepare(Path("data"), Path("work/prepare"), knobs, 0, cores())
    return params


def network() -> Any:
    """Return the shipped small network, at the size of the drawn pictures."""
    from weighin.network.spec import read_spec, shipped

    return replace(read_spec(shipped("small")), input=(SIDE, SIDE))


def train(images: int, classes: int) -> dict[str, float]:
    """Measure the train stage, one epoch, one worker."""
    from weighin.training.train import train

    params = prepared(images, classes)
    params = replace(params, train=replace(params.train, epochs=1, workers=1))
    folders = (Path("work/train"), Path("scratch"))
    folders[1].mkdir()
    return timed(lambda: train(Path("work/prepare"), network(), params.recipe, params, *folders))


def report(images: int, classes: int = 100) -> dict[str, float]:
    """Measure the report of drawn logits."""
    import numpy as np

    from weighin.data.pack import read_packed
    from weighin.files import write_csv
    from weighin.network.build import build, initialize
    from weighin.network.export import export_onnx
    from weighin.report.inputs import Inputs
    from weighin.report.page import write_report

    params = prepared(images, classes)
    held = read_packed(Path("work/prepare"), "validation", (SIDE, SIDE))
    random = generator("logits")
    logits = random.standard_normal((len(held.labels), classes)).astype(np.float32)
    right = random.random(len(held.labels)) < RIGHT
    logits[right, held.labels[right]] += 8
    Path("work/finetune").mkdir()
    np.save("work/finetune/validation_logits.npy", logits)
    spec = network()
    module = build(spec, classes)
    initialize(module, 0)
    facts = {"fallback": held.classes[0], "turn_tall": "false"}
    metadata = {"classes": json.dumps(held.classes), **facts}
    export_onnx(module.eval(), spec.input, Path("submission/model.onnx"), metadata)
    write_csv(Path("submission/submission.csv"), ("filename", "class"), ())
    found = timed(lambda: write_report(Inputs(), params, Path("submission")))
    return found | {"page_mb": Path("submission/report.html").stat().st_size / 1e6}


def prepare(images: int) -> dict[str, float]:
    """Measure the prepare stage."""
    from weighin.data.prepare import prepare
    from weighin.params import load

    params = load(ROOT / "params.yaml").prepare
    draw(Path("data/train"), images, 10)
    knobs = replace(params, sizes=((SIDE, SIDE),))
    return timed(lambda: prepare(Path("data"), Path("work/prepare"), knobs, 0, cores()))


def near_duplicates(images: int) -> dict[str, float]:
    """Measure the pairs among drawn hashes, every hundredth one bit from another."""
    import numpy as np

    from weighin.data.faults import close_pairs

    hashes = generator("hashes").integers(0, 2**64, images, np.uint64)
    hashes[::100] = hashes[1::100][: len(hashes[::100])] ^ np.uint64(1)
    return timed(lambda: close_pairs(hashes, 4))


def video(images: int) -> dict[str, float]:
    """Measure the pairs among the frames of two videos, and which of them an earlier one is near.

    Half the frames are a bit from the one before, half up to six bits from one that stands still.
    """
    import numpy as np

    from weighin.data.faults import close_pairs, near_an_earlier

    flips = np.uint64(1) << generator("video").integers(0, 64, (7, images // 2), np.uint64)
    moving, still = np.bitwise_xor.accumulate(flips[0]), np.bitwise_xor.reduce(flips[1:])
    hashes = np.concatenate([moving, still])
    return timed(lambda: (close_pairs(hashes, 4), near_an_earlier(hashes, 4)))


def split(images: int) -> dict[str, float]:
    """Measure the split of drawn records of 100 classes, every tenth of a group of ten."""
    import numpy as np

    from weighin.data.faults import RECORD
    from weighin.data.splits import Images, split_images

    random = generator("split")
    records = np.zeros(images, RECORD)
    records["sha256"] = np.frombuffer(random.bytes(32 * images), "S32")
    groups = [f"g{k // 100}" if k % 10 == 0 else "" for k in range(images)]
    classes, labels = tuple(f"c{k:03d}" for k in range(100)), np.arange(images) * 100 // images
    names = [f"{classes[labels[k]]}/{k}.png" for k in range(images)]
    guessed, no_split, places = [False] * images, [""] * images, np.arange(images)
    drawn = Images(names, places, records, groups, guessed, no_split, classes, labels)
    pairs = np.stack([places[:-1:50], places[1::50]], axis=1)
    return timed(lambda: split_images(drawn, pairs, 0.2, 0))


def imported(images: int) -> dict[str, float]:
    """Measure `weighin import` of a folder."""
    from weighin.data.importing import import_data

    draw(Path("source"), images, 10)
    return timed(lambda: import_data(Path("source"), Path("data")))


def import_vs_copy(images: int) -> dict[str, float]:
    """Measure the wall clock of an import over that of copying, the middle of three turns."""
    from weighin.data.importing import import_data

    draw(Path("source"), images, 10)
    ratios = []
    for turn in range(3):
        start = time.perf_counter()
        shutil.copytree("source", f"copy-{turn}")
        copied = time.perf_counter() - start
        start = time.perf_counter()
        import_data(Path("source"), Path(f"data-{turn}"))
        ratios.append((time.perf_counter() - start) / copied)
        for name in (f"copy-{turn}", f"data-{turn}"):
            shutil.rmtree(name)
    return {"ratio": median(ratios)}


def halving(trials: int) -> dict[str, float]:
    """Measure the order by gain of a generation, for a front."""
    from weighin.grading.score import Metrics
    from weighin.search.study import by_gain

    random = generator("halving")
    f1s, macs = random.random(trials), random.integers(1, 10**7, trials)
    drawn = [Metrics(float(f1), 0.0, int(m), 1) for f1, m in zip(f1s, macs, strict=True)]
    return timed(lambda: by_gain(drawn, lambda one: one, 10**7))


def tpe(trials: int) -> dict[str, float]:
    """Measure one ask of the TPE sampler after so many trials."""
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    from weighin.search.space import sampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: FloatDistribution(0, 1) for name in "abcdefgh"}
    study = optuna.create_study(directions=["minimize"])
    for values in generator("tpe").random((trials, len(space))).tolist():
        named = dict(zip(space, values, strict=True))
        value = sum(values)
        state = TrialState.COMPLETE
        study.add_trial(
            create_trial(state=state, params=named, distributions=dict(space), value=value)
        )

    def ask(times: int) -> None:
        for _ in range(times):
            study.sampler = sampler("tpe", 8, 0)
            study.ask(dict(space))

    ask(1)
    return {"seconds": timed(lambda: ask(5))["seconds"] / 5}


def noop_repro(images: int) -> dict[str, float]:
    """Measure `dvc status` of a data set that is recorded and unchanged."""
    draw(Path("data/train"), images, 10)
    commands = (("git", "init", "-q"), ("dvc", "init", "-q"), ("dvc", "add", "-q", "data"))
    for command in commands:
        run(*command)
    run("dvc", "status", "-q")
    return timed(lambda: run("dvc", "status", "-q"))


def run(*command: str) -> None:
    """Run a command of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | quiet)


ALONE: dict[str, Callable[..., dict[str, float]]] = {
    "train": train,
    "report": report,
    "import_vs_copy": import_vs_copy,
}
PARTS: dict[str, tuple[Callable[..., dict[str, float]], tuple[int, ...]]] = {
    "prepare": (prepare, (1_250, 2_500, 5_000, 10_000)),
    "near_duplicates": (near_duplicates, (25_000, 50_000, 100_000, 200_000)),
    "video": (video, (1_250, 2_500, 5_000, 10_000)),
    "split": (split, (25_000, 50_000, 100_000, 200_000)),
    "import": (imported, (1_250, 2_500, 5_000, 10_000)),
    "noop_repro": (noop_repro, (1_250, 2_500, 5_000, 10_000)),
    "report_images": (report, (1_250, 2_500, 5_000, 10_000)),
    "report_classes": (lambda classes: report(10_000, classes), (125, 250, 500, 1_000)),
    "train_classes": (lambda classes: train(10_000, classes), (125, 250, 500, 1_000)),
    "halving": (halving, (2_000, 4_000, 8_000, 16_000)),
    "tpe": (tpe, (125, 250, 500, 1_000)),
}


def write_page(times: dict[str, dict[int, float]]) -> None:
    """Write the table of times into its page, and the picture beside it."""
    from weighin.files import write_text

    rows = []
    for part, spent in times.items():
        rows.append((f"`scale.{part}`", spelled(spent), f"{exponent(spent):.2f}"))
    table = markdown(("part", "size: CPU seconds", "exponent"), rows)
    put(PAGE, "scale", f"![CPU seconds against size, both logarithmic](scale.svg)\n\n{table}")
    write_text(PICTURE, drawn(times))


def drawn(times: dict[str, dict[int, float]]) -> str:
    """Return an SVG of time against size, both on logarithmic axes."""
    from weighin.report.formatting import GRID, canvas, saved, style

    with style("scale"):
        picture, axes = canvas(7.2, 4.8, left=0.7, bottom=1.3, right=0.1, top=0.1)
        for part, spent in times.items():
            axes.loglog([*spent], [*spent.values()], "o-", markersize=4, label=part)
        axes.loglog([100, 200_000], [0.01, 20], color=GRID, linewidth=1.5, label="exponent 1")
        axes.set(xlabel="images, classes or trials", ylabel="CPU seconds")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, handletextpad=0.4)
        return saved(picture)


def main() -> None:
    """Measure one part in a folder of its own and print it, or all of them."""
    if sys.argv[1:2] != ["--measure"]:
        print(told(figures(bool(os.environ.get("QUICK")))))
        return
    part, *numbers = sys.argv[2:]
    work = ALONE[part] if part in ALONE else PARTS[part][0]
    with tempfile.TemporaryDirectory(prefix="weighin-scale-") as folder:
        os.chdir(folder)
        found = work(*map(int, numbers))
        os.chdir(ROOT)
    print(json.dumps(found))


if __name__ == "__main__":
    pin()
    main()
