"""One image: a ground, clutter, the object in its pose with its shadow, an occluder, the light.

The object is drawn on a square sheet, the canvas: outlines by Pillow, materials as integer shade
maps. Its coordinates are thousandths of the sheet's side, so that a drawing is the same at any
size. Everything is drawn at twice the size and averaged down.

All arithmetic is in integers, or in the four IEEE operations: no sine, root or exponential, whose
last bit may differ between processors. The pose is a projective map worked out so; a rotation comes
from t in [-1, 1] as cos = (1 - t^2) / (1 + t^2), sin = 2t / (1 + t^2).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from weighin.images import Pixels

Colour = tuple[int, int, int]
Point = tuple[int, int]
Shade = npt.NDArray[np.int32]  # (H, W) or anything that broadcasts to it; 128 changes nothing
NEUTRAL = 128
USUAL = 85  # percent of things in a colour that their kind usually has
# concrete, asphalt, wood, sand, lawn, tiles
FLOORS = (
    *((150, 150, 148), (75, 77, 82), (150, 110, 75), (195, 175, 140), (90, 125, 70)),
    (120, 145, 165),
)
Corners = list[tuple[float, float]]  # in pixels, clockwise from the sheet's top left


class Dice:
    """Whole random numbers, and the colours that every class draws from."""

    def __init__(self, rng: Generator) -> None:
        self.rng = rng

    def roll(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, percent: int) -> bool:
        """Return True in `percent` of a hundred cases."""
        return self.roll(1, 100) <= percent

    def paint(self) -> Colour:
        """Return a colour: near white, dull or vivid, each as likely, whatever the class is."""
        kind = self.roll(0, 2)
        if kind == 2:
            return self.roll(15, 240), self.roll(15, 240), self.roll(15, 240)
        grey, spread = (self.roll(195, 245), 10) if kind == 0 else (self.roll(70, 190), 25)
        return grey + self.roll(-spread, spread), grey, grey - self.roll(-spread, spread)

    def dye(self, *usual: Colour) -> Colour:
        """Return one of a thing's usual colours, a shade off, in most cases; else any colour."""
        if not self.chance(USUAL):
            return self.paint()
        red, green, blue = usual[self.roll(0, len(usual) - 1)]
        return red + self.roll(-10, 10), green + self.roll(-10, 10), blue + self.roll(-10, 10)

    def noise(self, rows: int, columns: int, side: int) -> Shade:
        """Return smooth noise, 0 to 255, (side, side), from a grid of `rows` x `columns`."""
        grid = self.rng.integers(0, 256, (rows, columns), dtype=np.uint8)
        smooth = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
        return np.asarray(smooth).astype(np.int32)


