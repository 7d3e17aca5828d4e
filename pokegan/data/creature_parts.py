"""The wardrobe of the demo creatures: dice, palettes, growths, tails, wings and markings.

Every function returns layers or marks in units, back to front, and knows no body plan. A part that
comes in pairs is built for the right side; whoever uses it mirrors it.
"""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pokegan.data.creature_shapes import (
    Colour,
    Frame,
    Layer,
    Mark,
    Point,
    Shape,
    blend,
    circle,
    leaf,
    limb,
    polygon,
    rosette,
    tube,
    union,
)

T = TypeVar("T")

INK: Colour = (0.13, 0.10, 0.17)
WHITE: Colour = (1.0, 1.0, 1.0)

# element: (main, second, belly, accent), chosen by eye to sit well together
_PALETTES = {
    "ember": ("EE8440", "C4482E", "FBE3B0", "FFC83D"),
    "magma": ("D9503F", "7E2D38", "F9CF8E", "FFA632"),
    "tide": ("62AEE6", "2F6DB4", "EEF6F8", "F5A65B"),
    "deep": ("4A74C9", "2E4387", "CFE3F5", "F2C94C"),
    "leaf": ("86C96A", "3F8F58", "F4F0C2", "F0788F"),
    "moss": ("A9BC5A", "66803B", "F3E8C4", "D9703E"),
    "spark": ("F8D34C", "8F5E2F", "FFF5CC", "E8563F"),
    "mind": ("EBA0CC", "9C63C2", "FCE9F2", "63C8D4"),
    "dusk": ("6F6490", "3C3558", "CDC0E0", "E6505F"),
    "frost": ("BFE2F3", "6BA6D9", "F8FCFF", "8A7AC8"),
    "stone": ("CBAE88", "8C7058", "F0E5CE", "6F9C63"),
    "venom": ("AD74CB", "6C4093", "ECDCF3", "A2D552"),
    "blossom": ("F8AEBC", "DF6280", "FFF1ED", "86C98A"),
    "fawn": ("CF9258", "82512F", "F7E6C8", "4E90AA"),
    "steel": ("ABB8C4", "66778A", "E9EEF1", "E2574F"),
    "mint": ("8FDAC5", "3EA697", "F6FAEA", "F49DAF"),
    "coral": ("F58F77", "C4545A", "FEE9D6", "4CB3C0"),
    "cloud": ("F3EADC", "C39C82", "FFFDF8", "EE8795"),
}


class Dice:
    """The random choices of one creature: Philox keyed by (seed, index), a stream of its own."""

    def __init__(self, seed: int, index: int) -> None:
        key = np.array([seed, index], np.uint64)
        self._rng = np.random.Generator(np.random.Philox(key=key))

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._rng.random())

    def whole(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._rng.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return float(self._rng.random()) < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, all equally likely."""
        return options[self.whole(0, len(options) - 1)]


# Colours ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Palette:
    """Four colours that belong together, an iris, and the element they speak of."""

    element: str
    main: Colour
    second: Colour
    belly: Colour
    accent: Colour
    iris: Colour


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` moved by `share` in [0, 1] of the way towards `b`."""
    x, y, z = (p + (q - p) * share for p, q in zip(a, b, strict=True))
    return x, y, z


def choose_palette(dice: Dice) -> Palette:
    """One of the elements' palettes, its hue, strength and brightness jittered as a whole."""
    element = dice.pick(tuple(_PALETTES))
    turn, strength = dice.between(-0.025, 0.025), dice.between(0.88, 1.1)
    light = dice.between(0.94, 1.04)

    def jitter(text: str) -> Colour:
        red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        saturation, value = min(1, saturation * strength), min(1, value * light)
        return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)

    main, second, belly, accent = (jitter(text) for text in _PALETTES[element])
    if dice.chance(0.15):
        main, second = mix(second, main, 0.25), mix(main, belly, 0.2)
    iris = dice.pick((accent, mix(second, INK, 0.2), (0.45, 0.25, 0.2), (0.2, 0.4, 0.62)))
    return Palette(element, main, second, belly, accent, iris)


