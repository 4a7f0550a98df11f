"""A square sheet for one object: outlines by Pillow, materials as integer shade maps.

Coordinates are thousandths of the sheet's side, so that a drawing is the same at any size. All
arithmetic is in integers, or in the four IEEE operations: no sine, root or exponential, whose last
bit may differ between processors.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[int, int]
Shade = npt.NDArray[np.int32]  # (H, W) or anything that broadcasts to it; 128 changes nothing
NEUTRAL = 128
USUAL = 85  # percent of things in a colour that their kind usually has


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
