"""A made project: the outputs that the other stages leave, small enough to work out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from weighin.files import sha256_file, write_csv, write_json, write_text
from weighin.params import Contest, Params, Report, load

ROOT = Path(__file__).parents[2]
HOSTILE = '"><script>alert(1)'
CLASSES = (HOSTILE, "Glass|$x$ & co", "Metal")
# the truth and the label of the validation images, by class number
TRUTH = (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)
LABEL = (0, 0, 0, 1, 1, 1, 2, 2, 2, 2)
COLOURS = ((0, 0, 255), (0, 255, 0), (255, 0, 0))


def make_project(root: Path) -> Path:
    write_prepare(root)
    write_model(root / "submission/model.onnx")
    names = [f"t{place}.png" for place in range(4)]
    labels = [CLASSES[k] for k in (0, 1, 2, 2)]
    truth = [CLASSES[k] for k in (0, 1, 2, 1)]
    header = ("filename", "class")
    write_csv(root / "submission/submission.csv", header, zip(names, labels, strict=True))
    write_csv(root / "data/test_truth.csv", header, zip(names, truth, strict=True))
    write_search(root)
    write_training(root)
    write_text(root / "data.dvc", "outs:\n- md5: 0123456789abcdef.dir\n  path: data\n")
    return root


def write_prepare(root: Path) -> None:
    rows, pixels = [], []
    for place, label in enumerate((*TRUTH, *TRUTH, *TRUTH)):
        split = "validation" if place < len(TRUTH) else "train"
        name = f"{CLASSES[label]}/{place:02d} <i>.png"
        path = root / "data/train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if split == "validation":
            pixels.append(np.full((8, 8, 3), COLOURS[label], np.uint8))
        Image.new("RGB", (24 + place, 16), COLOURS[label]).save(path)
        row = place if split == "validation" else place - len(TRUTH)
        rows.append((split, row, CLASSES[label], name, "", sha256_file(path)))
    folder = root / "work/prepare"
    write_csv(folder / "images.csv", ("split", "row", "class", "name", "group", "sha256"), rows)
    write_json(folder / "classes.json", list(CLASSES))
    np.save(folder / "validation_8x8.npy", np.stack(pixels))
    write_json(folder / "report.json", data_report())
    (folder / "pictures").mkdir()
    for name in (*CLASSES, "-pairs"):
        Image.new("RGB", (64, 32), (9, 99, 199)).save(folder / "pictures" / f"{name}.jpg")


def data_report() -> dict[str, Any]:
    splits = {
        "train": dict(zip(CLASSES, (8, 6, 6), strict=True)),
        "validation": dict(zip(CLASSES, (4, 3, 3), strict=True)),
    }
    faults = [
        {"fault": "truncated", "name": "Metal/<b>.jpg", "done": "dropped", "detail": ""},
        {"fault": "duplicate", "name": "Metal/2.jpg", "done": "dropped", "detail": "Metal/1.jpg"},
    ]
    return {
        "files": 32,
        "images": 30,
        "classes": dict(zip(CLASSES, (12, 9, 9), strict=True)),
        "imbalance": 1.3333,
        "splits": splits,
        "groups": 0,
        "fault_counts": {"duplicate": 1, "truncated": 1},
        "faults": faults,
        "near_duplicates": {"pairs": 3, "across_classes": 1, "shown": []},
    }


def write_model(path: Path) -> None:
    """Write a network of 192 + 12 = 204 MACs and 12 parameters: mean colour, then a matrix."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], name="head", transB=1),
    ]
    tensors = {"w": np.eye(3, dtype=np.float32)[::-1], "b": np.zeros(3, np.float32)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {"classes": json.dumps(CLASSES), "fallback": "Metal", "turn_tall": "true"}
    helper.set_model_props(model, facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def write_search(root: Path) -> None:
    write_text(root / "work/search/network.yaml", "input: [8, 8]\nwidth: 1.0\nrows:\n- <row>\n")
    trials = [trial(n, 1_000_000 + 300_000 * n, 0.5 + 0.02 * n) for n in range(6)]
    trials += [trial(6, 1_500_000, 0.45), trial(7, 900_000, None, "pruned")]
    trials.append(trial(8, 90_000_000, None, "over-budget"))
    study = {"trials": trials, "chosen": 3, "why": "The lowest <score> of the front."}
    write_json(root / "work/search/trials.json", study)
    recipe = {"lr": 0.1, "loss": {"focal": 0.5}}
    write_json(root / "work/tune/recipe.json", recipe)
    one = {**trial(0, 1_900_000, 0.57), "params": recipe}
    write_json(root / "work/tune/trials.json", {"trials": [one], "chosen": 0, "why": "Only one."})


def trial(number: int, macs: int, f1: float | None, state: str = "complete") -> dict[str, Any]:
    score = None if f1 is None else macs / 13_865_375 + 1 - f1 / 0.83656
    return {
        "number": number,
        "state": state,
        "macs": macs,
        "f1": f1,
        "score": score,
        "params": {},
        "expected": None if score is None else score + 0.01,
        "under_floor": None if score is None else 0.125,
    }


def write_training(root: Path) -> None:
    epochs = [{"epoch": n, "loss": 2.0 / (n + 1), "lr": 0.1} for n in range(8)]
    epochs = [
        row | ({"f1": n / 10, "accuracy": n / 8} if n % 2 else {}) for n, row in enumerate(epochs)
    ]
    write_json(root / "work/train/history.json", epochs)
    write_json(root / "work/finetune/history.json", epochs[:3])
    layers = [
        layer("stage<1>.conv", "tucker", [3, 4], 900, 400, 0.25, 0.01),
        layer("head", None, None, 100, 100, None, None),
    ]
    write_json(root / "work/decompose/layers.json", layers)
    write_text(root / "work/decompose/network.yaml", "input: [8, 8]\nwidth: 1.0\nrows:\n- <cut>\n")
    write_json(root / "work/finetune/choice.json", {"why": "the network <a> is exported"})
    write_text(root / "work/finetune/network.yaml", "input: [8, 8]\nwidth: 1.0\nrows:\n- <end>\n")
    np.save(root / "work/finetune/validation_logits.npy", make_logits())


def layer(path: str, method: str | None, ranks: Any, *figures: Any) -> dict[str, Any]:
    names = ("macs_before", "macs_after", "error", "sensitivity")
    head = {"path": path, "shape": [8, 4, 3, 3], "method": method, "ranks": ranks}
    return head | dict(zip(names, figures, strict=True))


def make_logits() -> Any:
    """Softmax of (log 34/3, 0, 0) is (0.85, 0.075, 0.075); the mistake of image 6 is surer."""
    logits = np.zeros((len(LABEL), 3), np.float32)
    logits[np.arange(len(LABEL)), LABEL] = np.log(34 / 3)
    logits[6, LABEL[6]] = np.log(38)  # (0.95, 0.025, 0.025)
    return logits


def make_params() -> Params:
    """The project's parameters, those that a report shows being fixed."""
    params = load(ROOT / "params.yaml")
    return replace(
        params,
        seed=1,
        contest=Contest("waste", 20_000_000, 13_865_375, 4_214_841, 0.83656, 0.5),
        train=replace(params.train, all_data=False),
        report=Report(bootstrap=1000, mistakes=5, sheets=True),
    )
