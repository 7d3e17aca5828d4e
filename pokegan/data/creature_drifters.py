"""Body plans that swim, fly, crawl or grow: each returns a creature's layers, back to front.

Units and conventions are those of `creature_parts`: about y = -1 at the top to y = 1 at the bottom.
"""

from pokegan.data.creature_heads import broad_skull, crest, ears, eyes, face, head, mouth
from pokegan.data.creature_parts import (
    INK,
    Dice,
    Palette,
    feather_wing,
    mix,
    pattern,
    solid,
    sprig,
)
from pokegan.data.creature_shapes import (
    Colour,
    Frame,
    Layer,
    Mark,
    Shape,
    band,
    blend,
    circle,
    ellipse,
    leaf,
    limb,
    mirrored_pair,
    polygon,
    rosette,
    tube,
    union,
)
from pokegan.data.creature_walkers import foot


def bird(dice: Dice, palette: Palette) -> list[Layer]:
    """An egg-shaped bird from the front: beak, wings, two thin legs."""
    f = Frame(0, 0.2, dice.between(0.42, 0.56), dice.between(0.5, 0.62))
    top, x = -0.05 - 0.5 * f.ry, dice.between(-0.1, 0.04)
    gold = dice.pick(((0.98, 0.74, 0.25), (0.95, 0.55, 0.25), palette.accent))
    body = blend(0.2, f.oval(), circle(0, top, 0.4))
    marks = [*pattern(dice, palette, f), Mark(f.oval(0, 0.42, 0.62, 0.62), palette.belly)]
    if dice.chance(0.4):
        disc = circle(0.15, top, 0.26)
        marks += [Mark(disc, palette.belly), Mark(disc.mirrored(), palette.belly)]
    toes = [limb((0.2, 0.86), (0.2 + dx, 0.97), 0.035, 0.045) for dx in (-0.13, 0.0, 0.13)]
    leg = solid(union(limb((0.2, 0.6), (0.2, 0.88), 0.04, 0.04), *toes), gold)
    wing = feather_wing(
        0.82 * f.rx, 0.05, dice.between(0.5, 0.72), dice.between(-0.7, 0.9), palette
    )
    plumes = [leaf((0.15, 0.5), (0.62 + 0.12 * i, 0.86 - 0.22 * i), 0.22) for i in range(3)]
    layers = [solid(union(*plumes), palette.second)] if dice.chance(0.4) else []
    layers += mirrored_pair([leg]) + mirrored_pair(wing)
    layers += crest(dice, palette, 0, top - 0.34, 0.6)
    layers.append(solid(body, palette.main, *marks))
    layers += eyes(dice, palette, x, top + 0.02, dice.between(0.17, 0.22), dice.between(0.12, 0.16))
    return layers + _beak(dice, gold, x, top + 0.14)


def _beak(dice: Dice, colour: Colour, x: float, y: float) -> list[Layer]:
    half, long = dice.between(0.09, 0.16), dice.between(0.12, 0.24)
    gape = Mark(limb((x - 0.3, y + 0.06), (x + 0.3, y + 0.06), 0.012, 0.012), INK)
    return [solid(polygon([(x - half, y), (x + half, y), (x, y + long)], 0.03), colour, gape)]


