"""The heads of the demo creatures: ears, skull, eyes, mouth and crest.

Units and conventions are those of `creature_parts`; a head is given by the frame its skull fills.
"""

from collections.abc import Callable

from pokegan.data.creature_parts import (
    INK,
    WHITE,
    Dice,
    Palette,
    flame,
    solid,
    spike,
    sprig,
    stroke,
    tuft,
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
    tube,
    union,
)

_BLUSH: Colour = (0.95, 0.45, 0.45)
_MOUTH: Colour = (0.55, 0.16, 0.22)
_TONGUE: Colour = (0.94, 0.52, 0.55)


# Eyes: frame `e` holds one eye; `inner` is +1 or -1, the side on which the nose lies --------------

Eye = Callable[[Frame, float, Colour], Layer]


def eyes(dice: Dice, palette: Palette, x: float, y: float, gap: float, r: float) -> list[Layer]:
    """Two eyes of radius about `r`, `gap` from the middle line `x`."""
    eye = choose_eye(dice)
    frames = ((Frame(x - gap, y, r, r), 1.0), (Frame(x + gap, y, r, r), -1.0))
    return [eye(frame, inner, palette.iris) for frame, inner in frames]


def choose_eye(dice: Dice) -> Eye:
    """One way to draw an eye; wide and glossy ones are the most common."""
    if dice.chance(0.04):
        return _happy_eye
    return dice.pick((_wide_eye,) * 3 + (_glossy_eye,) * 2 + (_fierce_eye, _sleepy_eye, _dot_eye))


def _happy_eye(e: Frame, inner: float, iris: Colour) -> Layer:
    return stroke(e.path((-0.8, 0.3), (0, -0.45), (0.8, 0.3)), 0.34 * e.rx)


def _dot_eye(e: Frame, inner: float, iris: Colour) -> Layer:
    shine = Mark(e.oval(-0.2, -0.25, 0.2, 0.2), WHITE)
    return Layer(e.oval(0, 0, 0.54, 0.64), INK, INK, (shine,), 0)


def _glossy_eye(e: Frame, inner: float, iris: Colour) -> Layer:
    bowl = Mark(e.oval(0, 0.5, 0.5, 0.4), iris)
    shine = Mark(e.oval(-0.22, -0.4, 0.27, 0.27), WHITE)
    spark = Mark(e.oval(0.26, 0.42, 0.13, 0.13), WHITE)
    return Layer(e.oval(0, 0, 0.74, 1), INK, INK, (bowl, shine, spark), 0)


def _wide_eye(e: Frame, inner: float, iris: Colour, lid: Shape | None = None) -> Layer:
    """White, iris, pupil and highlight; of the white only what lies inside `lid` shows."""
    white, u = e.oval(0, 0, 0.86, 1), 0.07 * inner
    shine = Mark(e.oval(u - 0.2, 0.12 if lid else -0.22, 0.22, 0.22), WHITE)
    ring, pupil = e.oval(u, 0.08, 0.58, 0.76), e.oval(u, 0.1, 0.36, 0.52)
    marks = (Mark(ring, iris), Mark(pupil, INK), shine)
    return Layer(white.within(lid) if lid else white, WHITE, INK, marks, 0)


def _fierce_eye(e: Frame, inner: float, iris: Colour) -> Layer:
    left, right = (-0.86, -0.12) if inner > 0 else (-0.12, -0.86)
    return _wide_eye(e, inner, iris, band(e.at(-1, left), e.at(1, right)))


def _sleepy_eye(e: Frame, inner: float, iris: Colour) -> Layer:
    return _wide_eye(e, inner, iris, band(e.at(-1, -0.12), e.at(1, -0.12)))


# Mouths: frame `m` holds the mouth, its corners at (-1, 0) and (1, 0) -----------------------------


def mouth(dice: Dice, x: float, y: float, w: float) -> list[Layer]:
    """A mouth about `w` units to each side of (x, y)."""
    return dice.pick((_smile, _smile, _cat_mouth, _laugh, _laugh, _fangs, _gape))(Frame(x, y, w, w))


def _smile(m: Frame) -> list[Layer]:
    return [stroke(m.path((-1, 0), (0, 0.45), (1, 0)), 0.03)]


def _cat_mouth(m: Frame) -> list[Layer]:
    return mirrored_pair([stroke(m.path((-1, 0), (-0.5, 0.38), (0, 0)), 0.028)], m.x)


def _laugh(m: Frame) -> list[Layer]:
    bowl = m.oval(0, 0, 0.85, 0.95).within(band(m.at(-1, 0), m.at(1, 0)))
    return [Layer(bowl, _MOUTH, INK, (Mark(m.oval(0, 0.95, 0.5, 0.5), _TONGUE),), 0)]


