"""Objects that keep their form: batteries, glass, metal, cartons, plastic containers.

Each function draws one of its class's variants on a canvas. Colours come from the palette that all
classes share; outline, texture and gloss tell the class.
"""

from weighin.data.demo.canvas import Canvas, Colour, contrast, tone

STEEL = (175, 175, 180)
BOTTLE_GLASS = ((40, 120, 65), (110, 65, 25), (195, 225, 225))  # green, brown, clear
PET = ((165, 205, 230), (225, 230, 235), (45, 150, 95), (230, 225, 80))
CARTON = ((240, 238, 230), (225, 235, 245))
CELL = ((35, 35, 40), (30, 60, 140), (200, 40, 35), (215, 160, 40))


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
        _flask(c, wide - inset, neck - inset, shoulder, top + inset, colour, seen)
    if c.chance(40):
        label = c.paint()
        c.box(528 - wide, 600, 472 + wide, c.roll(720, 800), label, 245)
        c.line([(560 - wide, 660), (440 + wide, 660)], 22, contrast(label))
    lip = neck + 18
    c.rounded(500 - lip, top, 500 + lip, top + 50, 18, tone(tint, 80), 240)
    side = 1 if c.chance(50) else -1
    edge = 500 + side * (wide - 70)
    c.line([(edge, shoulder + 40), (edge, 840)], 30, (250, 252, 255), 245)
    c.line([(500 + side * (neck - 45), top + 70), (edge, shoulder + 20)], 20, (250, 252, 255), 230)
    inner = 500 - side * (wide - 55)
    c.line([(inner, shoulder + 120), (inner, 780)], 14, (235, 240, 245), 200)
    c.oval(520 - wide, 850, 480 + wide, 905, tone(tint, 75), 210)


def _flask(
    c: Canvas, wide: int, neck: int, shoulder: int, top: int, colour: Colour, alpha: int
) -> None:
    """Fill a bottle's outline: neck, sloping shoulder, straight body, round foot."""
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
