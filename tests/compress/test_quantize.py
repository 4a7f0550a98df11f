"""Whole numbers of 8 bits: q times scale is the weight, no sum saturates, and the labels stay."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small import CLASSES, RECIPE, SPEC, make_params, trained

from weighin.compress.context import CompressionContext, write_network
from weighin.compress.finetune import export
from weighin.compress.quantize import quantize, sensitivity
from weighin.data.pack import read_packed
from weighin.determinism import PINS
from weighin.errors import ModelError
from weighin.files import write_bytes, write_json
from weighin.grading.model import open_model
from weighin.grading.recount import count_file
from weighin.grading.runtime import Runner
from weighin.grading.score import confusion_of_indices
from weighin.images import normalize
from weighin.network.quantized import (
    Batches,
    activation_ranges,
    fake_quantize,
    quantized,
    rounded_weight,
)

KNOBS = make_params().quantize
HEAD = "/6/6.0/conv/conv.0/Gemm"


@pytest.fixture(scope="module")
def source(packed, network, tmp_path_factory) -> Path:
    """The trained network as finetune exports it."""
    folder = tmp_path_factory.mktemp("float")
    context = CompressionContext(packed, network, RECIPE, make_params(), folder)
    return export(context, network, folder / "model.onnx").path


def images(packed: Path, split: str = "validation") -> np.ndarray:
    return np.asarray(read_packed(packed, split, SPEC.input).images)


def run(packed: Path, source: Path, folder: Path, **knobs) -> dict:
    """Run the stage on a project of this network, `source` its exported file."""
    work = folder / "work"
    if not work.exists():
        work.mkdir(parents=True)
        (work / "prepare").symlink_to(packed)
        write_network(work / "finetune", trained(packed))
        write_json(work / "tune/recipe.json", asdict(RECIPE))
    if source.exists():
        write_bytes(work / "finetune/model.onnx", source.read_bytes())
    params = make_params(quantize={"enabled": True, "images": 64, "epochs": 0} | knobs)
    quantize(work, params, folder / "scratch", folder / "out", folder / "model.onnx")
    return json.loads((folder / "out/quantization.json").read_text())


def stored(proto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def weights(proto) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return (q, scale, zero point) of every stored tensor that a graph dequantizes."""
    known = stored(proto)
    nodes = [node for node in proto.graph.node if node.op_type == "DequantizeLinear"]
    found = [[known[name] for name in node.input] for node in nodes if node.input[0] in known]
    assert all(parts[0].dtype == np.int8 for parts in found)
    return [(*parts, np.int8(0))[:3] for parts in found]