def solid(shape: Shape, colour: Colour, *marks: Mark, shading: float = 1.0) -> Layer:
    """A shaded part with an outline in a dark tone of its own colour."""
    red, green, blue = (value * 0.36 for value in colour)
    return Layer(shape, colour, mix((red, green, blue), INK, 0.45), marks, shading)


def stroke(points: Sequence[Point], width: float, colour: Colour = INK) -> Layer:
    """A line of even `width` without outline or shading."""
    return Layer(tube(points, width / 2, width / 2, steps=4), colour, shading=0)


def spike(x: float, y: float, half: float, height: float, lean: float = 0.0) -> Shape:
    """A thorn that stands on y from x - half to x + half, `height` tall, its tip off by `lean`."""
    return polygon([(x - half, y), (x + lean, y - height), (x + half, y)], 0.02)


# What grows on a creature -------------------------------------------------------------------------


def flame(x: float, y: float, size: float) -> list[Layer]:
    """A flame that stands on (x, y) and rises about `size`."""

    def tongue(share: float) -> Shape:
        f = Frame(x, y, size * share, size * share)
        tip = leaf(f.at(-0.05, -0.3), f.at(0.12, -1), 0.42 * f.rx)
        side = leaf(f.at(0.1, -0.1), f.at(0.38, -0.62), 0.26 * f.rx)
        return blend(0.12 * f.rx, f.oval(0, -0.22, 0.3, 0.26), tip, side)

    heart = Mark(tongue(0.6), (1.0, 0.87, 0.35))
    return [solid(tongue(1.0), (0.96, 0.45, 0.2), heart, shading=0.3)]


def sprig(dice: Dice, palette: Palette, x: float, y: float, size: float) -> list[Layer]:
    """Leaves or a flower that grow from (x, y)."""
    f = Frame(x, y, size, size)
    green = palette.second if palette.element == "leaf" else (0.42, 0.72, 0.36)
    tips = ((-0.85, -0.75), (0.85, -0.75), (0.0, -1.1))
    blades = [solid(leaf((x, y), f.at(u, v), 0.42 * size), green) for u, v in tips]
    if dice.chance(0.4):
        heart = Mark(f.oval(0, -0.45, 0.16, 0.16), (1.0, 0.85, 0.4))
        bloom = rosette(*f.at(0, -0.45), 0.5 * size, 0.17 * size, 5, 0.3)
        return [*blades[:2], solid(bloom, palette.accent, heart)]
    return blades[: dice.whole(2, 3)]


def tuft(dice: Dice, palette: Palette, x: float, y: float, size: float) -> list[Layer]:
    """A lock of three strands that stands on (x, y)."""
    strands = [
        leaf((x + 0.03 * i, y + 0.08), (x + 0.16 * i + 0.05, y - size + 0.08 * abs(i)), 0.13)
        for i in (-1, 1, 0)
    ]
    return [solid(union(*strands), dice.pick((palette.second, palette.main)))]


# Tails: each leaves the frame's origin to the right and upwards, to about (1, -1) -----------------

_TAIL = ((0.0, 0.0), (0.5, 0.1), (0.85, -0.35))


def tail(dice: Dice, palette: Palette, x: float, y: float, size: float) -> list[Layer]:
    """A tail that leaves (x, y) to the right and upwards, reaching about `size` units."""
    f = Frame(x, y, size, size)
    if palette.element in ("ember", "magma") and dice.chance(0.7):
        return _flame_tail(dice, palette, f)
    if palette.element == "spark" and dice.chance(0.7):
        return _bolt_tail(dice, palette, f)
    kinds = (_plain_tail, _plume, _plume, _ball_tail, _curl, _spade_tail, _leaf_tail, _fin_tail)
    return dice.pick(kinds)(dice, palette, f)