def fish(dice: Dice, palette: Palette) -> list[Layer]:
    """A fish in side view that swims to the left."""
    w, h = dice.between(0.56, 0.7), dice.between(0.42, 0.58)
    slim = blend(0.25, ellipse(-0.12, 0, w * 0.8, h), leaf((-0.75, 0), (w + 0.12, 0), h * 1.3))
    body = slim if dice.chance(0.75) else rosette(-0.1, 0, w * 0.9, 0.06, 15, 0.1)
    marks = [Mark(ellipse(-0.2, 0.75 * h, 0.9 * w, 0.55 * h), palette.belly)]
    marks += pattern(dice, palette, Frame(-0.05, 0, w, h))
    if dice.chance(0.4):
        bars = [tube([(x, -h), (x + 0.1, 0), (x, h)], 0.05, 0.05, steps=3) for x in (0.02, 0.26)]
        marks += [Mark(bar, palette.second) for bar in bars]
    layers = [solid(fin, palette.second) for fin in _fins(dice, w, h)]
    paddle = [limb((0.08, 0.1), (0.36, 0.1 + v), 0.06, 0.07) for v in (-0.06, 0.09, 0.24)]
    layers += [solid(body, palette.main, *marks), solid(blend(0.04, *paddle), palette.second)]
    layers += eyes(dice, palette, -0.34, -0.1, 0.0, dice.between(0.17, 0.22))[1:]
    layers += mouth(dice, -0.5, 0.18, 0.09)
    if dice.chance(0.25):
        rod = tube([(-0.3, -0.7 * h), (-0.42, -h - 0.22), (-0.7, -h - 0.14)], 0.03, 0.022)
        bulb = circle(-0.72, -h - 0.1, 0.08)
        layers = [solid(rod, palette.second), solid(bulb, palette.accent), *layers]
    return layers


def _fins(dice: Dice, w: float, h: float) -> list[Shape]:
    """Tail, dorsal and belly fin of a fish of half-length `w` and half-height `h`."""
    spread, x, rise = dice.between(0.35, 0.62), w + 0.02, dice.between(0.18, 0.4)
    lobes = [leaf((x - 0.2, 0), (x + 0.42, sign * spread), 0.34) for sign in (-1, 1)]
    if dice.chance(0.5):
        lobes.append(leaf((x - 0.2, 0), (x + 0.36, 0), 0.3))
    sail = leaf((-0.4, -0.6 * h), (0.46, -h - rise), 0.42)
    back = blend(0.12, sail, leaf((-0.1, -0.6 * h), (0.5, -0.8 * h), 0.36))
    keel = leaf((-0.2, 0.6 * h), (0.36, h + dice.between(0.1, 0.3)), 0.3)
    return [blend(0.05, *lobes), back, keel]


_COILS = (
    ((0.92, 0.1), (0.82, 0.46), (0.46, 0.74), (-0.08, 0.8), (-0.5, 0.64), (-0.5, 0.32), (0.0, 0.1)),
    ((0.8, 0.5), (0.62, 0.78), (0.1, 0.86), (-0.42, 0.7), (-0.2, 0.44), (0.3, 0.36), (0.36, 0.08)),
    ((0.6, 0.1), (0.86, 0.2), (0.86, 0.56), (0.5, 0.8), (-0.1, 0.82), (-0.5, 0.6), (-0.38, 0.2)),
)


def serpent(dice: Dice, palette: Palette) -> list[Layer]:
    """A snake whose neck rises from its coils."""
    thick, stretch = dice.between(0.15, 0.21), dice.between(0.9, 1.1)
    path = [(u * stretch, v) for u, v in dice.pick(_COILS)] + [(0.02, -0.16), (-0.06, -0.4)]
    body = tube(path, 0.03, thick, steps=5, taper=0.5)
    rings = [Mark(circle(*point, 0.09), palette.second) for point in path[1:-1]]
    stripe = Mark(
        tube([(u + 0.02, v + 0.06) for u, v in path], 0.01, 0.4 * thick, 3), palette.belly
    )
    marks = dice.pick(([], rings, [stripe], [stripe, *rings]))
    end = path[0]
    layers = [solid(body, palette.main, *marks)]
    if dice.chance(0.4):
        plume = leaf((end[0], end[1] + 0.12), (end[0] + 0.04, end[1] - 0.38), 0.26)
        layers.insert(0, solid(plume, palette.accent))
    if dice.chance(0.3):
        hood = blend(0.2, ellipse(-0.05, -0.2, 0.42, 0.4), ellipse(-0.05, 0.05, 0.2, 0.3))
        layers.append(
            solid(hood, palette.main, Mark(ellipse(-0.05, -0.1, 0.24, 0.4), palette.belly))
        )
    return layers + head(dice, palette, -0.1, -0.5, dice.between(0.38, 0.46), -0.12)


