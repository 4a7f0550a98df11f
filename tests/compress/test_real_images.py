"""On photographs: what is exported computes what was trained, factorized layers and all."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from weighin.compress.factorize import factorize_network
from weighin.determinism import generator
from weighin.grading.model import open_model
from weighin.grading.recount import recount
from weighin.grading.runtime import Runner
from weighin.images import load, normalize
from weighin.network.build import Factorization, build, initialize
from weighin.network.cost import folded_macs
from weighin.network.export import export_onnx
from weighin.network.spec import read_spec, shipped
from weighin.training.weights import Trained, module_weights

FOLDER = Path(os.environ.get("WEIGHIN_DATA", "data")) / "waste7" / "train"
CLASSES = tuple("ABCDEFG")
COUNT = 96
RANKS = {
    "small": {
        "2.0.conv.0": Factorization("svd", (5,)),
        "0.0.conv.0": Factorization("tucker", (2, 5)),
        "7.0.conv.0": Factorization("svd", (16,)),
    },
    "seed": {
        "0.0.conv.0": Factorization("spatial", (8,)),
        "6.0.conv.0": Factorization("svd", (30,)),
    },
}


@pytest.mark.skipif(not FOLDER.is_dir(), reason="WEIGHIN_DATA holds no waste7")
@pytest.mark.parametrize("name", ["small", "seed"])
def test_the_file_computes_what_the_module_does(name, tmp_path):
    spec, ranks = read_spec(shipped(name)), RANKS[name]
    pixels = photographs(spec.input)
    network = settled(Trained(spec, initial(spec)), pixels)
    module = factorize_network(network, ranks, len(CLASSES)).module(len(CLASSES))
    facts = {"classes": json.dumps(CLASSES), "fallback": "A", "turn_tall": "false"}
    export_onnx(module, spec.input, tmp_path / "model.onnx", facts)
    model = open_model(tmp_path / "model.onnx")
    got = Runner(model).logits(pixels)
    with torch.no_grad():
        wanted = module(torch.from_numpy(normalize(pixels))).numpy()
    assert np.abs(got - wanted).max() < 1e-5 * max(1.0, np.abs(wanted).max())
    assert (got.argmax(1) == wanted.argmax(1)).all()
    assert len(set(got.argmax(1))) > 1  # they do not all get one label
    assert recount(model).macs == folded_macs(spec, len(CLASSES), ranks)


def photographs(size: tuple[int, int]) -> np.ndarray:
    paths = sorted(path for path in FOLDER.rglob("*") if path.is_file())
    chosen = paths[:: len(paths) // COUNT][:COUNT]
    return np.stack([load(path.read_bytes(), size).pixels for path in chosen])


def initial(spec):
    module = build(spec, len(CLASSES))
    initialize(module, 3)
    weights = module_weights(module)
    head = [name for name, array in weights.items() if array.ndim == 2]
    for name in head:
        weights[name] = generator(3, name).standard_normal(weights[name].shape).astype("float32")
    return weights


def settled(network: Trained, pixels: np.ndarray) -> Trained:
    """Return the network with the statistics of these photographs in its norms."""
    module = network.module(len(CLASSES)).train()
    with torch.no_grad():
        for _ in range(30):
            module(torch.from_numpy(normalize(pixels)))
    return Trained(network.spec, module_weights(module))
