"""One image: a ground, clutter, the object in its pose with its shadow, an occluder, the light.

Everything is drawn at twice the size and averaged down. The pose is a projective map worked out
with the four IEEE operations alone; a rotation comes from t in [-1, 1] as cos = (1 - t^2) / (1 +
t^2), sin = 2t / (1 + t^2), so that no sine is asked of the processor.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from weighin.data.demo import drawings
from weighin.data.demo.canvas import USUAL, Canvas, Dice, tone
from weighin.images import Pixels

DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "Battery": drawings.battery,
    "Clothing": drawings.clothing,
    "Glass": drawings.glass,
    "Metal": drawings.metal,
    "Paper": drawings.paper,
    "Paperpack": drawings.paperpack,
    "Plastic": drawings.plastic,
    "Plasticbag": drawings.plasticbag,
    "Styrofoam": drawings.styrofoam,
}

# concrete, asphalt, wood, sand, lawn, tiles
FLOORS = (
    *((150, 150, 148), (75, 77, 82), (150, 110, 75), (195, 175, 140), (90, 125, 70)),
    (120, 145, 165),
)

Corners = list[tuple[float, float]]  # in pixels, clockwise from the sheet's top left


def render(label: str, size: int, rng: Generator) -> Pixels:
    """Return one drawn image of a class, (size, size, 3)."""
    side = 2 * size
    dice = Dice(rng)
    scene = _ground(dice, side)
    for _ in range(dice.roll(0, 3)):
        _scrap(dice, scene, dice.roll(side // 24, side // 9))
    sheet = Canvas(side, rng)
    DRAWINGS[label](sheet)
    placed = _place(dice, sheet.picture)
    _cast(dice, scene, placed.getchannel("A"))
    scene.paste(placed, (0, 0), placed)
    if dice.chance(20):
        _strip(dice, scene)
    for _ in range(dice.roll(0, 2)):
        _scrap(dice, scene, dice.roll(side // 30, side // 14))
    return _light(dice, np.asarray(scene.reduce(2)))


def _ground(dice: Dice, side: int) -> Image.Image:
    """Return what the object lies on: bare, boards, tiles, checked cloth or gravel."""
    base, kind = dice.dye(*FLOORS), dice.roll(0, 4)
    ground = Image.new("RGB", (side, side), base)
    pen = ImageDraw.Draw(ground)
    other = tone(base, dice.roll(72, 92)) if dice.chance(USUAL) else dice.paint()
    step = side * dice.roll(10, 28) // 100
    start, thin = dice.roll(0, step) - step, max(1, side // 60)
    places = range(start, side, step)
    if kind in (1, 2):
        for place in places:
            pen.line([0, place, side, place], other, thin)
    if kind == 2:
        for place in places:
            pen.line([place, 0, place, side], other, thin)
    if kind == 3:
        for place in places:
            pen.rectangle([0, place, side, place + step // 2], other)
    if dice.chance(50):
        ground = ground.transpose(Image.Transpose.ROTATE_90)
    depth = dice.roll(10, 30)
    grain = (dice.noise(4, 4, side) - 128) * depth // 128
    fine = side // 4 if kind == 4 else side // 2
    grain += (dice.noise(fine, fine, side) - 128) * (40 if kind == 4 else depth // 2) // 128
    lit = np.asarray(ground).astype(np.int32) + grain[..., None]
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))


def _scrap(dice: Dice, scene: Image.Image, reach: int) -> None:
    """Drop a small piece of something else: a pebble, a leaf, a stick."""
    pen, colour, kind = ImageDraw.Draw(scene), dice.paint(), dice.roll(0, 2)
    side = scene.width
    x, y = dice.roll(0, side), dice.roll(0, side)
    dx, dy = dice.roll(reach // 2, reach), dice.roll(reach // 2, reach)
    if kind == 0:
        pen.ellipse([x - dx, y - dy, x + dx, y + dy], colour)
    elif kind == 1:
        bend = dice.roll(-dx, dx)
        pen.polygon([(x - dx, y), (x + bend, y - dy), (x + dx, y + bend // 2), (x, y + dy)], colour)
    else:
        pen.line([x, y, x + dice.roll(-3, 3) * dx, y + 2 * dy], colour, max(1, side // 50))


def _strip(dice: Dice, scene: Image.Image) -> None:
    """Lay a band or a stick across the picture, in front of the object."""
    side = scene.width
    ends = [dice.roll(0, side) for _ in range(2)]
    line = [(0, ends[0]), (side, ends[1])] if dice.chance(50) else [(ends[0], 0), (ends[1], side)]
    ImageDraw.Draw(scene).line(line, dice.paint(), side * dice.roll(2, 7) // 100)


def _pose(dice: Dice, side: int) -> Corners:
    """Return where the sheet's corners fall: turned, scaled, shifted, tilted away."""
    t = dice.roll(-260, 260) / 1000
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    half = side * dice.roll(92, 118) / 200
    middle_x, middle_y = (side * (50 + dice.roll(-8, 8)) / 100 for _ in range(2))
    corners = []
    for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        u = half * (x * (1 + dice.roll(-11, 11) / 100))
        v = half * (y * (1 + dice.roll(-11, 11) / 100))
        corners.append((middle_x + u * cos - v * sin, middle_y + u * sin + v * cos))
    turn = dice.roll(0, 3) if dice.chance(15) else 0
    corners = corners[turn:] + corners[:turn]
    return [corners[1], corners[0], corners[3], corners[2]] if dice.chance(50) else corners


