"""The finetune stage: the exact loop, a kill in the middle, and the better network exported."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import CLASSES, RECIPE, SPEC, make_params, untrained

from weighin.compress.context import CompressionContext, read_network, read_ranks, write_network
from weighin.compress.factorize import factorize_network
from weighin.compress.finetune import finetune
from weighin.data.pack import read_packed
from weighin.determinism import PINS
from weighin.errors import NetworkError
from weighin.grading.model import open_model
from weighin.grading.recount import recount
from weighin.grading.runtime import Runner
from weighin.grading.score import Metrics, confusion_of_indices, score
from weighin.images import normalize
from weighin.network.build import Factorization
from weighin.params import Recipe
from weighin.report.inputs import HISTORY
from weighin.training.augment import weaker
from weighin.training.weights import Trained

RANKS = {
    "1.0.conv.0": Factorization("tucker", (6, 12)),
    "1.1.conv.0": Factorization("tucker", (4, 8)),
    "2.0.conv.0": Factorization("svd", (4,)),
}
DEAR, CHEAP = 200_000, 13_865_375  # MACs that cost a point: where they are dear, fewer win
FILES = ("choice.json", "history.json", "network.yaml", "ranks.yaml", "validation_logits.npy")
FILES += ("weights.safetensors",)


@pytest.fixture(scope="module")
def small(network: Trained) -> Trained:
    """The trained network with three layers factorized."""
    return factorize_network(network, RANKS, len(CLASSES))


def run(
    packed: Path, given: Trained, teacher: Trained, folder: Path, price: int = DEAR,
    recipe: Recipe = RECIPE, **knobs,
) -> dict[str, bytes]:  # fmt: skip
    params = make_params(finetune=knobs, contest={"reference_macs": price})
    out, model, scratch = folder / "out", folder / "out/model.onnx", folder / "scratch"
    finetune(CompressionContext(packed, teacher, recipe, params, scratch), given, out)
    return {name: (out / name).read_bytes() for name in FILES} | {"model": model.read_bytes()}


def test_a_share_of_the_augmentation_is_finetuned_with(packed, network, small, tmp_path):
    whole = replace(RECIPE, augment=replace(RECIPE.augment, flip=0.5, crop=0.2, dark=0.8))
    half = replace(whole, augment=weaker(whole.augment, 0.5))
    arms = {"share": (whole, 0.5), "recipe": (half, 1.0), "whole": (whole, 1.0)}
    found = {
        name: run(packed, small, network, tmp_path / name, recipe=recipe, epochs=2, augment=share)
        for name, (recipe, share) in arms.items()
    }
    assert found["share"] == found["recipe"]
    assert found["share"]["weights.safetensors"] != found["whole"]["weights.safetensors"]


def test_the_exported_file_is_what_the_files_say(packed, network, small, tmp_path):
    files = run(packed, small, network, tmp_path, epochs=2, lr=0.01)
    choice = json.loads(files["choice.json"])
    assert choice["exported"] == "finetuned"
    assert [row.epoch for row in HISTORY.validate_json(files["history.json"])] == [1, 2]
    model, held = (
        open_model(tmp_path / "out/model.onnx"),
        read_packed(packed, "validation", SPEC.input),
    )
    assert (model.classes, model.fallback, model.turn_tall) == (CLASSES, "cup", True)
    logits = np.load(tmp_path / "out/validation_logits.npy")
    assert logits.dtype == np.float32
    assert np.array_equal(logits, Runner(model).logits(np.asarray(held.images)))
    exported = read_network(tmp_path / "out")
    assert exported.ranks == RANKS
    with torch.no_grad():
        own = exported.module(3)(torch.from_numpy(normalize(held.images))).numpy()
    np.testing.assert_allclose(logits, own, rtol=0, atol=1e-5 * np.abs(own).max())
    assert (logits.argmax(1) == own.argmax(1)).all()
    found, count = confusion_of_indices(held.labels, logits.argmax(1), CLASSES), recount(model)
    metrics = Metrics(found.f1, found.accuracy, count.macs, count.parameters)
    told = choice["candidates"]["finetuned"]
    contest = make_params(contest={"reference_macs": DEAR}).contest
    assert told["score"] == score(contest, metrics).value
    assert (told["f1"], told["macs"]) == (found.f1, count.macs)
    assert told["macs"] < choice["candidates"]["as trained"]["macs"]


def test_a_worse_bid_leaves_the_network_as_it_was_trained(packed, network, tmp_path):
    ruined = replace(untrained(seed=5), ranks={})
    files = run(packed, ruined, network, tmp_path, CHEAP, epochs=1, lr=1e-6)
    choice = json.loads(files["choice.json"])
    scores = {name: row["score"] for name, row in choice["candidates"].items()}
    assert scores["as trained"] < scores["finetuned"]
    assert choice["exported"] == "as trained"
    assert choice["why"].startswith("the network as trained is exported: expected score")
    exported = read_network(tmp_path / "out")
    assert all(np.array_equal(exported.weights[k], network.weights[k]) for k in network.weights)
    held = read_packed(packed, "validation", SPEC.input)
    logits = np.load(tmp_path / "out/validation_logits.npy")
    assert (
        confusion_of_indices(held.labels, logits.argmax(1), CLASSES).f1
        == (choice["candidates"]["as trained"]["f1"])
    )


def test_switched_off_it_exports_the_network_as_it_is(packed, network, small, tmp_path):
    files = run(packed, small, network, tmp_path, enabled=False)
    assert json.loads(files["history.json"]) == []
    exported = read_network(tmp_path / "out")
    assert all(np.array_equal(exported.weights[k], small.weights[k]) for k in small.weights)


def test_edited_ranks_are_enough_to_rebuild_from(packed, network, small, tmp_path):
    """As `finetune_inference.py --rank_cfg` did: ranks from a file, weights from training."""
    path = tmp_path / "ranks.yaml"
    path.write_text(
        "1.0.conv.0: {method: spatial, ranks: [7]}\n2.0.conv.0: {method: svd, ranks: [5]}"
    )
    edited = replace(small, ranks=read_ranks(path))
    run(packed, edited, network, tmp_path, enabled=False)
    exported, wanted = read_network(tmp_path / "out"), factorize_network(network, edited.ranks, 3)
    assert exported.ranks == edited.ranks
    assert exported.weights.keys() == wanted.weights.keys()
    assert all(np.array_equal(exported.weights[k], wanted.weights[k]) for k in wanted.weights)


def test_edited_ranks_that_name_no_layer_are_refused(packed, network, small, tmp_path):
    ranks = {"9.9.conv": Factorization("svd", (1,))}
    with pytest.raises(NetworkError) as error:
        run(packed, replace(small, ranks=ranks), network, tmp_path, enabled=False)
    assert error.value.problem == "the network has no layer 9.9.conv, which the ranks name"
    other = replace(network, spec=replace(SPEC, width=2.0))
    with pytest.raises(NetworkError, match="weights and network differ"):
        run(packed, other, network, tmp_path, enabled=False)


@pytest.mark.parametrize(
    ("freeze", "moves"),
    [
        ("all-but-convolutions", {"1.0.conv.0.1.weight", "2.0.conv.3.weight"}),
        ("all-but-norms-and-head", {"1.0.conv.1.weight", "6.0.conv.0.weight"}),
        ("nothing", {"1.0.conv.0.1.weight", "1.0.conv.1.weight", "6.0.conv.0.weight"}),
    ],
)
def test_freeze_moves_what_it_names(packed, network, small, tmp_path, freeze, moves):
    run(packed, small, network, tmp_path, epochs=1, lr=0.01, freeze=freeze)
    after = read_network(tmp_path / "out").weights
    watched = ("1.0.conv.0.1.weight", "2.0.conv.3.weight", "1.0.conv.1.weight", "6.0.conv.0.weight")
    moved = {name for name in watched if not np.array_equal(after[name], small.weights[name])}
    assert moved >= moves
    assert freeze == "nothing" or moved == moves


def test_distillation_counts(packed, network, small, tmp_path):
    plain = run(packed, small, network, tmp_path / "a", epochs=1, distillation=0)
    taught = run(packed, small, network, tmp_path / "b", epochs=1, distillation=2)
    assert plain["history.json"] != taught["history.json"]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from small import RECIPE, make_params
from weighin.compress.context import CompressionContext
from weighin.compress.finetune import finetune
from weighin.compress.context import read_network
packed, given, teacher, folder = map(Path, sys.argv[2:6])
one, other = read_network(given), read_network(teacher)
params = make_params(finetune={"epochs": int(sys.argv[6])}, contest={"reference_macs": 200_000})
context = CompressionContext(packed, other, RECIPE, params, folder / "scratch")
finetune(context, one, folder / "out")
"""


