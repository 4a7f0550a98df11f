"""The things that are drawn, one function a class of waste.

Each function draws one of its class's variants on a canvas. Colours come from the palette that all
classes share; outline, texture and gloss tell the class.
"""

from weighin.data.demo.scene import NEUTRAL, Canvas, Colour, Point, contrast, tone

STEEL = (175, 175, 180)
BOTTLE_GLASS = ((40, 120, 65), (110, 65, 25), (195, 225, 225))  # green, brown, clear
PET = ((165, 205, 230), (225, 230, 235), (45, 150, 95), (230, 225, 80))
CARTON = ((240, 238, 230), (225, 235, 245))
CELL = ((35, 35, 40), (30, 60, 140), (200, 40, 35), (215, 160, 40))
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


def battery(c: Canvas) -> None:
    """Draw a cell with its terminal and band, or a block with two snaps."""
    wrap, band = c.dye(*CELL), c.paint()
    if c.chance(25):
        _block(c, wrap, band)
        return
    half = c.roll(110, 190)
    x0, x1, top = 500 - half, 500 + half, c.roll(150, 230)
    split = c.roll(300, 420)
    nub = half * 2 // 5
    c.box(x0, top, x1, 900, wrap)
    c.oval(x0, 870, x1, 930, tone(wrap, 60))
    c.box(x0, top, x1, split, band)
    c.oval(x0, top - 35, x1, top + 35, STEEL)
    c.rounded(500 - nub, top - 85, 500 + nub, top + 15, 20, STEEL)
    c.box(x0, 845, x1, 880, STEEL)
    ink = contrast(wrap)
    c.box(x0, split, x1, split + 22, ink)
    arm = half // 2
    c.line([(500 - arm, 540), (500 + arm, 540)], 34, ink)
    c.line([(500, 540 - arm), (500, 540 + arm)], 34, ink)
    c.line([(500 - arm, 760), (500 + arm, 760)], 34, ink)
    c.shade(c.cylinder(x0, x1, 95))


def _block(c: Canvas, wrap: Colour, band: Colour) -> None:
    c.box(270, 250, 730, 880, wrap)
    c.box(270, 250, 730, c.roll(380, 470), band)
    c.box(270, 235, 730, 262, (40, 40, 42))
    for x in (375, 625):
        c.box(x - 62, 170, x + 62, 240, STEEL)
        c.oval(x - 62, 150, x + 62, 195, tone(STEEL, 130))
        c.oval(x - 30, 160, x + 30, 185, (50, 50, 52))
    ink = contrast(wrap)
    c.line([(330, 560), (430, 560)], 34, ink)
    c.line([(380, 510), (380, 610)], 34, ink)
    c.line([(570, 560), (670, 560)], 34, ink)
    c.shade(c.clouds(3, 30))


def glass(c: Canvas) -> None:
    """Draw a see-through bottle or jar: dark rims, pale inside, hard highlights."""
    tint, alpha = c.dye(*BOTTLE_GLASS), c.roll(85, 150)
    wide = c.roll(125, 215)
    jar = c.chance(30)
    neck = wide * 3 // 4 if jar else wide * 2 // 5
    shoulder, top = (c.roll(250, 300), 180) if jar else (c.roll(400, 520), 90)
    for inset, colour, seen in ((0, tone(tint, 55), 235), (28, tone(tint, 120), alpha)):
        _flask(c, (wide - inset, neck - inset), (top + inset, shoulder), colour, seen)
    if c.chance(40):
        label = c.paint()
        c.box(528 - wide, 600, 472 + wide, c.roll(720, 800), label, 245)
        c.line([(560 - wide, 660), (440 + wide, 660)], 22, contrast(label))
    lip = neck + 18
    c.rounded(500 - lip, top, 500 + lip, top + 50, 18, tone(tint, 80), alpha=240)
    side = 1 if c.chance(50) else -1
    edge = 500 + side * (wide - 70)
    c.line([(edge, shoulder + 40), (edge, 840)], 30, (250, 252, 255), 245)
    c.line([(500 + side * (neck - 45), top + 70), (edge, shoulder + 20)], 20, (250, 252, 255), 230)
    inner = 500 - side * (wide - 55)
    c.line([(inner, shoulder + 120), (inner, 780)], 14, (235, 240, 245), 200)
    c.oval(520 - wide, 850, 480 + wide, 905, tone(tint, 75), 210)


