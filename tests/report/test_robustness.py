"""Corrupted images against a hand's computation; what they cost, in every file that tells it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_project import TRUTH

from weighin.files import sha256
from weighin.grading.model import open_model
from weighin.images import Pixels
from weighin.report import evaluation as module
from weighin.report.evaluation import CORRUPTIONS, NOISE, background, blur, dark, jpeg, noise

RAMP = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8)
CARD = np.full((16, 16, 3), 230, np.uint8)  # a square on paper
CARD[4:12, 4:12] = 60
ARRAY = Path("work/prepare/validation_8x8.npy")


def grey(value: int) -> Pixels:
    return np.full((16, 16, 3), value, np.uint8)


def test_a_blurred_point_is_spread_over_nine_pixels() -> None:
    image = grey(0)
    image[5, 7] = 90
    blurred = blur(image, 0)
    assert blurred[4:7, 6:9].tolist() == [[[10] * 3] * 3] * 3
    assert blurred.sum() == 9 * 3 * 10


def test_noise_is_even_bounded_and_its_own_for_each_image() -> None:
    added = noise(grey(100), 3).astype(int) - 100
    assert (added.min(), added.max()) == (-NOISE, NOISE)
    assert abs(added.mean()) < 2
    assert np.array_equal(noise(grey(100), 3), noise(grey(100), 3))
    assert not np.array_equal(noise(grey(100), 3), noise(grey(100), 4))
    assert noise(grey(0), 0).max() == noise(grey(250), 0).max() - 255 + NOISE == NOISE


def test_the_dark_has_a_third_of_the_light() -> None:
    assert dark(RAMP, 0).tolist() == (RAMP.astype(int) // 3).tolist()


def test_a_jpeg_is_near_and_not_the_same() -> None:
    flat = jpeg(grey(100), 0).astype(int)
    assert abs(flat - 100).max() <= 4
    assert abs(jpeg(RAMP, 0).astype(int) - RAMP).max() > 20


def test_another_background_leaves_the_object() -> None:
    changed = background(CARD, 0)
    assert (changed[6:10, 6:10] == 60).all()
    corners = changed[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    assert (abs(corners - 230).max(1) > 20).all()
    assert len(np.unique(corners, axis=0)) == 4
    assert not np.array_equal(changed, background(CARD, 1))
    np.testing.assert_array_equal(background(RAMP, 0), RAMP)  # no plain background


def test_the_pixels_are_the_same_on_every_machine() -> None:
    found = {
        kind: sha256(corrupt(RAMP if kind != "background" else CARD, 5).tobytes())[:8]
        for kind, (_, corrupt) in CORRUPTIONS.items()
    }
    assert found == {
        "blur": "a1acc2bc",
        "noise": "8e0c8c33",
        "jpeg": "e6af30a7",
        "dark": "7cfefd46",
        "background": "ea3166d1",
    }


def lit(project: Path, value: int) -> None:
    """Give the validation images colours as faint as `value`."""
    images = np.load(ARRAY)
    np.save(ARRAY, np.minimum(images, value).astype(np.uint8))


def test_faint_colours_are_lost_in_the_dark(project: Path) -> None:
    """2 // 3 is black, where the first class wins: four of ten right, F1 of 8 / 14, 0 and 0."""
    lit(project, 2)
    found = module.robustness(open_model(Path("submission/model.onnx")), Path("work/prepare"))
    assert (found.clean, found.images) == (1.0, len(TRUTH))
    assert found.f1["dark"] == pytest.approx(8 / 14 / 3)
    assert found.f1["blur"] == 1.0
    assert found.f1["noise"] < 1.0


def test_many_images_are_taken_evenly(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 4)
    found = module.robustness(open_model(Path("submission/model.onnx")), Path("work/prepare"))
    assert found.images == 4  # rows 0, 3, 6, 9


def test_every_file_tells_it(project: Path, report: Callable[..., Path]) -> None:
    lit(project, 2)
    folder = report()
    found = json.loads((folder / "metrics.json").read_text())["robustness"]
    assert list(found) == ["background", "blur", "dark", "jpeg", "noise"]
    assert found["dark"] == round(8 / 14 / 3, 6)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "| dark: a third of the light | 0.1905 | −0.8095 |" in card
    page = (folder / "report.html").read_text()
    assert '<td class="number">0.1905</td><td class="number">−0.8095</td>' in page
    assert page.count('alt="A validation image, ') == 6


def test_without_answers_nothing_is_corrupted(project: Path, report: Callable[..., Path]) -> None:
    Path("work/finetune/validation_logits.npy").unlink()
    ARRAY.unlink()
    folder = report()
    assert "robustness" not in json.loads((folder / "metrics.json").read_text())
    assert "Robustness (corruptions)" not in (folder / "report.html").read_text()
    assert "Robustness (corruptions)" not in (folder / "MODEL_CARD.md").read_text()
