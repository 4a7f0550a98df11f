"""Objects that fold, crumple or crumble: clothing, paper, bags, styrofoam.

Each function draws one of its class's variants on a canvas. Colours come from the palette that all
classes share; outline, texture and gloss tell the class.
"""

from weighin.data.demo.canvas import NEUTRAL, Canvas, Colour, Point, contrast, tone

CLOTH = ((50, 75, 130), (45, 45, 55), (170, 50, 50), (215, 205, 190))
SHEET = ((240, 240, 235), (235, 225, 195), (205, 205, 200))
BOARD = (185, 145, 100)
FILM = ((235, 238, 240), (40, 42, 46), (120, 165, 200))
FOAM = (240, 242, 242)
# sixteen directions, in thousandths: a circle without a sine
CIRCLE: tuple[Point, ...] = (
    *((1000, 0), (924, 383), (707, 707), (383, 924), (0, 1000), (-383, 924), (-707, 707)),
    *((-924, 383), (-1000, 0), (-924, -383), (-707, -707), (-383, -924), (0, -1000)),
    *((383, -924), (707, -707), (924, -383)),
)


def clothing(c: Canvas) -> None:
    """Draw a shirt or trousers: cut, weave, printed stripes or checks, soft folds."""
    cloth = c.dye(*CLOTH)
    if c.chance(60):
        _shirt(c, cloth)
    else:
        _trousers(c, cloth)
    _dye(c, cloth)
    c.shade(c.weave(c.roll(20, 28), 14))
    c.shade(c.clouds(5, 60))


def _shirt(c: Canvas, cloth: Colour) -> None:
    sleeve, hem = c.roll(380, 640), c.roll(800, 900)
    waist = c.roll(0, 40)
    half = [(410, 160), (300, 180), (90, sleeve - 60), (210, sleeve), (300, 400)]
    half += [(300 + waist, 600), (290, hem)]
    c.polygon(half + [(1000 - x, y) for x, y in reversed(half)], cloth)
    c.oval(410, 100, 590, 240, tone(cloth, 45))
    c.oval(425, 85, 575, 205, (0, 0, 0), 0)
    if c.chance(40):
        c.line([(500, 240), (500, hem)], 14, tone(cloth, 55))


def _trousers(c: Canvas, cloth: Colour) -> None:
    knee, hem, short = c.roll(0, 30), c.roll(20, 70), c.roll(580, 920)
    half = [(310, 110), (270, 300), (250 - knee, short), (430 - hem, short), (500, 400)]
    c.polygon(half + [(1000 - x, y) for x, y in reversed(half[:-1])], cloth)
    c.box(310, 110, 690, 165, tone(cloth, 60))
    c.line([(500, 165), (500, 400)], 12, tone(cloth, 55))
    c.line([(310, 230), (390, 170)], 12, tone(cloth, 55))
    c.line([(690, 230), (610, 170)], 12, tone(cloth, 55))