def _flask(
    c: Canvas, halves: tuple[int, int], heights: tuple[int, int], colour: Colour, alpha: int
) -> None:
    """Fill a bottle's outline: neck, sloping shoulder, straight body, round foot.

    `halves` are half the widths of body and neck, `heights` where the neck and the body begin.
    """
    (wide, neck), (top, shoulder) = halves, heights
    bend = shoulder - (wide - neck)
    outline = [(500 - neck, top), (500 + neck, top), (500 + neck, bend), (500 + wide, shoulder)]
    outline += [(500 + wide, 890), (500 + wide - 40, 925), (540 - wide, 925), (500 - wide, 890)]
    c.polygon([*outline, (500 - wide, shoulder), (500 - neck, bend)], colour, alpha)


def metal(c: Canvas) -> None:
    """Draw a can: ribs, rims, hard streaks of light; drink can, tin or crushed."""
    kind = c.roll(0, 2)
    wide = c.roll(170, 220) if kind != 1 else c.roll(230, 310)
    y0, y1 = (150, 880) if kind != 1 else (c.roll(220, 320), 860)
    x0, x1 = 500 - wide, 500 + wide
    body = c.dye(STEEL)
    if kind == 2:
        pinch = c.roll(50, 110)
        left = [(x0, y1), (x0 + pinch, 640), (x0 + 10, 520), (x0 + pinch // 2, 380), (x0, y0)]
        right = [(x1, y0), (x1 - pinch, 330), (x1 - 10, 470), (x1 - pinch, 600), (x1, y1)]
        c.polygon(left + right, body)
    else:
        c.box(x0, y0, x1, y1, body)
    if kind == 1:
        for y in range(y0 + 110, y1 - 80, 62):
            c.line([(x0, y), (x1, y)], 20, tone(body, 60))
            c.line([(x0, y + 20), (x1, y + 20)], 14, tone(body, 150))
    elif c.chance(70):
        ink = c.paint()
        c.polygon([(x0, c.roll(350, 550)), (x1, 330), (x1, 480), (x0, c.roll(600, 750))], ink)
    c.box(x0 + 15, y1 - 10, x1 - 15, y1 + 25, STEEL)
    c.shade(c.streaks(c.roll(7, 10), 85))
    if kind == 2:
        c.shade(c.facets(7, 45))
    c.oval(x0 - 8, y0 - 65, x1 + 8, y0 + 65, (225, 226, 230))
    c.oval(x0 + 18, y0 - 45, x1 - 18, y0 + 50, (140, 141, 146))
    c.oval(x0 + 40, y0 - 30, x1 - 60, y0 + 40, (185, 187, 192))
    if kind != 1:
        c.oval(470, y0 - 25, 560, y0 + 22, (95, 96, 100))
        c.ring(430, y0 - 18, 520, y0 + 18, 14, (230, 230, 235))


def paperpack(c: Canvas) -> None:
    """Draw a carton: two printed faces, and a gable with its crimp, or a brick with a straw."""
    face = c.dye(*CARTON)
    side, ink = tone(face, c.roll(55, 75)), c.paint()
    x0, x1, x2 = c.roll(220, 280), c.roll(540, 600), c.roll(720, 780)
    tall = c.chance(65)
    top = c.roll(330, 400) if tall else c.roll(220, 280)
    rise = 60
    c.polygon([(x0, top), (x1, top), (x1, 900), (x0, 900)], face)
    c.polygon([(x1, top), (x2, top - rise), (x2, 900 - rise), (x1, 900)], side)
    if tall:
        _gable(c, face, (x0, x1, x2), top, rise)
    else:
        ends = [(x0, top), (x1, top), (x2, top - rise), (x0 + x2 - x1, top - rise)]
        c.polygon(ends, tone(face, 125))
        c.line([(x1 - 60, top - 20), (x1 - 20, top - 170), (x1 + 70, top - 200)], 30, ink)
    _print(c, ink, x0, x1, top)
    c.polygon([(x1, 650), (x2, 650 - rise), (x2, 740 - rise), (x1, 740)], tone(ink, 65))
    c.shade(c.clouds(3, 22))


def _gable(c: Canvas, face: Colour, xs: tuple[int, int, int], top: int, rise: int) -> None:
    x0, x1, x2 = xs
    left, right, ridge = x0 + (x2 - x1) // 2, (x1 + x2) // 2, top - 165
    c.polygon([(x0, top), (x1, top), (right, ridge), (left, ridge)], tone(face, 118))
    c.polygon([(x1, top), (x2, top - rise), (right, ridge)], tone(face, 45))
    c.box(left, ridge - 75, right, ridge, tone(face, 92))
    c.line([(left, ridge), (right, ridge)], 12, tone(face, 45))
    c.line([(left, ridge - 40), (right, ridge - 40)], 8, tone(face, 70))
    c.line([(x0, top), (x1, top), (x2, top - rise)], 10, tone(face, 55))
    if c.chance(40):
        x, cap = (x0 + x1) // 2 + 30, c.paint()
        c.oval(x - 60, top - 125, x + 60, top - 30, tone(cap, 60))
        c.oval(x - 55, top - 135, x + 55, top - 55, cap)


def _print(c: Canvas, ink: Colour, x0: int, x1: int, top: int) -> None:
    """Print a panel, a round mark and lines of text on a carton's front."""
    c.box(x0, 650, x1, 740, ink)
    middle, radius = (x0 + x1) // 2, c.roll(55, 95)
    y = c.roll(top + 110, 540)
    c.oval(middle - radius, y - radius, middle + radius, y + radius, ink)
    for line in (785, 825):
        c.line([(x0 + 50, line), (x1 - c.roll(50, 120), line)], 14, tone(ink, 70))


def plastic(c: Canvas) -> None:
    """Draw a drink bottle with cap and ridges, a tub with a lid, or a bottle with a handle."""
    body, cap = c.dye(*PET), c.paint()
    kind = c.roll(0, 2)
    if kind == 1:
        _tub(c, body, cap)
        return
    wide, alpha = c.roll(150, 210), c.roll(150, 235) if kind == 0 else 255
    shoulder = c.roll(330, 400)
    outline = [(440, 190), (560, 190), (575, 240), (500 + wide, shoulder), (500 + wide, 520)]
    waist = 500 + wide - c.roll(25, 55) if kind == 0 else 500 + wide
    outline += [(waist, 580), (500 + wide, 640), (500 + wide, 880), (460 + wide, 920)]
    c.polygon(outline + [(1000 - x, y) for x, y in reversed(outline)], body, alpha)
    if kind == 0:
        for y in (450, 505, 655, 710, 765, 820):
            c.line([(510 - wide, y), (490 + wide, y)], 16, tone(body, 65), alpha)
            c.line([(510 - wide, y + 18), (490 + wide, y + 18)], 12, tone(body, 140), alpha)
        c.box(500 - wide, 530, 500 + wide, 640, c.paint())
    else:
        c.rounded(500 + wide - 130, 400, 500 + wide - 55, 640, 35, tone(body, 35))
        c.rounded(540 - wide, 560, 500 + wide - 150, 820, 30, c.paint())
    c.shade(c.cylinder(500 - wide, 500 + wide, 50))
    c.rounded(425, 100, 575, 200, 15, cap)
    for x in range(440, 575, 30):
        c.line([(x, 110), (x, 192)], 8, tone(cap, 60))
    c.box(415, 205, 585, 228, tone(cap, 85))


def _tub(c: Canvas, body: Colour, lid: Colour) -> None:
    top, foot = c.roll(250, 310), c.roll(170, 230)
    y0, y1 = c.roll(280, 380), c.roll(780, 880)
    c.polygon([(500 - top, y0), (500 + top, y0), (500 + foot, y1), (500 - foot, y1)], body)
    c.oval(500 - foot, y1 - 35, 500 + foot, y1 + 35, body)
    for y in range(y0 + 330, y1, 45):
        c.line([(520 - foot, y), (480 + foot, y)], 12, tone(body, 65))
    c.box(490 - top, y0 + 130, 510 + top, y0 + 290, c.paint())
    for x in (500 - top - 30, 500 + top):  # the label is wider than the foot: cut it to the wall
        c.box(x - 20, y0, x + 50, y1, (0, 0, 0), 0)
    c.shade(c.cylinder(500 - top, 500 + top, 55))
    c.rounded(470 - top, y0 - 30, 530 + top, y0 + 40, 25, lid)
    c.oval(470 - top, y0 - 95, 530 + top, y0 + 40, tone(lid, 85))
    c.oval(510 - top, y0 - 75, 490 + top, y0 + 15, tone(lid, 115))


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


DRAWINGS = {
    draw.__name__.capitalize(): draw
    for draw in (battery, clothing, glass, metal, paper, paperpack, plastic, plasticbag, styrofoam)
}
