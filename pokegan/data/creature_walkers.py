"""Body plans that stand on the ground: each returns a creature's layers, back to front.

Units and conventions are those of `creature_parts`: the feet come to y = 1, the crown to y = -1.
"""

import math

from pokegan.data.creature_heads import crest, ears, eyes, face, head, mouth
from pokegan.data.creature_parts import (
    INK,
    WHITE,
    Dice,
    Palette,
    bat_wing,
    belly,
    feather_wing,
    mix,
    pattern,
    solid,
    spike,
    tail,
)
from pokegan.data.creature_shapes import (
    Colour,
    Frame,
    Layer,
    Mark,
    Shape,
    blend,
    circle,
    ellipse,
    leaf,
    limb,
    mirrored_pair,
    polygon,
    rosette,
    tube,
)


def _claws(x: float, y: float, w: float, colour: Colour = WHITE) -> tuple[Mark, ...]:
    """Three toes about (x, y) on the lower edge of a foot of half-width `w`."""
    return tuple(Mark(ellipse(x + k * 0.52 * w, y, 0.2 * w, 0.26 * w), colour) for k in (-1, 0, 1))


def foot(x: float, y: float, w: float, colour: Colour, clawed: bool = False) -> Layer:
    """A foot seen from the front, `w` units to each side of (x, y)."""
    return solid(ellipse(x, y, w, 0.62 * w), colour, *(_claws(x, y + 0.4 * w, w) if clawed else ()))


def _torso(f: Frame) -> Shape:
    """A pear that fills the frame."""
    return blend(0.2, f.oval(), f.oval(0, 0.4, 1.1, 0.66))


def biped(dice: Dice, palette: Palette) -> list[Layer]:
    """Big head, pear body, two arms and two feet, seen from the front."""
    w, r = dice.between(0.27, 0.4), dice.between(0.42, 0.54)
    body = Frame(0, 0.42, w, dice.between(0.34, 0.44))
    stance, clawed = w * dice.between(0.55, 0.75), dice.chance(0.4)
    thick, hand = dice.between(0.075, 0.11), (w + dice.between(0.1, 0.26), dice.between(0.02, 0.62))
    arm = solid(limb((0.72 * w, 0.24), hand, thick, thick * dice.between(0.8, 1.3)), palette.main)
    shoes = dice.pick((palette.main, palette.main, palette.main, palette.second))
    leg = solid(limb((stance, 0.66), (stance * 1.1, 0.86), 0.15, 0.13), palette.main)
    legs = [leg, foot(stance * 1.3, 0.93, dice.between(0.16, 0.22), shoes, clawed)]
    tailed, behind = dice.chance(0.75), dice.chance(0.4)
    layers = tail(dice, palette, 0.6 * w, 0.66, dice.between(0.5, 0.75)) if tailed else []
    marks = pattern(dice, palette, body) + belly(dice, palette, body)
    trunk = [solid(_torso(body), palette.main, *marks)]
    arms = mirrored_pair([arm])
    layers += mirrored_pair(legs) + (arms + trunk if behind else trunk + arms)
    return layers + head(dice, palette, 0, 0.1 - r * 0.9, r, dice.between(-0.14, 0.14))


def dragon(dice: Dice, palette: Palette) -> list[Layer]:
    """A winged biped that sits, with a long tail and a plated belly."""
    size, w = dice.between(0.62, 0.85), dice.between(0.28, 0.36)
    wing = feather_wing(0.2, 0.15, size, 1.0, palette)
    if dice.chance(0.7):
        wing = bat_wing(0.2, 0.2, size, palette)
    body, stance = Frame(0, 0.4, w, 0.4), dice.between(0.2, 0.26)
    hand = (w + dice.between(0.06, 0.18), dice.between(0.3, 0.5))
    arm = solid(limb((0.75 * w, 0.25), hand, 0.08, 0.085), palette.main)
    thigh = solid(ellipse(stance, 0.74, 0.17, 0.2), palette.main)
    layers = tail(dice, palette, 0.6 * w, 0.7, 0.7) + mirrored_pair(wing)
    layers += mirrored_pair([foot(stance * 1.2, 0.9, 0.2, palette.main, clawed=True)])
    layers.append(solid(_torso(body), palette.main, *belly(dice, palette, body, odds=1)))
    layers += mirrored_pair([thigh, arm])
    return layers + head(
        dice, palette, 0, -0.26, dice.between(0.36, 0.44), dice.between(-0.15, 0.1)
    )