def _gape(m: Frame) -> list[Layer]:
    return [Layer(m.oval(0, 0.1, 0.3, 0.36), _MOUTH, INK, (), 0)]


def _fangs(m: Frame) -> list[Layer]:
    tooth = m.path((0.3, 0.3), (0.8, 0.16), (0.62, 0.8))
    dark, light = polygon(tooth, 0.022), polygon(tooth)
    fang = [Layer(dark, INK, shading=0), Layer(light, WHITE, shading=0)]
    return [*mirrored_pair(fang, m.x), *_smile(m)]


def face(dice: Dice, palette: Palette, x: float, y: float, r: float) -> list[Layer]:
    """Cheeks, eyes and mouth for a head of radius about `r` whose face looks from (x, y)."""
    gap, size = r * dice.between(0.4, 0.5), r * dice.between(0.24, 0.34)
    layers: list[Layer] = []
    if dice.chance(0.45):
        colour = dice.pick((_BLUSH, palette.accent))
        cheek = ellipse(x + gap * 1.55, y + 0.36 * r, 0.15 * r, 0.11 * r)
        layers = mirrored_pair([Layer(cheek, colour, shading=0)], x)
    layers += eyes(dice, palette, x, y, gap, size)
    return layers + mouth(dice, x, y + 0.42 * r, r * dice.between(0.16, 0.24))


# Ears, horns and feelers: the right one, drawn before the head `h` that overlaps it ---------------


def ears(dice: Dice, palette: Palette, h: Frame) -> list[Layer]:
    """A pair of ears, horns or feelers for a head."""
    soft = (_cat_ear, _cat_ear, _round_ear, _rabbit_ear, _petal_ear, _drop_ear)
    right = dice.pick((*soft, _horn, _feeler, _fin_ear))
    return mirrored_pair(right(dice, palette, h), h.x)


def _cat_ear(dice: Dice, palette: Palette, h: Frame) -> list[Layer]:
    u, v = dice.between(0.65, 1.2), -dice.between(1.15, 1.55)
    outer = h.path((0.12, -0.72), (0.88, -0.3), (u, v))
    inner = h.path((0.36, -0.68), (0.74, -0.45), (0.86 * u + 0.07, 0.86 * v - 0.09))
    colour = dice.pick((palette.belly, palette.second))
    return [solid(polygon(outer, 0.03), palette.main, Mark(polygon(inner), colour))]


def _round_ear(dice: Dice, palette: Palette, h: Frame) -> list[Layer]:
    r, centre = h.rx * dice.between(0.26, 0.44), h.at(0.72, -0.72)
    return [solid(circle(*centre, r), palette.main, Mark(circle(*centre, 0.58 * r), palette.belly))]


def _rabbit_ear(dice: Dice, palette: Palette, h: Frame) -> list[Layer]:
    u, v = dice.between(0.45, 1.0), -dice.between(1.5, 1.95)
    inner = limb(h.at(0.2 + 0.5 * u, -0.3 + 0.6 * v), h.at(u, v), 0.03, 0.07)
    return [
        solid(
            limb(h.at(0.45, -0.6), h.at(u, v), 0.1, 0.14), palette.main, Mark(inner, palette.belly)
        )
    ]


def _petal_ear(dice: Dice, palette: Palette, h: Frame) -> list[Layer]:
    root, u, v = h.at(0.45, -0.4), dice.between(1.0, 1.5), -dice.between(0.9, 1.4)
    inner = leaf(root, h.at(0.84 * u + 0.07, 0.84 * v - 0.06), 0.16)
    return [
        solid(leaf(root, h.at(u, v), 0.42 * h.rx + 0.1), palette.main, Mark(inner, palette.belly))
    ]


def _drop_ear(dice: Dice, palette: Palette, h: Frame) -> list[Layer]:
    path = h.path((0.55, -0.65), (1.02, -0.45), (1.12, dice.between(0.05, 0.4)))
    return [solid(tube(path, 0.09, 0.15), palette.second)]


def _horn(dice: Dice, palette: Palette, h: Frame) -> list[Layer]:
    bow, rise = dice.between(0.1, 0.4), dice.between(0.2, 0.4)
    path = h.path((0.55, -0.6), (0.55 + bow, -0.62 - rise), (0.5 + bow, -0.8 - 2 * rise))
    return [solid(tube(path, 0.1, 0.02), palette.belly)]