def _flame_tail(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    rope = tube(f.path(*_TAIL), 0.12 * f.rx + 0.04, 0.05)
    return [*flame(*f.at(0.85, -0.23), 0.7 * f.rx), solid(rope, palette.main)]


def _bolt_tail(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    upper = ((0, -0.16), (0.2, -0.14), (0.14, -0.42), (0.42, -0.42), (0.4, -0.75), (1.0, -1.1))
    lower = ((1.1, -0.6), (0.62, -0.55), (0.7, -0.22), (0.34, -0.25), (0.4, 0.05), (0, 0))
    root = Mark(f.oval(0.1, 0, 0.4, 0.4), palette.second)
    return [solid(polygon(f.path(*upper, *lower), 0.015), palette.main, root)]


def _plain_tail(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    rope = tube(f.path(*_TAIL, (0.8, -0.75)), 0.15 * f.rx, 0.05 * f.rx)
    return [solid(rope, palette.main, Mark(f.oval(0.82, -0.62, 0.3, 0.3), palette.second))]


def _plume(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    stem = tube(f.path(*_TAIL, (0.7, -0.75)), 0.08 * f.rx, 0.24 * f.rx)
    point = leaf(f.at(0.85, -0.4), f.at(0.45, -1.15), 0.42 * f.rx)
    tip = Mark(rosette(*f.at(0.58, -1.0), 0.42 * f.rx, 0.1 * f.rx, 9, 0.2), palette.belly)
    return [solid(blend(0.1 * f.rx, stem, point), palette.main, tip)]


def _ball_tail(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    rope = tube(f.path(*_TAIL), 0.07 * f.rx, 0.05 * f.rx)
    return [solid(rope, palette.main), solid(f.oval(0.85, -0.4, 0.22, 0.22), palette.accent)]


def _curl(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    coil = ((0.0, 0.0), (0.5, 0.12), (0.95, -0.2), (0.85, -0.65), (0.5, -0.6), (0.52, -0.36))
    return [solid(tube(f.path(*coil, (0.66, -0.38)), 0.12 * f.rx, 0.07 * f.rx, 4), palette.main)]


def _spade_tail(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    blade = polygon(f.path((0.68, -0.35), (0.95, -0.77), (1.1, -0.25)), 0.03)
    rope = tube(f.path(*_TAIL), 0.13 * f.rx, 0.05 * f.rx)
    return [solid(rope, palette.main), solid(blade, palette.second)]


def _leaf_tail(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    blade = leaf(f.at(0.4, 0.02), f.at(1.0, -0.8), 0.42 * f.rx)
    vein = Mark(
        limb(f.at(0.4, 0.02), f.at(0.9, -0.65), 0.012, 0.012), mix(palette.second, INK, 0.4)
    )
    rope = tube(f.path(*_TAIL[:2]), 0.07 * f.rx, 0.05 * f.rx)
    colour = dice.pick((palette.second, palette.accent))
    return [solid(rope, palette.main), solid(blade, colour, vein)]


def _fin_tail(dice: Dice, palette: Palette, f: Frame) -> list[Layer]:
    lobes = [leaf(f.at(0.5, 0.05), f.at(u, v), 0.3 * f.rx) for u, v in ((1.0, -0.65), (1.15, 0.12))]
    rope = tube(f.path(*_TAIL[:2]), 0.16 * f.rx, 0.08 * f.rx)
    return [solid(union(*lobes), palette.second), solid(rope, palette.main)]


# Wings --------------------------------------------------------------------------------------------


def bat_wing(x: float, y: float, size: float, palette: Palette) -> list[Layer]:
    """A right-hand wing of skin between three fingers, its root at (x, y)."""
    f = Frame(x, y, size, size)
    tips = f.path((0.55, -0.8), (1.05, -0.5), (1.1, 0.1), (0.65, 0.35))
    skin = polygon([(x, y), *tips, f.at(0, 0.3)])
    for u, v in ((1.2, -0.12), (1.0, 0.36), (0.42, 0.46)):
        skin = skin.minus(circle(*f.at(u, v), 0.24 * size))
    bones = [limb((x, y), tips[0], 0.06 * size, 0.04 * size)]
    bones.append(limb(tips[0], tips[1], 0.045 * size, 0.02 * size))
    return [solid(skin, palette.second), solid(union(*bones), palette.main)]


def feather_wing(x: float, y: float, size: float, lift: float, palette: Palette) -> list[Layer]:
    """A right-hand wing of four feathers from the shoulder (x, y); `lift` in [-1, 1] raises it."""
    plumes = []
    for i in range(4):
        angle, reach = 0.25 + 0.42 * i - lift, size * (1 - 0.1 * i)
        end = (x + reach * math.cos(angle), y + reach * math.sin(angle))
        plumes.append(limb((x, y), end, 0.1 * size, 0.12 * size))
    cover = Mark(circle(x, y, 0.55 * size), palette.main)
    return [solid(blend(0.05, *plumes), palette.second, cover)]


# Markings over a part that fills the frame --------------------------------------------------------


def belly(dice: Dice, palette: Palette, f: Frame, odds: float = 0.75) -> list[Mark]:
    """With these odds a light patch on the front of a body, sometimes with plates."""
    if not dice.chance(odds):
        return []
    patch = f.oval(0, 0.2, 0.66, 0.82)
    marks = [Mark(patch, palette.belly)]
    if dice.chance(0.3):
        line = mix(palette.belly, palette.second, 0.45)
        rungs = [limb(f.at(-1, v), f.at(1, v), 0.014, 0.014) for v in (-0.2, 0.12, 0.44)]
        marks += [Mark(rung.within(patch), line) for rung in rungs]
    return marks


def pattern(dice: Dice, palette: Palette, f: Frame) -> list[Mark]:
    """Stripes, spots, bands or a second tone over a body, or nothing."""
    colour = dice.pick((palette.second, palette.second, mix(palette.main, palette.belly, 0.6)))
    if dice.chance(0.4):
        return []
    return dice.pick((_spots, _flanks, _bands, _cap, _socks))(dice, colour, f)


def _spots(dice: Dice, colour: Colour, f: Frame) -> list[Mark]:
    marks = []
    for _ in range(dice.whole(5, 8)):
        angle, far = dice.between(0, 2 * math.pi), dice.between(0.5, 0.95)
        centre = f.at(far * math.cos(angle), far * math.sin(angle))
        marks.append(Mark(circle(*centre, min(f.rx, f.ry) * dice.between(0.1, 0.22)), colour))
    return marks


def _flanks(dice: Dice, colour: Colour, f: Frame) -> list[Mark]:
    thorns = []
    for v in (-0.35, 0.0, 0.35):
        edge = 1.1 - 0.3 * abs(v)
        thorns.append(polygon(f.path((edge, v - 0.14), (edge, v + 0.1), (0.45, v))))
    return [Mark(shape, colour) for thorn in thorns for shape in (thorn, thorn.mirrored(f.x))]


def _bands(dice: Dice, colour: Colour, f: Frame) -> list[Mark]:
    arcs = [f.path((-1.1, v - 0.12), (0, v + 0.08), (1.1, v - 0.12)) for v in (-0.5, 0.05, 0.6)]
    return [Mark(tube(arc, 0.1 * f.ry, 0.1 * f.ry, steps=3), colour) for arc in arcs]


def _cap(dice: Dice, colour: Colour, f: Frame) -> list[Mark]:
    return [Mark(f.oval(0, -0.95, 1.1, 0.75), colour)]


def _socks(dice: Dice, colour: Colour, f: Frame) -> list[Mark]:
    return [Mark(f.oval(0, 1.15, 1.2, 0.7), colour)]