def butterfly(dice: Dice, palette: Palette) -> list[Layer]:
    """Four spotted wings about a small round body; its silhouette is symmetric."""
    up, out = dice.between(0.3, 0.5), dice.between(0.56, 0.68)
    inks = (palette.accent, palette.second), (palette.second, palette.belly)
    hue, rim = dice.pick((*inks, (palette.belly, palette.accent)))
    spots = [Mark(circle(out, -up, 0.17), rim), Mark(circle(out, -up, 0.08), palette.main)]
    if dice.chance(0.3):
        ring = circle(0, 0, out + 0.14).minus(circle(0, 0, out + 0.03))
        spots = [Mark(ring, mix(hue, rim, 0.6))]
    upper, lower = _butterfly_wings(dice, up, out)
    low_spot = Mark(circle(0.52, 0.5, 0.13), rim)
    wings = [solid(lower, mix(hue, palette.belly, 0.4), low_spot), solid(upper, hue, *spots)]
    levels = (0.3, 0.48, 0.64)
    rings = [Mark(limb((-0.3, y), (0.3, y), 0.035, 0.035), palette.second) for y in levels]
    feeler = solid(tube([(0.12, -0.4), (0.14, -0.7), (0.3, -0.84)], 0.028, 0.022), palette.second)
    knob = solid(circle(0.3, -0.84, dice.between(0.05, 0.08)), palette.accent)
    skull = ellipse(0, -0.16, dice.between(0.34, 0.42), dice.between(0.31, 0.35))
    layers = [*mirrored_pair(wings), solid(ellipse(0, 0.36, 0.19, 0.4), palette.main, *rings)]
    layers += [*mirrored_pair([feeler, knob]), solid(skull, palette.main)]
    return layers + face(dice, palette, dice.between(-0.04, 0.04), -0.18, 0.4)


def _butterfly_wings(dice: Dice, up: float, out: float) -> tuple[Shape, Shape]:
    """The right upper wing, centred on (out, -up), and the right lower one."""
    root = limb((0.05, 0.1), (out * 0.7, -0.7 * up), 0.12, 0.24)
    upper = blend(0.2, ellipse(out, -up, 0.36, dice.between(0.27, 0.34), -0.6), root)
    if dice.chance(0.35):
        upper = polygon([(0.1, 0.12), (out + 0.22, -up - 0.24), (out + 0.14, 0.0)], 0.14)
    lobe = ellipse(0.5, 0.48, dice.between(0.27, 0.33), dice.between(0.2, 0.26), 0.6)
    lower = blend(0.2, lobe, limb((0.05, 0.15), (0.4, 0.35), 0.1, 0.2))
    if dice.chance(0.3):
        lower = blend(0.1, lower, limb((0.5, 0.5), (0.66, 0.9), 0.1, 0.05))
    return upper, lower


def ghost(dice: Dice, palette: Palette) -> list[Layer]:
    """A floating spirit that ends in a wisp or in rags, with loose hands."""
    w, swing = dice.between(0.5, 0.6), dice.between(-0.1, 0.3)
    skull = ellipse(0, -0.25, w, 0.54)
    waist = limb((0, -0.1), (0.3 * swing, 0.45), 0.88 * w, 0.42 * w)
    body = blend(0.3, skull, waist, limb((0.3 * swing, 0.5), (swing + 0.25, 0.95), 0.3 * w, 0.03))
    if dice.chance(0.5):
        hems = [(k * 0.7 * w, 0.66 + 0.1 * (k == 0)) for k in (-1, 0, 1)]
        rags = [limb((0.6 * x, 0.1), (x, y), 0.4 * w, 0.27 * w) for x, y in hems]
        body = blend(0.06, blend(0.2, skull, ellipse(0, 0.1, w * 0.96, 0.4)), *rags)
    hand = ellipse(w + 0.2, dice.between(-0.25, 0.25), 0.14, 0.12)
    if dice.chance(0.6):
        hand = limb((0.8 * w, 0.05), (w + 0.2, dice.between(-0.35, 0.3)), 0.09, 0.1)
    layers = ears(dice, palette, Frame(0, -0.25, w, 0.52)) if dice.chance(0.6) else []
    layers += mirrored_pair([solid(hand, palette.main)])
    layers.append(solid(body, palette.main, *pattern(dice, palette, Frame(0, -0.1, w, 0.7))))
    layers += face(dice, palette, dice.between(-0.12, 0.06), -0.25, 0.54)
    return layers + crest(dice, palette, 0, -0.76)