def tone(colour: Colour, percent: int) -> Colour:
    """Return a colour made darker (below 100) or lighter."""
    red, green, blue = (min(255, part * percent // 100) for part in colour)
    return red, green, blue


def contrast(colour: Colour) -> Colour:
    """Return an ink that can be read on a colour: dark on light, light on dark."""
    return (35, 35, 40) if sum(colour) > 330 else (230, 230, 225)


class Canvas(Dice):
    """The sheet: RGBA, transparent where nothing has been drawn."""

    def __init__(self, side: int, rng: Generator) -> None:
        super().__init__(rng)
        self.side = side
        self.picture = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        self._pen = ImageDraw.Draw(self.picture)

    def polygon(self, points: Sequence[Point], colour: Colour, alpha: int = 255) -> None:
        """Fill an outline."""
        self._pen.polygon([self._place(point) for point in points], (*colour, alpha))

    def box(self, x0: int, y0: int, x1: int, y1: int, colour: Colour, alpha: int = 255) -> None:
        """Fill an upright rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, alpha)

    def rounded(
        self, x0: int, y0: int, x1: int, y1: int, radius: int, colour: Colour, *, alpha: int = 255
    ) -> None:
        """Fill a rectangle with round corners."""
        corners = [self._place((x0, y0)), self._place((x1, y1))]
        self._pen.rounded_rectangle(corners, radius * self.side // 1000, (*colour, alpha))

    def oval(self, x0: int, y0: int, x1: int, y1: int, colour: Colour, alpha: int = 255) -> None:
        """Fill an ellipse."""
        self._pen.ellipse([self._place((x0, y0)), self._place((x1, y1))], (*colour, alpha))

    def ring(self, x0: int, y0: int, x1: int, y1: int, width: int, colour: Colour) -> None:
        """Draw an ellipse's rim."""
        corners = [self._place((x0, y0)), self._place((x1, y1))]
        self._pen.ellipse(corners, None, (*colour, 255), max(1, width * self.side // 1000))

    def line(self, points: Sequence[Point], width: int, colour: Colour, alpha: int = 255) -> None:
        """Draw a stroke."""
        stroke = max(1, width * self.side // 1000)
        self._pen.line([self._place(point) for point in points], (*colour, alpha), stroke)

    def shade(self, shade: Shade) -> None:
        """Multiply the colours by `shade` / 128."""
        pixels = np.array(self.picture)
        lit = pixels[..., :3] * shade[..., None] >> 7
        pixels[..., :3] = lit.clip(0, 255)
        self.picture = Image.fromarray(pixels)
        self._pen = ImageDraw.Draw(self.picture)

    def _place(self, point: Point) -> Point:
        return point[0] * self.side // 1000, point[1] * self.side // 1000

    def clouds(self, cells: int, depth: int) -> Shade:
        """Return soft light and dark patches, `depth` about the neutral shade."""
        return NEUTRAL + (self.noise(cells, cells, self.side) - 128) * depth // 128

    def cylinder(self, x0: int, x1: int, depth: int) -> Shade:
        """Return the shade of an upright cylinder, (1, side), lit from a random side."""
        middle, half = (x0 + x1) * self.side // 2000, max(1, (x1 - x0) * self.side // 2000)
        across = (np.arange(self.side, dtype=np.int32) - middle) * 256 // half
        off = (across - self.roll(-120, 120)).clip(-300, 300)
        shade: Shade = NEUTRAL + depth // 3 - off * off * depth // 65536
        return shade[None]

    def streaks(self, count: int, depth: int) -> Shade:
        """Return hard bright and dark columns, as polished metal mirrors its surroundings."""
        return NEUTRAL + (self.noise(1, count, self.side) - 118) * depth // 100

    def facets(self, cells: int, depth: int) -> Shade:
        """Return the shade of crumpled matter: a jittered triangle net, each face lit its own."""
        step = self.side // cells + 1
        wobble = step * 2 // 5
        jitter = self.rng.integers(-wobble, wobble + 1, (cells + 1, cells + 1, 2)).tolist()
        light = self.rng.integers(-depth, depth + 1, (cells, cells, 2)).tolist()
        net = [
            [(x * step + jitter[y][x][0], y * step + jitter[y][x][1]) for x in range(cells + 1)]
            for y in range(cells + 1)
        ]
        plane = Image.new("L", (self.side, self.side), NEUTRAL)
        pen = ImageDraw.Draw(plane)
        for y in range(cells):
            for x in range(cells):
                a, b, c, d = net[y][x], net[y][x + 1], net[y + 1][x + 1], net[y + 1][x]
                pen.polygon([a, b, c], NEUTRAL + light[y][x][0])
                pen.polygon([a, c, d], NEUTRAL + light[y][x][1])
        return np.asarray(plane.filter(ImageFilter.BoxBlur(1))).astype(np.int32)

    def beads(self, across: int, depth: int) -> Shade:
        """Return packed round grains, `across` of them side by side, with dark gaps between."""
        plane = Image.new("L", (self.side, self.side), NEUTRAL - depth)
        pen = ImageDraw.Draw(plane)
        light = self.rng.integers(-depth // 2, depth // 2 + 1, (across, across)).tolist()
        jitter = self.rng.integers(-150, 151, (across, across, 2)).tolist()
        for y in range(across):
            for x in range(across):
                dx, dy = jitter[y][x]
                left = (x * 1000 + dx + 500 * (y % 2)) * self.side // (across * 1000)
                top = (y * 1000 + dy) * self.side // (across * 1000)
                size = self.side * 9 // (across * 10)
                pen.ellipse([left, top, left + size, top + size], NEUTRAL + light[y][x])
        return np.asarray(plane).astype(np.int32)

    def weave(self, across: int, depth: int) -> Shade:
        """Return crossing threads, `across` of them side by side."""
        thread = np.arange(self.side, dtype=np.int32) * across * 2 // self.side % 2
        return NEUTRAL + (thread[:, None] + thread[None] - 1) * depth


def render(draw: Callable[[Canvas], None], size: int, rng: Generator) -> Pixels:
    """Return an image, (size, size, 3), of the object that `draw` draws."""
    side = 2 * size
    dice = Dice(rng)
    scene = _ground(dice, side)
    for _ in range(dice.roll(0, 3)):
        _scrap(dice, scene, dice.roll(side // 24, side // 9))
    sheet = Canvas(side, rng)
    draw(sheet)
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