def _place(dice: Dice, sheet: Image.Image) -> Image.Image:
    side = sheet.width
    return sheet.transform(
        (side, side),
        Image.Transform.PERSPECTIVE,
        inverse_projection(_pose(dice, side), side),
        Image.Resampling.BILINEAR,
    )


def inverse_projection(corners: Corners, side: int) -> tuple[float, ...]:
    """Return Pillow's eight coefficients that map a picture's points back onto a square sheet.

    The square-to-quadrilateral map of Heckbert, "Fundamentals of texture mapping and image
    warping" (1989), section 2.2.3, and its adjugate.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    ax, ay, bx, by = x1 - x2, y1 - y2, x3 - x2, y3 - y2
    sx, sy = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    area = ax * by - bx * ay
    g, h = (sx * by - bx * sy) / area, (ax * sy - sx * ay) / area
    a, b, c = x1 - x0 + g * x1, x3 - x0 + h * x3, x0
    d, e, f = y1 - y0 + g * y1, y3 - y0 + h * y3, y0
    rows = (e - f * h, c * h - b, b * f - c * e, f * g - d, a - c * g, c * d - a * f)
    last = a * e - b * d
    scaled = [side * value / last for value in rows]
    return (*scaled, (d * h - e * g) / last, (b * g - a * h) / last)


def _cast(dice: Dice, scene: Image.Image, outline: Image.Image) -> None:
    """Darken the ground beside the object."""
    side = scene.width
    blurred = outline.filter(ImageFilter.BoxBlur(max(1, side // 40)))
    strength = dice.roll(20, 65)
    veil = blurred.point([value * strength // 100 for value in range(256)])
    reach = side // 14
    scene.paste((0, 0, 0), (dice.roll(-reach, reach), dice.roll(0, reach)), veil)


def _light(dice: Dice, pixels: Pixels) -> Pixels:
    """Return the picture under a slanting, coloured light of some strength, with sensor noise."""
    size = len(pixels)
    ramp = np.arange(size, dtype=np.int32) * 2 - size
    slope_x, slope_y = dice.roll(-40, 40), dice.roll(-40, 40)
    slant = (ramp[None] * slope_x + ramp[:, None] * slope_y) // (2 * size)
    exposure = dice.roll(92, 138)
    cast = np.array([exposure + dice.roll(-10, 10) for _ in range(3)], np.int32)
    gain = cast + slant[..., None]
    lit = pixels * gain >> 7
    lit += dice.rng.integers(-6, 7, pixels.shape, dtype=np.int32)
    return lit.clip(0, 255).astype(np.uint8)