def quadruped(dice: Dice, palette: Palette) -> list[Layer]:
    """A four-legged one in three-quarter view, its head to the left."""
    length, r = dice.between(0.42, 0.56), dice.between(0.4, 0.5)
    thick, drop = dice.between(0.1, 0.14), dice.between(0.72, 0.9)
    hip, dark = 0.1 + length * 0.85, mix(palette.main, INK, 0.22)
    sock = dice.pick((palette.second, palette.belly, palette.main))
    socks = Mark(ellipse(0.2, drop + 0.12, 1.2, 0.16), sock)
    near = [limb((x, 0.42), (x - 0.02, drop), thick * 1.1, thick * 1.1) for x in (-0.24, hip)]
    far = [limb((x, 0.4), (x, drop - 0.06), thick, thick) for x in (-0.02, hip - 0.2)]
    barrel = blend(0.15, ellipse(0.2, 0.32, length, 0.3), ellipse(-0.2, 0.26, 0.3, 0.3))
    layers: list[Layer] = []
    if dice.chance(0.9):
        layers = tail(dice, palette, 0.1 + length, 0.25, dice.between(0.55, 0.8))
    layers += [solid(shape, dark) for shape in far] + _back_gear(dice, palette)
    layers.append(solid(near[0], palette.main, socks))
    marks = pattern(dice, palette, Frame(0.2, 0.3, length, 0.3))
    layers.append(solid(barrel, palette.main, *marks))
    layers.append(solid(blend(0.08, circle(hip, 0.36, 0.2), near[1]), palette.main, socks))
    if dice.chance(0.4):
        layers.append(solid(rosette(-0.3, 0.16, 0.4, 0.09, 9, 0.3), palette.belly))
    return layers + head(dice, palette, -0.36, -0.24, r, dice.between(-0.24, -0.08))


def _back_gear(dice: Dice, palette: Palette) -> list[Layer]:
    """Spikes, a bud or a wing on a quadruped's back, or nothing."""
    thorns = [spike(x, 0.2, 0.12, 0.4 - 0.1 * abs(x - 0.22), 0.05) for x in (0.0, 0.22, 0.44, 0.64)]
    tips = ((0.0, -0.32), (0.6, -0.32), (0.3, -0.42))
    choices: tuple[list[Layer], ...] = (
        [],
        [],
        [solid(thorn, palette.second) for thorn in thorns],
        [solid(leaf((0.3, 0.25), tip, 0.42), palette.accent) for tip in tips],
        feather_wing(0.15, 0.15, dice.between(0.5, 0.7), 1.15, palette),
    )
    return dice.pick(choices)


def turtle(dice: Dice, palette: Palette) -> list[Layer]:
    """A domed shell on four stubs, the head to the left."""
    shell = Frame(0.18, 0.45, dice.between(0.58, 0.68), dice.between(0.6, 0.8))
    stub, dark = dice.between(0.13, 0.17), mix(palette.main, INK, 0.22)
    dome = shell.oval().within(Frame(0.18, -0.1, 1.6 * shell.rx, 0.7).oval())
    rim = tube(shell.path((-1, 0.02), (0, 0.24), (1, 0.02)), 0.08, 0.08)
    far = [solid(limb((x, 0.55), (x, 0.82), stub, stub), dark) for x in (0.08, 0.7)]
    near = [
        solid(
            limb((x, 0.6), (x - 0.03, 0.88), stub, 1.15 * stub),
            palette.main,
            *_claws(x, 0.97, stub),
        )
        for x in (-0.16, 0.5)
    ]
    rump = solid(limb((0.7, 0.56), (1.0, 0.5), 0.1, 0.02), palette.main)
    plate = dice.pick((palette.accent, palette.belly, mix(palette.second, palette.belly, 0.45)))
    thorns = [spike(u, v, 0.14, 0.5, 0.05) for u, v in ((-0.12, 0.25), (0.52, 0.25), (0.2, 0.1))]
    layers = [solid(thorn, plate) for thorn in thorns] if dice.chance(0.2) else []
    layers += [
        rump,
        *far,
        solid(dome, palette.second, *_plates(dice, palette, shell, plate)),
        *near,
    ]
    layers.append(solid(rim, palette.belly))
    return layers + head(
        dice, palette, -0.46, 0.14, dice.between(0.38, 0.44), dice.between(-0.22, -0.08)
    )


def _plates(dice: Dice, palette: Palette, f: Frame, colour: Colour) -> list[Mark]:
    """Hexagons, rings or freckles on a shell."""
    cells = ((0.0, -0.42, 0.19), (-0.6, -0.15, 0.14), (0.6, -0.15, 0.14), (0.0, 0.12, 0.13))
    corners = [(math.cos(k * math.pi / 3), math.sin(k * math.pi / 3)) for k in range(6)]
    hexagons = [polygon(Frame(*f.at(u, v), r, r).path(*corners), 0.02) for u, v, r in cells]
    dots = ((-0.1, -0.55, 0.13), (0.5, -0.35, 0.1), (0.25, 0.0, 0.09), (-0.5, -0.1, 0.1))
    choices = (
        [Mark(hexagon, colour) for hexagon in hexagons],
        [Mark(circle(*f.at(u, v), r), colour) for u, v, r in dots],
        [Mark(f.oval(0, 0, k, k), c) for k, c in ((0.78, colour), (0.5, palette.second))],
    )
    return dice.pick((choices[0], *choices))