def test_switched_off_it_passes_the_bytes_on(packed, source, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("history.json", "validation_logits.npy"):  # of a run by hand, before
        (tmp_path / "out" / name).write_bytes(b"old")
    facts = run(packed, source, tmp_path, enabled=False)
    assert facts == {"enabled": False}
    assert (tmp_path / "model.onnx").read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["quantization.json"]


def test_q_times_scale_is_the_weight_to_half_a_step(packed, source):
    proto = onnx.load(source)
    made = onnx.load_model_from_string(quantized(proto, images(packed), KNOBS))
    dense = [array for array in stored(proto).values() if array.ndim >= 2]
    found = weights(made)
    assert len(found) == len(dense) == sum(n.op_type in ("Conv", "Gemm") for n in proto.graph.node)
    for q, scale, zero in found:
        assert not zero.any() and scale.shape in (q.shape[:1], q.shape[1:])
        assert 60 < np.abs(q.astype(int)).max() <= 64  # so two products fit 16 bits
        assert 2 * 255 * np.abs(q.astype(int)).max() <= 2**15 - 1
        axis = (-1,) + (1,) * (q.ndim - 1) if scale.shape == q.shape[:1] else (1, -1)
        whole = q * scale.reshape(axis)
        errors = [np.abs(whole - w) / scale.reshape(axis) for w in dense if w.shape == q.shape]
        assert min(error.max() for error in errors) <= 0.5 + 1e-4
    with_eight = onnx.load_model_from_string(quantized(proto, images(packed), KNOBS, (), False))
    assert all(np.abs(q.astype(int)).max() > 120 for q, _, _ in weights(with_eight))


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_logits_are_those_of_the_float_network_nearly(packed, source, tmp_path, calibration):
    facts = run(packed, source, tmp_path, calibration=calibration, max_loss=1.0)
    held, model = read_packed(packed, "validation", SPEC.input), open_model(tmp_path / "model.onnx")
    own = Runner(open_model(source)).logits(np.asarray(held.images))
    got = np.load(tmp_path / "out/validation_logits.npy")
    assert np.array_equal(got, Runner(model).logits(np.asarray(held.images)))
    assert 0 < np.abs(got - own).max() < 0.15 * np.abs(own).max()
    assert facts["f1_after"] == round(
        confusion_of_indices(held.labels, got.argmax(1), CLASSES).f1, 6
    )
    assert facts["f1_after"] >= facts["f1_before"] - 0.05
    assert (model.classes, model.fallback, model.turn_tall) == (CLASSES, "cup", True)
    assert facts["bytes_after"] == (tmp_path / "model.onnx").stat().st_size
    assert facts["bytes_before"] == source.stat().st_size
    assert all(layer["quantized"] for layer in facts["layers"])


@pytest.mark.parametrize("count", [1, 50, 64, 65, 67, 100, 256])
def test_calibration_takes_all_images_in_batches_of_one_size(count: int) -> None:
    sample = np.arange(count * 3, dtype=np.uint32).astype(np.uint8).reshape(count, 1, 1, 3)
    batches = list(iter(Batches(sample).get_next, None))
    parts = [feed["images"] for feed in batches]
    assert len({len(part) for part in parts}) == 1 and len(parts[0]) <= 64
    assert np.array_equal(np.concatenate(parts), normalize(sample))


@pytest.mark.parametrize("calibration", ["percentile", "entropy"])
def test_a_number_of_images_that_batches_do_not_divide(packed, source, calibration):
    sample = np.resize(images(packed), (66, *SPEC.input, 3))
    made = quantized(onnx.load(source), sample, replace(KNOBS, calibration=calibration))
    assert len(weights(onnx.load_model_from_string(made))) > 0


def test_a_quantized_mac_is_a_mac(packed, source, tmp_path):
    run(packed, source, tmp_path, max_loss=1.0)
    before, after = count_file(source), count_file(tmp_path / "model.onnx")
    assert after.macs == before.macs
    made = onnx.load(tmp_path / "model.onnx")
    scales = sum(scale.size for _, scale, _ in weights(made))
    whole = sum(q.size for q, _, _ in weights(made))
    biases = sum(array.size for array in stored(onnx.load(source)).values() if array.ndim == 1)
    assert whole + biases == before.parameters
    assert after.parameters == before.parameters + scales


def test_layers_that_cost_most_stay_float(packed, source, tmp_path):
    """One channel ten thousand times the others: the float network is the same, 8 bits are lost."""
    proto = onnx.load(source)
    last = [node for node in proto.graph.node if node.op_type == "Conv"][-1]
    head = next(node for node in proto.graph.node if node.op_type == "Gemm")
    known = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name, factor in ((last.input[1], 1e4), (last.input[2], 1e4), (head.input[1], 1e-4)):
        array = numpy_helper.to_array(known[name]).copy()
        channel = (slice(None), 3) if name == head.input[1] else (3,)
        array[channel] *= np.float32(factor)
        known[name].CopyFrom(numpy_helper.from_array(array, name))
    odd = tmp_path / "odd.onnx"
    onnx.save(proto, odd)
    pixels = images(packed)
    wanted = Runner(open_model(source)).logits(pixels)
    np.testing.assert_allclose(Runner(open_model(odd)).logits(pixels), wanted, rtol=1e-3, atol=1e-3)
    lost = run(packed, odd, tmp_path / "lost", max_loss=1.0, calibration="minmax")
    assert lost["f1_after"] < lost["f1_before"] - 0.1
    kept = run(packed, odd, tmp_path / "kept", max_loss=0.01, calibration="minmax")
    assert kept["f1_after"] >= kept["f1_before"] - 0.01
    left = {layer["name"] for layer in kept["layers"] if not layer["quantized"]}
    assert {last.name} <= left and len(left) < len(kept["layers"]) / 2
    rest = [layer["divergence"] for layer in kept["layers"] if layer["quantized"]]
    assert min(x["divergence"] for x in kept["layers"] if not x["quantized"]) >= max(rest)
    made = onnx.load(tmp_path / "kept/model.onnx")
    assert len(weights(made)) == len(kept["layers"]) - len(left)


def test_sensitivity_is_the_divergence_of_one_layer_alone(packed, source):
    proto, sample = onnx.load(source), images(packed, "train")[:64]
    layers = sensitivity(proto, sample, KNOBS)
    assert [layer.op for layer in layers].count("Gemm") == 1
    assert sum(layer.weights for layer in layers) == sum(
        array.size for array in stored(proto).values() if array.ndim >= 2
    )
    assert all(layer.divergence >= 0 for layer in layers)
    assert max(layer.divergence for layer in layers) > 10 * min(x.divergence for x in layers)


@pytest.mark.parametrize("calibration", ["minmax", "percentile"])
def test_8_bits_are_not_spent_on_what_the_activation_makes_zero(packed, source, calibration):
    """HardSwish is 0 below -3: a channel of -60 takes no step from the others."""
    proto = onnx.load(source)
    makers = {name: node for node in proto.graph.node for name in node.output}
    conv = next(makers[n.input[0]] for n in proto.graph.node if n.op_type == "HardSwish")
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == conv.input[2])
    low = numpy_helper.to_array(bias).copy()
    low[0] -= 60
    bias.CopyFrom(numpy_helper.from_array(low, bias.name))
    knobs = replace(KNOBS, calibration=calibration)
    made = onnx.load_model_from_string(quantized(proto, images(packed), knobs))
    known, names = stored(made), {o: node.name for node in made.graph.node for o in node.output}
    (asked,) = (
        node
        for node in made.graph.node
        if node.op_type == "QuantizeLinear" and names.get(node.input[0]) == conv.name
    )
    scale, zero = (known[name].item() for name in asked.input[1:3])
    assert -3 - scale < -zero * scale < 0
    assert scale < 0.1