def _feeler(dice: Dice, palette: Palette, h: Frame) -> list[Layer]:
    u, v = dice.between(0.6, 1.05), -dice.between(1.25, 1.6)
    stalk = tube(h.path((0.5, -0.6), (0.52, v + 0.25), (u, v)), 0.03, 0.022)
    knob = circle(*h.at(u, v), dice.between(0.065, 0.1))
    return [solid(stalk, palette.second), solid(knob, palette.accent)]


def _fin_ear(dice: Dice, palette: Palette, h: Frame) -> list[Layer]:
    top, low = (1.35, -dice.between(0.6, 1.0)), (1.42, dice.between(-0.15, 0.1))
    fan = h.path((0.6, -0.5), top, (1.18, -0.3), low, (0.7, 0.15))
    return [solid(polygon(fan, 0.025), palette.second)]


def crest(dice: Dice, palette: Palette, x: float, y: float, odds: float = 0.5) -> list[Layer]:
    """With these odds, one thing that fits the element on a head whose crown is at (x, y)."""
    if not dice.chance(odds):
        return []
    size = dice.between(0.24, 0.4)
    if palette.element in ("ember", "magma"):
        return flame(x, y + 0.08, size * 1.25)
    if palette.element in ("leaf", "moss", "blossom"):
        return sprig(dice, palette, x, y + 0.04, size)
    if palette.element in ("frost", "steel", "stone", "deep"):
        return [solid(spike(x, y + 0.06, 0.09, size), dice.pick((palette.accent, palette.belly)))]
    return tuft(dice, palette, x, y, size)


# Whole heads --------------------------------------------------------------------------------------


def head(dice: Dice, palette: Palette, x: float, y: float, r: float, yaw: float) -> list[Layer]:
    """Ears, skull, markings, face and crest about (x, y); `yaw` in [-0.4, 0.4] turns the face."""
    h = Frame(x, y, r * dice.between(0.98, 1.18), r * dice.between(0.86, 1.0))
    skull = dice.pick((_round_skull, broad_skull, _egg_skull, _fluffy_skull))(h)
    look = Frame(*h.at(yaw, dice.between(0.02, 0.16)), h.rx, h.ry)
    layers = ears(dice, palette, h) if dice.chance(0.85) else []
    layers.append(solid(skull, palette.main, *_face_marks(dice, palette, h, look)))
    features = face(dice, palette, look.x, look.y, r)
    if dice.chance(0.25):
        layers.append(solid(look.oval(0.25 * yaw, 0.46, 0.44, 0.34), palette.belly, shading=0.6))
    if dice.chance(0.45):
        features.append(Layer(look.oval(0.2 * yaw, 0.25, 0.085, 0.07), INK, shading=0))
    return layers + features + crest(dice, palette, x, h.at(0, -0.95)[1])


def _face_marks(dice: Dice, palette: Palette, h: Frame, look: Frame) -> list[Mark]:
    """Muzzle, mask, cap, blaze or brow gem on a head `h` whose face is at `look`, or nothing."""
    fx, fy, rx = look.x, look.y, look.rx
    gem = polygon(look.path((0, -0.78), (0.26, -0.55), (0, -0.36), (-0.26, -0.55)), 0.02)
    choices: tuple[list[Mark], ...] = (
        [],
        [Mark(look.oval(0, 0.5, 0.52, 0.46), palette.belly)],
        [Mark(look.oval(0, 0.5, 0.62, 0.5), palette.belly)],
        [Mark(look.oval(0, 0, 0.95, 0.42), palette.second)],
        [Mark(h.oval(0, -0.95, 1.1, 0.62), palette.second)],
        [Mark(leaf((fx, h.at(0, -1.1)[1]), (fx, fy + 0.2 * h.ry), 0.42 * rx), palette.belly)],
        [Mark(gem, palette.accent)],
    )
    return dice.pick(choices)


def _round_skull(h: Frame) -> Shape:
    return h.oval()


def broad_skull(h: Frame) -> Shape:
    """A skull with full cheeks."""
    return blend(0.15, h.oval(0, -0.12, 0.88, 0.88), h.oval(0, 0.34, 1.04, 0.62))


def _egg_skull(h: Frame) -> Shape:
    return blend(0.2, h.oval(0, -0.1, 1, 0.9), h.oval(0, 0.5, 0.6, 0.5))


def _fluffy_skull(h: Frame) -> Shape:
    tufts = [leaf(h.at(0.4, 0.3), h.at(1.28, v), 0.4 * h.ry) for v in (0.25, 0.62)]
    return union(h.oval(), *tufts, *(lock.mirrored(h.x) for lock in tufts))