def _dye(c: Canvas, cloth: Colour) -> None:
    """Print stripes or checks on what is drawn; its outline stays."""
    kind, period = c.roll(0, 3), c.side * c.roll(60, 120) // 1000 + 2
    rows = c.noise(1, 1, c.side)[:, :1] * 0 + NEUTRAL
    stripe = rows.copy()
    stripe[[y for y in range(c.side) if y % period < period // 2]] = c.roll(70, 100)
    if kind in (1, 3):
        c.shade(stripe)
    if kind in (2, 3):
        c.shade(stripe.T)


def paper(c: Canvas) -> None:
    """Draw a printed sheet, an opened cardboard box or a crumpled sheet."""
    kind = c.roll(0, 2)
    if kind == 1:
        _cardboard(c, c.dye(BOARD))
        return
    sheet = c.dye(*SHEET)
    x0, x1, y0, y1 = c.roll(150, 250), c.roll(750, 850), c.roll(100, 200), c.roll(800, 900)
    outline = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    if kind == 2:
        outline = [
            (x, y)
            for p, q in zip(outline, outline[1:] + outline[:1], strict=True)
            for x, y in _torn(c, p, q)
        ]
    elif c.chance(50):
        outline[1:2] = [(x1 - 130, y0), (x1, y0 + 130)]
    c.polygon(outline, sheet)
    ink, left = contrast(sheet), x0 + 70
    c.line([(left, y0 + 90), (c.roll(450, x1 - 150), y0 + 90)], 40, ink)
    for y in range(y0 + 170, y1 - 60, c.roll(50, 70)):
        c.line([(left, y), (x1 - c.roll(70, 250), y)], 16, tone(ink, 150))
    if len(outline) == 5:
        c.polygon([outline[1], outline[2], (x1 - 130, y0 + 130)], tone(sheet, 65))
    if kind == 2:
        c.shade(c.facets(6, 30))
    else:
        _fold(c)


def _torn(c: Canvas, start: Point, end: Point) -> list[Point]:
    """Return a side of a sheet, bent at four places."""
    bends = range(4)
    return [
        (
            start[0] + (end[0] - start[0]) * step // 4 + c.roll(-30, 30),
            start[1] + (end[1] - start[1]) * step // 4 + c.roll(-30, 30),
        )
        for step in bends
    ]


def _fold(c: Canvas) -> None:
    """Shade the two halves of a folded sheet apart."""
    shade = c.clouds(3, 14)
    place = c.side * c.roll(400, 600) // 1000
    shade[place:] -= c.roll(12, 30)
    c.shade(shade)


def _cardboard(c: Canvas, board: Colour) -> None:
    x0, x1, y0, y1 = c.roll(240, 300), c.roll(700, 760), c.roll(330, 400), c.roll(720, 800)
    flap = c.roll(110, 180)
    c.polygon([(x0, y0), (x1, y0), (x1 + 60, y0 - flap), (x0 - 60, y0 - flap)], tone(board, 120))
    c.polygon([(x0, y0), (x0, y1), (x0 - flap, y1 - 70), (x0 - flap, y0 + 50)], tone(board, 75))
    c.polygon([(x1, y0), (x1, y1), (x1 + flap, y1 - 70), (x1 + flap, y0 + 50)], tone(board, 65))
    c.polygon([(x0, y1), (x1, y1), (x1 + 50, y1 + flap), (x0 - 50, y1 + flap)], tone(board, 90))
    c.box(x0, y0, x1, y1, board)
    for x in range(x0 + 25, x1, 40):  # corrugation shows through
        c.line([(x, y0), (x, y1)], 10, tone(board, 85))
    c.box(450, y0, 550, y1, tone(board, 135))
    for side in ([(x0, y0), (x1, y0)], [(x0, y0), (x0, y1)], [(x1, y0), (x1, y1)]):
        c.line(side, 12, tone(board, 45))
    c.shade(c.clouds(4, 20))


def plasticbag(c: Canvas) -> None:
    """Draw a crumpled, half see-through bag: with two handles, or tied with a knot."""
    film, alpha = c.dye(*FILM), c.roll(150, 240)
    tied = c.chance(40)
    wide, high, centre = c.roll(270, 350), c.roll(270, 340), 590
    blob = [
        (500 + x * (wide + c.roll(-45, 45)) // 1000, centre + y * (high + c.roll(-45, 45)) // 1000)
        for x, y in CIRCLE
    ]
    c.polygon(blob, film, alpha)
    if tied:
        c.polygon([(450, 330), (550, 330), (660, c.roll(90, 170)), (520, 190), (390, 110)], film)
        c.oval(445, 265, 555, 345, tone(film, 60))
    else:
        for x, lean in ((370, -60), (630, 60)):
            c.line(
                [(x - 75, 400), (x - 55 + lean, 150), (x + 45 + lean, 150), (x + 75, 400)],
                52,
                film,
                alpha,
            )
    if c.chance(35):
        ink = c.paint()
        c.oval(390, 500, 610, 700, ink, alpha)
    c.shade(c.facets(c.roll(7, 10), 42))
    for _ in range(c.roll(6, 10)):
        start = (500 + c.roll(-60, 60), 330 + c.roll(0, 90))
        x, y = CIRCLE[c.roll(0, 8)]
        reach = c.roll(120, 300)
        end = (start[0] + x * reach // 1000, start[1] + y * reach // 1000 + 150)
        c.line([start, end], 9, tone(film, c.roll(60, 150)), min(255, alpha + 40))


def styrofoam(c: Canvas) -> None:
    """Draw a foam tray, a moulded corner or a broken chunk, all of packed beads."""
    foam, kind = c.dye(FOAM), c.roll(0, 2)
    if kind == 0:
        x0, y0 = c.roll(110, 170), c.roll(180, 300)
        c.rounded(x0, y0, 1000 - x0, 1000 - y0, 90, foam)
        c.rounded(x0 + 75, y0 + 75, 925 - x0, 925 - y0, 70, tone(foam, 72))
        c.rounded(x0 + 100, y0 + 105, 925 - x0, 925 - y0, 60, tone(foam, 90))
    elif kind == 1:
        a, b = c.roll(380, 480), c.roll(420, 540)
        c.polygon([(150, 180), (850, 180), (850, b), (a, b), (a, 850), (150, 850)], foam)
        c.polygon([(850, b), (a, b), (a + 70, b + 70), (910, b + 70)], tone(foam, 60))
        c.polygon([(a, b), (a, 850), (a + 70, 900), (a + 70, b + 70)], tone(foam, 75))
        c.polygon([(150, 850), (a, 850), (a + 70, 900), (210, 900)], tone(foam, 60))
    else:
        ring = [
            (500 + x * c.roll(280, 400) // 1000, 500 + y * c.roll(250, 380) // 1000)
            for x, y in CIRCLE[::2]
        ]
        c.polygon([(x + 50, y + 70) for x, y in ring], tone(foam, 60))
        c.polygon(ring, foam)
    c.shade(c.beads(c.roll(17, 23), 34))
