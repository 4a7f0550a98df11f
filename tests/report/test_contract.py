"""What the other stages really write is what the report reads."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from weighin.compress.decompose import LayerRow
from weighin.data.pack import read_table
from weighin.data.prepare import prepare
from weighin.files import write_json
from weighin.params import Params
from weighin.report.inputs import CLASSES, DATASET, LAYERS, Layer


def test_prepares_report_is_read(tmp_path: Path, params: Params) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        for place in range(8):
            path = tmp_path / f"data/train/{name}/{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(path)
    (tmp_path / "data/train/a/torn.png").write_bytes(b"torn")
    out = tmp_path / "prepare"
    knobs = replace(params.prepare, sizes=((8, 8),), group="none")
    prepare(tmp_path / "data", out, replace(knobs, validation=0.25), 1, 1)
    assert CLASSES.validate_python(json.loads((out / "classes.json").read_text())) == ("a", "b")
    found = DATASET.validate_python(json.loads((out / "report.json").read_text()))
    assert (found.files, found.images, found.imbalance) == (17, 16, 1.0)
    assert found.fault_counts == {"not-an-image": 1}
    assert found.faults[0].name == "a/torn.png"
    splits = [row["split"] for row in read_table(out)]
    for split, counts in asdict(found.splits).items():
        assert sum(counts.values()) == splits.count(split) > 0
    assert {path.name for path in (out / "pictures").iterdir()} >= {"a.jpg", "b.jpg"}


def test_the_table_of_layers_is_read(tmp_path: Path) -> None:
    rows = [
        LayerRow("stem", (16, 3, 3, 3), 100, 100),
        LayerRow("body", (16, 8, 3, 3), 900, 400, "tucker", (3, 4), 0.25, -0.01),
    ]
    write_json(tmp_path / "layers.json", [asdict(row) for row in rows])
    assert LAYERS.validate_python(json.loads((tmp_path / "layers.json").read_text())) == (
        Layer("stem", (16, 3, 3, 3), 100, 100),
        Layer("body", (16, 8, 3, 3), 900, 400, "tucker", (3, 4), 0.25, -0.01),
    )
