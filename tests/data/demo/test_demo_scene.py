"""How a scene is drawn: its geometry as equations, its randomness as addresses."""

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weighin.data import demo
from weighin.data.demo.drawings import CIRCLE, DRAWINGS, metal
from weighin.data.demo.scene import (
    NEUTRAL,
    Canvas,
    Dice,
    _pose,
    contrast,
    inverse_projection,
    render,
    tone,
)
from weighin.determinism import generator

SHEET = [(0, 0), (200, 0), (200, 200), (0, 200)]


def project(coefficients: tuple[float, ...], x: float, y: float) -> tuple[float, float]:
    a, b, c, d, e, f, g, h = coefficients
    return (a * x + b * y + c) / (g * x + h * y + 1), (d * x + e * y + f) / (g * x + h * y + 1)


@pytest.mark.parametrize("number", range(20))
def test_a_pose_maps_its_corners_onto_the_sheet(number):
    corners = _pose(Dice(generator("pose", number)), 200)
    inverse = inverse_projection(corners, 200)
    for corner, expected in zip(corners, SHEET, strict=True):
        assert project(inverse, *corner) == pytest.approx(expected, abs=1e-9)


def test_an_upright_pose_changes_nothing():
    corners = [(float(x), float(y)) for x, y in SHEET]
    assert inverse_projection(corners, 200) == (1, 0, 0, 0, 1, 0, 0, 0)


@pytest.mark.parametrize("label", DRAWINGS)
def test_an_object_fills_its_sheet_and_stays_on_it(label):
    for number in range(12):
        canvas = Canvas(192, generator("sheet", label, number))
        DRAWINGS[label](canvas)
        alpha = np.asarray(canvas.picture.getchannel("A")) > 0
        assert 0.1 < alpha.mean() < 0.75
        rim = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert rim.mean() < 0.05


@pytest.mark.parametrize("label", DRAWINGS)
@pytest.mark.parametrize("size", [16, 97])
def test_a_picture_of_any_size(label, size):
    picture = render(DRAWINGS[label], size, generator("size", label))
    assert (picture.shape, picture.dtype) == ((size, size, 3), np.uint8)
    assert picture.std() > 5


@pytest.mark.parametrize("label", DRAWINGS)
def test_a_drawing_is_the_same_at_any_size(label):
    """Outlines are; grains and noise follow the pixels, so outlines are compared, coarsely."""
    for number in range(4):
        small, large = (Canvas(side, generator("scale", label, number)) for side in (96, 192))
        for canvas in (small, large):
            DRAWINGS[label](canvas)
        a, b = (
            c.picture.getchannel("A").resize((24, 24), Image.Resampling.BOX) for c in (small, large)
        )
        gap = np.abs(np.asarray(a).astype(int) - np.asarray(b))
        assert gap.mean() < 12


def test_pictures_of_a_class_differ_in_pose_light_and_ground():
    pictures = np.stack([render(metal, 32, generator("many", n)) for n in range(40)])
    assert len({picture.tobytes() for picture in pictures}) == 40
    brightness = pictures.mean((1, 2, 3))
    assert brightness.max() / brightness.min() > 1.8
    corners = pictures[:, :4, :4].mean((1, 2))  # of the ground
    assert corners.std(0).min() > 20


def test_rolls_hold_both_ends():
    dice = Dice(generator("dice"))
    assert {dice.roll(-1, 2) for _ in range(200)} == {-1, 0, 1, 2}
    assert all(dice.chance(100) and not dice.chance(0) for _ in range(50))


def test_colours_are_colours():
    dice = Dice(generator("colours"))
    colours = [dice.paint() for _ in range(2000)] + [dice.dye((245, 10, 128)) for _ in range(2000)]
    assert all(0 <= part <= 255 for colour in colours for part in colour)


def test_tones_and_inks():
    assert tone((100, 200, 250), 120) == (120, 240, 255)
    assert tone((101, 1, 0), 50) == (50, 0, 0)
    assert contrast((110, 110, 111)) == (35, 35, 40)
    assert contrast((110, 110, 110)) == (230, 230, 225)


def test_a_neutral_shade_changes_nothing():
    canvas = Canvas(64, generator("shade"))
    canvas.oval(100, 100, 900, 900, (200, 100, 50))
    before = np.asarray(canvas.picture).copy()
    canvas.shade(np.full((64, 64), NEUTRAL, np.int32))
    assert (np.asarray(canvas.picture) == before).all()
    canvas.shade(np.full((1, 64), NEUTRAL // 2, np.int32))
    assert (np.asarray(canvas.picture)[..., :3] == before[..., :3] // 2).all()
    assert (np.asarray(canvas.picture)[..., 3] == before[..., 3]).all()


def test_the_circle_is_one():
    assert len(set(CIRCLE)) == 16
    assert all(abs(x * x + y * y - 10**6) < 10**3 for x, y in CIRCLE)


def test_nothing_that_processors_round_differently_is_called():
    """No sine, root, exponential or float noise: the four operations alone are exact everywhere."""
    banned = {"sin", "cos", "tan", "sqrt", "exp", "log", "pow", "hypot", "normal", "GaussianBlur"}
    banned |= {"standard_normal", "random", "uniform", "power", "rotate", "LANCZOS"}
    for path in Path(demo.__file__).parent.glob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        called = {node.attr for node in tree if isinstance(node, ast.Attribute)}
        assert not called & banned, path