def test_kept_ranges_give_the_same_bytes(packed, source, tmp_path):
    proto, kept = onnx.load(source), tmp_path / "ranges.json"
    whole = [quantized(proto, images(packed), KNOBS, ranges=at) for at in (None, kept, kept)]
    assert whole[0] == whole[1] == whole[2]


SCRIPT = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np, onnx
from small import SPEC, make_params
from weighin.images import normalize
from weighin.network.quantized import Batches, activation_ranges, quantized
from weighin.network.quantized import fake_quantize, rounded_weight
from weighin.data.pack import read_packed
pixels = np.asarray(read_packed(Path(sys.argv[2]), "train", SPEC.input).images)[: int(sys.argv[4])]
data = quantized(onnx.load(sys.argv[3]), pixels, make_params().quantize)
print(hashlib.sha256(data).hexdigest())
"""


def test_another_process_writes_the_same_bytes(packed, source):
    def made(images: int, seed: str) -> str:
        folder = str(Path(__file__).parent)
        command = [sys.executable, "-c", SCRIPT, folder, str(packed), str(source), str(images)]
        environment = {**os.environ, **PINS, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    first = made(64, "1")
    assert made(64, "2") == first
    data = quantized(onnx.load(source), images(packed, "train")[:64], KNOBS)
    assert hashlib.sha256(data).hexdigest() == first
    assert made(32, "1") != first  # other images give other ranges


def eight_bit_files(source: Path, sample: np.ndarray, folder: Path) -> tuple[dict, np.ndarray]:
    """Return the ranges of the quantized network, and its logits of the sample."""
    path = folder / "eight.onnx"
    path.write_bytes(quantized(onnx.load(source), sample, KNOBS))
    return activation_ranges(onnx.load(path)), Runner(open_model(path)).logits(sample)


def test_fake_quantization_computes_what_the_integers_do(packed, source, network, tmp_path):
    """Logits of the rounded module are those of the file but for a rounding that fell otherwise."""
    sample = images(packed)
    ranges, integers = eight_bit_files(source, sample, tmp_path)
    module = network.module(3)
    paths = dict(module.named_modules())
    assert ranges.keys() - paths.keys() == {"images"}
    with torch.inference_mode():
        whole = module(torch.from_numpy(normalize(sample))).numpy()
        fake_quantize(module, ranges)
        rounded = module(torch.from_numpy(normalize(sample))).numpy()
    steps = np.abs(integers - rounded) / ranges["6.0.conv.0"].scale  # of the logits' own 8 bits
    assert np.abs(steps - np.rint(steps)).max() < 0.01 and steps.max() < 2.5
    assert np.mean(steps < 0.01) > 0.5
    assert np.abs(integers - whole).mean() > 1.5 * np.abs(integers - rounded).mean()


def test_rounding_lets_gradients_through(network, packed, source, tmp_path):
    weight = torch.tensor([[0.5, -1.0, 0.013], [0.0, 0.0, 0.0]], requires_grad=True)
    rounded = rounded_weight(weight)
    assert rounded.tolist()[0] == [0.5, -1.0, pytest.approx(1 / 64)]
    assert rounded.tolist()[1] == [0.0, 0.0, 0.0]
    (rounded * torch.arange(6.0).view(2, 3)).sum().backward()
    assert weight.grad.tolist() == [[0, 1, 2], [3, 4, 5]]
    module = network.module(3).train()
    fake_quantize(module, eight_bit_files(source, images(packed)[:32], tmp_path)[0])
    before = {k: v.clone() for k, v in module.named_buffers()}
    module(torch.zeros(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert all(torch.equal(v, before[k]) for k, v in module.named_buffers())  # norms are fixed


def test_finetuning_wins_back_what_8_bits_lost(packed, source, tmp_path):
    """Ranges of 97 % of the activations lose labels; epochs with the rounding felt win them back.

    A finetuning that was killed and goes on ends in the same bytes.
    """
    knobs = {"percentile": 97.0, "max_loss": 0.02, "epochs": 6, "lr": 0.003}
    plain = run(packed, source, tmp_path / "plain", **knobs | {"max_loss": 1.0})
    assert plain["f1_after"] == plain["f1_untrained"] < plain["f1_before"] - 0.02
    assert json.loads((tmp_path / "plain/out/history.json").read_text()) == []
    tuned = run(packed, source, tmp_path / "tuned", **knobs)
    assert tuned["f1_after"] >= plain["f1_before"] - 0.02
    assert all(layer["quantized"] for layer in tuned["layers"])
    assert len(json.loads((tmp_path / "tuned/out/history.json").read_text())) == 6
    assert (tmp_path / "tuned/model.onnx").stat().st_size == plain["bytes_after"]
    state = tmp_path / "again/scratch/quantize.state"
    half = run(packed, source, tmp_path / "half", **knobs)
    state.parent.mkdir(parents=True)
    state.write_bytes((tmp_path / "half/scratch/quantize.state").read_bytes())
    assert run(packed, source, tmp_path / "again", **knobs) == half == tuned
    files = {(tmp_path / name / "model.onnx").read_bytes() for name in ("tuned", "half", "again")}
    assert len(files) == 1


def test_nothing_is_said_of_how_it_is_done(packed, source, capfd):
    quantized(onnx.load(source), images(packed), replace(KNOBS, calibration="entropy"))
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_not_there_names_its_stage(packed, tmp_path):
    with pytest.raises(ModelError) as error:
        run(packed, tmp_path / "none.onnx", tmp_path)
    assert "finetune/model.onnx does not exist" in error.value.problem
    assert "dvc repro finetune" in error.value.fix