def test_killed_and_run_again_it_ends_in_the_same_bytes(packed, network, small, tmp_path):
    write_network(tmp_path / "given", small)
    write_network(tmp_path / "teacher", network)
    folders = [packed, tmp_path / "given", tmp_path / "teacher", tmp_path / "killed"]
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), *map(str, folders), "16"]
    environment = {**os.environ, **PINS}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    state = tmp_path / "killed/scratch/finetune.state"
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed/out/model.onnx").exists()
    again = run(packed, small, network, tmp_path / "killed", epochs=16)
    whole = run(packed, small, network, tmp_path / "whole", epochs=16)
    assert again == whole
    assert len(json.loads(whole["history.json"])) == 16
    # the negative control: another length is another file
    assert run(packed, small, network, tmp_path / "other", epochs=2) != whole


def test_a_network_at_the_floor_is_not_exported_for_its_size(packed, network, tmp_path):
    """Just over the floor the smaller one scores less here, and is out on half of other images."""
    tiny = factorize_network(network, {"1.0.conv.0": Factorization("tucker", (3, 5))}, 3)
    first = json.loads(run(packed, tiny, network, tmp_path / "a", enabled=False)["choice.json"])
    f1 = first["candidates"]["finetuned"]["f1"]
    assert 0.2 < f1 < 0.95
    params = make_params(
        finetune={"enabled": False},
        contest={"score": "micronet", "floor_f1": round(f1 - 0.005, 6), "reference_macs": DEAR},
    )
    out, context = tmp_path / "b", CompressionContext(packed, network, RECIPE, params, tmp_path)
    finetune(context, tiny, out)
    choice = json.loads((out / "choice.json").read_text())
    small, whole = choice["candidates"]["finetuned"], choice["candidates"]["as trained"]
    assert small["score"] < whole["score"] == pytest.approx(whole["expected"], abs=1e-9)
    assert small["expected"] > whole["expected"]
    assert choice["exported"] == "as trained"