def blob(dice: Dice, palette: Palette) -> list[Layer]:
    """A round or gumdrop body that is its own head, with stubs for arms and feet."""
    f = Frame(0, 0.1, dice.between(0.66, 0.8), dice.between(0.58, 0.74))
    gum = blend(0.3, f.oval(0, -0.15, 0.8, 1), f.oval(0, 0.3, 1, 0.6))
    body = dice.pick((f.oval(), gum, gum, rosette(0, 0.1, f.rx, 0.07, dice.whole(9, 13), 0.2)))
    marks = pattern(dice, palette, f)
    if dice.chance(0.5):
        marks.append(Mark(f.oval(0, 0.62, 0.55, 0.5), palette.belly))
    shoes = dice.pick((palette.main, palette.second))
    step = foot(0.42 * f.rx, 0.1 + 0.95 * f.ry, dice.between(0.17, 0.24), shoes, dice.chance(0.3))
    hand = (f.rx + 0.16, 0.22 - dice.between(-0.12, 0.3))
    arm = solid(limb((0.85 * f.rx, 0.22), hand, 0.1, 0.11), palette.main)
    eared, crown = dice.chance(0.75), f.at(0, -1.0)[1]
    layers = tail(dice, palette, 0.6 * f.rx, 0.45, 0.6) if dice.chance(0.35) else []
    layers += ears(dice, palette, Frame(0, 0.1, 0.9 * f.rx, f.ry)) if eared else []
    layers += mirrored_pair([step]) if dice.chance(0.85) else []
    layers += mirrored_pair([arm]) if dice.chance(0.7) else []
    layers.append(solid(body, palette.main, *marks))
    layers += face(dice, palette, dice.between(-0.12, 0.12), -0.02, dice.between(0.5, 0.62))
    return layers + crest(dice, palette, 0, crown, 0.3 if eared else 1.0)


def caterpillar(dice: Dice, palette: Palette) -> list[Layer]:
    """A chain of shrinking segments behind a large head, on stubby feet."""
    segments, arch, spiked = dice.whole(3, 5), dice.between(-0.5, 0.1), dice.chance(0.35)
    tint = mix(palette.main, palette.second, 0.45)
    layers: list[Layer] = []
    for k in range(segments, 0, -1):
        t = k / segments
        x, y, r = -0.28 + t, 0.42 + arch * t * t + 0.05 * (k % 2), 0.36 - 0.14 * t
        if spiked:
            layers.append(solid(spike(x + 0.03, y - 0.75 * r, 0.1, 0.8 * r, 0.04), palette.accent))
        dot = Mark(circle(x + 0.05, y - 0.1, 0.32 * r), palette.belly)
        layers.append(solid(ellipse(x - 0.02, y + 0.95 * r, 0.11, 0.1), palette.second))
        layers.append(solid(circle(x, y, r), palette.main if k % 2 else tint, dot))
    layers += [solid(ellipse(x, 0.56, 0.12, 0.11), palette.second) for x in (-0.52, -0.2)]
    return layers + head(dice, palette, -0.38, 0.12, dice.between(0.4, 0.48), -0.12)


def crab(dice: Dice, palette: Palette) -> list[Layer]:
    """A wide shell between two claws, on six legs; its silhouette is symmetric."""
    f = Frame(0, 0.2, dice.between(0.5, 0.62), dice.between(0.34, 0.46))
    grip, lift = dice.between(0.2, 0.3), dice.between(-0.5, -0.2)
    reach, layers = f.rx + dice.between(0.14, 0.22), []
    for k in range(3):
        knee, toe = (f.rx + 0.2, 0.22 + 0.16 * k), (f.rx + 0.14 - 0.04 * k, 0.5 + 0.14 * k)
        layers.append(
            solid(tube([(0.6 * f.rx, 0.3 + 0.08 * k), knee, toe], 0.06, 0.03), palette.second)
        )
    arm = tube([(0.8 * f.rx, 0.15), (reach, 0.1), (reach, lift)], 0.07, 0.08)
    claw = Frame(reach, lift - 0.12, grip, grip * 1.15)
    notch = polygon(claw.path((-0.2, 0.1), (-1.0, -1.7), (0.3, -1.7)))
    layers += [solid(arm, palette.main), solid(claw.oval().minus(notch), palette.main)]
    layers = mirrored_pair(layers)
    marks = [*pattern(dice, palette, f), Mark(f.oval(0, 0.9, 0.8, 0.7), palette.belly)]
    shell = solid(f.oval(), palette.main, *marks)
    if dice.chance(0.5):
        return [*layers, shell, *face(dice, palette, 0, 0.12, 0.42)]
    stalk = blend(0.05, limb((0.2, 0), (0.22, -0.3), 0.07, 0.07), circle(0.22, -0.34, 0.19))
    layers += [*mirrored_pair([solid(stalk, palette.main)]), shell]
    return layers + eyes(dice, palette, 0, -0.34, 0.22, 0.16) + mouth(dice, 0, 0.2, 0.14)
