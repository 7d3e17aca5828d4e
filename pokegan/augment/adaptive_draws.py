"""The transforms of adaptive discriminator augmentation: what is drawn, and what it comes to.

Source: Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020 (arXiv
2006.06676), appendix B. Of its pipeline this is the part up to the colours (`bgc`), resampled
once, bilinearly, where the paper filters a picture of twice the size with wavelets.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pokegan.augment.geometry import Placement
from pokegan.augment.layout import per_picture
from pokegan.ops.random import Stream, normal, uniform

TRANSFORMS = ("blit", "geometry", "colour")
_WORDS = 32  # 13 that decide, 8 that are uniform, and from _NORMALS on 7 that become normal
_NORMALS = 24


class Draws(NamedTuple):
    """What is done to each picture, in this order; every part is [N] float32.

    Attributes:
        move_x: whole pixels to the right, up to an eighth of the width either way.
        move_y: whole pixels down, likewise.
        flip: -1 mirrors left to right, 1 does not.
        turns: quarter turns, 0 to 3.
        scale: factor of both sides, 2^(0.2 n).
        turn_before: radians in [-pi, pi).
        stretch: factor of the width and divisor of the height, 2^(0.2 n).
        turn_after: radians in [-pi, pi).
        drift_x: pixels to the right, n / 8 of the width.
        drift_y: pixels down, likewise.
        brightness: added to every value, 0.2 n.
        contrast: factor of every value, 2^(0.5 n).
        luma: -1 negates the grey axis, 1 does not.
        hue: radians in [-pi, pi) about the grey axis.
        saturation: factor of the distance to the grey axis, 2^n.
    """

    move_x: Tensor
    move_y: Tensor
    flip: Tensor
    turns: Tensor
    scale: Tensor
    turn_before: Tensor
    stretch: Tensor
    turn_after: Tensor
    drift_x: Tensor
    drift_y: Tensor
    brightness: Tensor
    contrast: Tensor
    luma: Tensor
    hue: Tensor
    saturation: Tensor


def draw(
    seed: int,
    stream: Stream,
    step: Tensor | int,
    samples: Tensor,
    p: Tensor,
    policy: frozenset[str],
    height: int,
    width: int,
) -> Draws:
    """Draw what is done to each picture; a transform that is not applied has its identity.

    Each transform is applied with probability p, on its own; of the two rotations at least one is
    with probability p, as in the paper. A flip and the quarter turns include the identity among
    their outcomes.

    Args:
        seed: the run's seed.
        stream: for whom.
        step: the step, an int or an int64 scalar on the device.
        samples: [N] int64 global sample indices.
        p: float32 scalar in [0, 1], on the device.
        policy: which of `TRANSFORMS` take part.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
    """
    u = uniform(seed, stream, step, samples, _WORDS).unbind(1)
    n = normal(seed, stream, step, samples, _WORDS)[:, _NORMALS:].unbind(1)
    blit, geometry, colour = (p if name in policy else p * 0 for name in TRANSFORMS)
    turning = 1 - (1 - geometry).sqrt()

    def angle(word: int) -> Tensor:
        return (u[word] * 2 - 1) * math.pi

    def if_drawn(word: int, probability: Tensor, value: Tensor, identity: float) -> Tensor:
        return torch.where(u[word] < probability, value, identity)

    return Draws(
        if_drawn(0, blit, ((u[13] - 0.5) * (0.25 * width)).round(), 0),
        if_drawn(0, blit, ((u[14] - 0.5) * (0.25 * height)).round(), 0),
        if_drawn(1, blit, (u[15] * 2).floor() * 2 - 1, 1),
        if_drawn(2, blit, (u[16] * 4).floor(), 0),
        if_drawn(3, geometry, (0.2 * n[0]).exp2(), 1),
        if_drawn(4, turning, angle(17), 0),
        if_drawn(5, geometry, (0.2 * n[1]).exp2(), 1),
        if_drawn(6, turning, angle(18), 0),
        if_drawn(7, geometry, n[2] * (0.125 * width), 0),
        if_drawn(7, geometry, n[3] * (0.125 * height), 0),
        if_drawn(8, colour, 0.2 * n[4], 0),
        if_drawn(9, colour, (0.5 * n[5]).exp2(), 1),
        if_drawn(10, colour, (u[19] * 2).floor() * 2 - 1, 1),
        if_drawn(11, colour, angle(20), 0),
        if_drawn(12, colour, n[6].exp2(), 1),
    )


def placement(draws: Draws) -> Placement:
    """Return the move, flip, turns, scalings and drift of each picture as one placement.

    A picture's point s comes to R(after) S R(before + turns) scale F (s + move) + drift, with F
    the flip, S the stretch and R a rotation; this is the inverse, written out.
    """
    quarter_cos = (draws.turns == 0).float() - (draws.turns == 2).float()
    quarter_sin = (draws.turns == 1).float() - (draws.turns == 3).float()
    cos_before, sin_before = draws.turn_before.cos(), draws.turn_before.sin()
    cos = cos_before * quarter_cos - sin_before * quarter_sin
    sin = sin_before * quarter_cos + cos_before * quarter_sin
    # The rows of S^-1 R(-after)
    first = draws.turn_after.cos() / draws.stretch, draws.turn_after.sin() / draws.stretch
    second = -draws.turn_after.sin() * draws.stretch, draws.turn_after.cos() * draws.stretch
    xx = (cos * first[0] + sin * second[0]) * draws.flip / draws.scale
    xy = (cos * first[1] + sin * second[1]) * draws.flip / draws.scale
    yx = (cos * second[0] - sin * first[0]) / draws.scale
    yy = (cos * second[1] - sin * first[1]) / draws.scale
    x = -(xx * draws.drift_x + xy * draws.drift_y) - draws.move_x
    y = -(yx * draws.drift_x + yy * draws.drift_y) - draws.move_y
    return Placement(xx, xy, yx, yy, x, y)


def recolour(values: Tensor, draws: Draws) -> Tensor:
    """Apply the five colour changes in one pass; [N, 3, H, W] to the same, differentiable.

    Their product is an offset and one 3x3 matrix. The part on the grey axis is scaled by contrast
    and luma, the rest turned by the hue and scaled by contrast and saturation, so the matrix is
    circulant: each output channel has the same three weights for itself and the next two.
    """
    grey = draws.contrast * draws.luma
    rest = draws.contrast * draws.saturation
    along, across = rest * draws.hue.cos() / 3, rest * draws.hue.sin() / math.sqrt(3)
    own, following, last = (
        per_picture(weight, values)
        for weight in (
            grey / 3 + 2 * along,
            grey / 3 - along - across,
            grey / 3 - along + across,
        )
    )
    offset = per_picture(draws.brightness * grey, values)
    return own * values + following * values.roll(-1, 1) + last * values.roll(-2, 1) + offset