def jelly(dice: Dice, palette: Palette) -> list[Layer]:
    """A bell over waving tentacles; its silhouette is symmetric."""
    w, h, brim = dice.between(0.62, 0.78), dice.between(0.62, 0.8), 0.25
    wave, long = dice.between(-0.05, 0.14), dice.between(0.8, 1.05)
    arms = []
    for u, tint in ((0.6, 0.5), (0.21, 0.8)):
        path = [(u * w, 0.2), (u * w + wave, 0.5), (1.15 * u * w - wave, 0.72), (1.3 * u * w, long)]
        arms.append(solid(tube(path, 0.1, 0.05, 4), mix(palette.main, palette.second, tint)))
    marks = pattern(dice, palette, Frame(0, -0.1, w, 0.8 * h))
    if dice.chance(0.6):
        gem = dice.pick((palette.accent, palette.second, palette.belly))
        marks += [Mark(circle(u * w, -0.36 - 0.3 * (u == 0), 0.1), gem) for u in (-0.5, 0.0, 0.5)]
    bell = ellipse(0, brim, w, 1.15 * h).within(band((2, brim), (-2, brim)))
    hem = [circle(k * w / 3.5, brim, w / 6) for k in range(-3, 4)]
    hem.append(limb((-0.95 * w, brim - 0.03), (0.95 * w, brim - 0.03), 0.06, 0.06))
    layers = ears(dice, palette, Frame(0, -0.1, 0.9 * w, 0.8 * h)) if dice.chance(0.25) else []
    layers += [*mirrored_pair(arms), solid(union(*hem), palette.belly)]
    layers.append(solid(bell, palette.main, *marks))
    return layers + face(dice, palette, dice.between(-0.08, 0.08), -0.06, 0.5)


def sprout(dice: Dice, palette: Palette) -> list[Layer]:
    """A plant: a bulb or a flower for a head, leaves for arms."""
    green = dice.pick(((0.45, 0.72, 0.36), (0.33, 0.62, 0.45), palette.main))
    r, droop = dice.between(0.46, 0.56), dice.between(0.1, 0.5)
    vein = Mark(limb((0.08, 0.5), (0.6, 0.12 + 0.74 * droop), 0.012, 0.012), mix(green, INK, 0.3))
    blade = solid(leaf((0.08, 0.5), (0.72, droop), 0.28), green, vein)
    stem = blend(0.15, ellipse(0, 0.58, 0.2, 0.3), ellipse(0, 0.72, 0.27, 0.18))
    layers = mirrored_pair([blade, foot(0.17, 0.92, 0.15, palette.main)])
    layers.append(solid(stem, green))
    f = Frame(0, -0.2, r, r)
    if dice.chance(0.5):
        layers += _petals(dice, palette, f)
    else:
        layers += sprig(dice, palette, *f.at(0, -0.8), 0.5)
        layers.append(solid(broad_skull(f), palette.main, *pattern(dice, palette, f)))
    return layers + face(dice, palette, dice.between(-0.08, 0.08), -0.2, r)


def _petals(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    """A ring of petals about a round face that fills the frame."""
    hue, heart = dice.pick(
        ((palette.accent, palette.belly),) * 3 + ((palette.second, palette.main),)
    )
    ring = rosette(
        f.x, f.y, f.rx + dice.between(0.2, 0.3), 0.16, dice.whole(6, 10), dice.between(0, 1)
    )
    rim = Mark(f.oval(0, 0, 1.14, 1.14), mix(hue, palette.second, 0.5))
    return [solid(ring, hue, rim), solid(f.oval(), heart)]
